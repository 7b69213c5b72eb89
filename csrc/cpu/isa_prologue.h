// Standard headers of every kernel. Included before an instruction set is switched on, so that no inline function
// of the standard library is compiled for a wider instruction set than the platform's (the linker keeps one copy).
#pragma once

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <type_traits>
#include <utility>
#if defined(__x86_64__)
#include <immintrin.h>
#endif

#include "fused_mbconv_shape.h"
#include "kernels.h"
#include "mbconv_shape.h"
#include "scratch.h"

#define ALWAYS_INLINE static inline __attribute__((always_inline))
