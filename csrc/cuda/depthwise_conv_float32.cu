#include "depthwise_conv_launch.h"
#include "launcher.h"

namespace effnet_fast::cuda {

template void launch_depthwise_conv<float>(const DepthwiseConvCall&, Launcher&, const SqueezeExciteTail&);

}  // namespace effnet_fast::cuda
