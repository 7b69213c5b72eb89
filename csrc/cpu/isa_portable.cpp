// The kernels compiled for the platform's baseline, through the compiler's portable vectors.
#include "isa_prologue.h"

namespace effnet_fast {
namespace portable {
#define EFFNET_FAST_ISA_NAME "portable"
#include "vec_portable.h"
#include "kernel_table.inl"
}  // namespace portable

const KernelTable& portable_kernels() { return portable::kTable; }
}  // namespace effnet_fast
