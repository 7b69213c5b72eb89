#include "bind_expand_depthwise.h"

namespace effnet_fast::emulation {

// The form with the depthwise convolution by multiply-adds.
static const Operator kBound("expand_depthwise_fma", launch_fused_expand_depthwise<false>);

}  // namespace effnet_fast::emulation
