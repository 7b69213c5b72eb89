#include "bind_expand_depthwise.h"

namespace effnet_fast::emulation {

// The form with the depthwise convolution by multiply-adds.
static const Operator kBound("expand_depthwise_fma", [](Arguments& arguments, Launcher& launcher) {
  const cuda::ExpandDepthwiseCall call = expand_depthwise_call(arguments);
  const cuda::ExpandDepthwisePlan plan = expand_depthwise_plan(arguments, call, true);
  if (plan.variant < 0) throw std::invalid_argument("the fused kernel does not take this call");
  g_stmatrix = arguments.integer("stmatrix") != 0;
  if (arguments.dtype("dtype") == DType::kFloat16)
    cuda::launch_expand_depthwise<cuda::half, false>(call, plan, launcher);
  else
    cuda::launch_expand_depthwise<cuda::bfloat16, false>(call, plan, launcher);
});

}  // namespace effnet_fast::emulation
