#include "expand_depthwise_launch.h"
#include "launcher.h"

namespace effnet_fast::cuda {

template void launch_expand_depthwise<bfloat16>(const ExpandDepthwiseCall&, const ExpandDepthwisePlan&, Launcher&);

}  // namespace effnet_fast::cuda
