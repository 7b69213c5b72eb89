// The kernels compiled for AVX-512 with BF16 dot products.
#include "isa_prologue.h"

#if defined(__x86_64__)
#pragma GCC push_options
#pragma GCC target("avx512f,avx512bw,avx512dq,avx512vl,avx512bf16,avx2,fma,f16c")
#define EFFNET_FAST_HAS_BF16_DOT

namespace effnet_fast {
namespace avx512_bf16 {
#define EFFNET_FAST_ISA_NAME "avx512_bf16"
#include "vec_avx512.h"
#include "kernel_table.inl"
}  // namespace avx512_bf16

const KernelTable& avx512_bf16_kernels() { return avx512_bf16::kTable; }
}  // namespace effnet_fast
#pragma GCC pop_options
#endif
