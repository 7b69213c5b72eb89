// The kernels compiled for AVX-512 (F, BW, DQ, VL).
#include "isa_prologue.h"

#if defined(__x86_64__)
#pragma GCC push_options
#pragma GCC target("avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,f16c")

namespace effnet_fast {
namespace avx512 {
#define EFFNET_FAST_ISA_NAME "avx512"
#include "vec_avx512.h"
#include "kernel_table.inl"
}  // namespace avx512

const KernelTable& avx512_kernels() { return avx512::kTable; }
}  // namespace effnet_fast
#pragma GCC pop_options
#endif
