#include "launcher.h"
#include "pointwise_conv_launch.h"

namespace effnet_fast::cuda {

template void launch_pointwise_conv<half>(const PointwiseConvCall&, Launcher&);

}  // namespace effnet_fast::cuda
