#include "dispatch.h"

#include <algorithm>
#include <cstdlib>
#include <stdexcept>
#include <utility>
#include <vector>

#if defined(__x86_64__)
#include <cpuid.h>
#endif
#if defined(__linux__)
#include <sys/syscall.h>
#include <unistd.h>
#endif

namespace effnet_fast {
namespace {

// Whether the CPU multiplies matrices of bfloat16 (AMX), and Linux lets this process do it, which has to be asked for:
// the tiles' 8 KB are kept for each thread from its first use on.
bool has_matrix_unit() {
#if defined(__x86_64__) && defined(__linux__)
  static const bool granted = [] {
    unsigned a, b, c, d = 0;
    const unsigned unit = 1u << 22 | 1u << 24;  // AMX-BF16, AMX-TILE
    if (!__get_cpuid_count(7, 0, &a, &b, &c, &d) || (d & unit) != unit) return false;
    constexpr long kRequestPermission = 0x1023, kTileData = 18;  // ARCH_REQ_XCOMP_PERM, XFEATURE_XTILEDATA
    return syscall(SYS_arch_prctl, kRequestPermission, kTileData) == 0;
  }();
  return granted;
#else
  return false;
#endif
}

}  // namespace

bool supported(Isa isa) {
#if defined(__x86_64__)
  __builtin_cpu_init();
  const bool avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && __builtin_cpu_supports("f16c");
  const bool avx512 = avx2 && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
                      __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl");
  switch (isa) {
    case Isa::kAvx512Amx: return avx512 && __builtin_cpu_supports("avx512bf16") && has_matrix_unit();
    case Isa::kAvx512Bf16: return avx512 && __builtin_cpu_supports("avx512bf16");
    case Isa::kAvx512: return avx512;
    case Isa::kAvx2: return avx2;
    case Isa::kPortable: return true;
  }
#endif
  return isa == Isa::kPortable;
}

namespace {

// Intel's cores begin a dot product of bfloat16 pairs every second cycle, half the products of their two float32
// multiply-adds a cycle: 35 against 68 GMAC/s on a core with AMX, where B0 in bfloat16 at batch 16 takes 1.4 times
// as long with dot products as without. A Zen 5 core begins as many of either.
bool bf16_dots_are_slow() {
#if defined(__x86_64__)
  __builtin_cpu_init();
  return __builtin_cpu_is("intel");
#endif
  return false;
}

// The sets that this machine runs, the one to use first.
std::vector<Isa> best_first() {
  std::vector<Isa> isas;
  for (int i = 0; i < kIsaCount; i++) {
    if (supported(static_cast<Isa>(i))) isas.push_back(static_cast<Isa>(i));
  }
  const auto dots = std::find(isas.begin(), isas.end(), Isa::kAvx512Bf16);
  if (dots != isas.end() && bf16_dots_are_slow()) std::swap(dots[0], dots[1]);
  return isas;
}

Isa by_name(std::string_view name, const std::string& what) {
  for (int i = 0; i < kIsaCount; i++) {
    if (name == kIsaNames[i] && supported(static_cast<Isa>(i))) return static_cast<Isa>(i);
  }
  throw std::invalid_argument(what + " = '" + std::string(name) + "', this machine runs " + supported_isas());
}

Isa choose() {
  const char* forced = std::getenv("EFFNET_FAST_CPU_ISA");
  if (forced && *forced && std::string_view(forced) != "auto") return by_name(forced, "EFFNET_FAST_CPU_ISA");
  return best_first()[0];
}

}  // namespace

std::string supported_isas() {
  std::string names;
  for (const Isa isa : best_first()) {
    if (!names.empty()) names += ',';
    names += kIsaNames[static_cast<int>(isa)];
  }
  return names;
}

Isa active_isa() {
  static const Isa active = choose();
  return active;
}

Isa parse_isa(std::string_view name) { return name == "auto" ? active_isa() : by_name(name, "isa"); }

const KernelTable& kernels_of(Isa isa) {
  switch (isa) {
#if defined(__x86_64__)
    case Isa::kAvx512Amx: return avx512_amx_kernels();
    case Isa::kAvx512Bf16: return avx512_bf16_kernels();
    case Isa::kAvx512: return avx512_kernels();
    case Isa::kAvx2: return avx2_kernels();
#endif
    default: return portable_kernels();
  }
}

}  // namespace effnet_fast
