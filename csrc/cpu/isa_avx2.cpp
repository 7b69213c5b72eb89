// The kernels compiled for AVX2 with FMA and F16C.
#include "isa_prologue.h"

#if defined(__x86_64__)
#pragma GCC push_options
#pragma GCC target("avx2,fma,f16c")

namespace effnet_fast {
namespace avx2 {
#define EFFNET_FAST_ISA_NAME "avx2"
#include "vec_avx2.h"
#include "kernel_table.inl"
}  // namespace avx2

const KernelTable& avx2_kernels() { return avx2::kTable; }
}  // namespace effnet_fast
#pragma GCC pop_options
#endif
