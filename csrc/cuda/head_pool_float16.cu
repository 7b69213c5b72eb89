#include "launcher.h"
#include "head_pool_launch.h"

namespace effnet_fast::cuda {

template void launch_head_pool<half>(const HeadPoolCall&, Launcher&);

}  // namespace effnet_fast::cuda
