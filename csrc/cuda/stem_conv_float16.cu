#include "launcher.h"
#include "stem_conv_launch.h"

namespace effnet_fast::cuda {

template void launch_stem_conv<half>(const StemConvCall&, Launcher&);

}  // namespace effnet_fast::cuda
