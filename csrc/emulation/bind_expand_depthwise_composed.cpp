#include "../cuda/expand_depthwise_composed.h"

#include "bind_expand_depthwise.h"

namespace effnet_fast::emulation {

// What becomes of a call that the fused kernel does not take; one that it takes is an error here.
static const Operator kBound("expand_depthwise_composed", [](Arguments& arguments, Launcher& launcher) {
  const cuda::ExpandDepthwiseCall call = expand_depthwise_call(arguments);
  const DType dtype = arguments.dtype("dtype");
  if (cuda::plan_expand_depthwise(call, size_of(dtype) == 2).variant >= 0)
    throw std::invalid_argument("the fused kernel takes this call");
  const cuda::ExpandWeights weights{arguments.weights<void>("expand_weight"), arguments.weights<float>("expand_bias")};
  char* expanded = arguments.scratch<char>(cuda::expanded_bytes(call, dtype));
  cuda::with_storage(dtype,
                     [&]<class T>() { cuda::launch_composed_expand_depthwise<T>(call, weights, expanded, launcher); });
});

}  // namespace effnet_fast::emulation
