#include "launcher.h"
#include "stem_block_launch.h"

namespace effnet_fast::cuda {

template void launch_stem_block<bfloat16>(const StemBlockCall&, Launcher&);

}  // namespace effnet_fast::cuda
