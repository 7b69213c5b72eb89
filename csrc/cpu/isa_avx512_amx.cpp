// The kernels compiled for AVX-512 with BF16, and matrix units (AMX) for products of bfloat16.
#include "isa_prologue.h"

#if defined(__x86_64__)
#pragma GCC push_options
#pragma GCC target("avx512f,avx512bw,avx512dq,avx512vl,avx512bf16,avx2,fma,f16c,amx-tile,amx-bf16")
#define EFFNET_FAST_HAS_BF16_DOT
#define EFFNET_FAST_HAS_AMX

namespace effnet_fast {
namespace avx512_amx {
#define EFFNET_FAST_ISA_NAME "avx512_amx"
#include "vec_avx512.h"
#include "kernel_table.inl"
}  // namespace avx512_amx

const KernelTable& avx512_amx_kernels() { return avx512_amx::kTable; }
}  // namespace effnet_fast
#pragma GCC pop_options
#endif
