#include "dispatch.h"

#include <cstdlib>
#include <stdexcept>

namespace effnet_fast {

bool supported(Isa isa) {
#if defined(__x86_64__)
  __builtin_cpu_init();
  const bool avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && __builtin_cpu_supports("f16c");
  const bool avx512 = avx2 && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
                      __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl");
  switch (isa) {
    case Isa::kAvx512Bf16: return avx512 && __builtin_cpu_supports("avx512bf16");
    case Isa::kAvx512: return avx512;
    case Isa::kAvx2: return avx2;
    case Isa::kPortable: return true;
  }
#endif
  return isa == Isa::kPortable;
}

std::string supported_isas() {
  std::string names;
  for (int i = 0; i < kIsaCount; i++) {
    if (!supported(static_cast<Isa>(i))) continue;
    if (!names.empty()) names += ',';
    names += kIsaNames[i];
  }
  return names;
}

namespace {

Isa by_name(std::string_view name, const std::string& what) {
  for (int i = 0; i < kIsaCount; i++) {
    if (name == kIsaNames[i] && supported(static_cast<Isa>(i))) return static_cast<Isa>(i);
  }
  throw std::invalid_argument(what + " = '" + std::string(name) + "', this machine runs " + supported_isas());
}

Isa choose() {
  const char* forced = std::getenv("EFFNET_FAST_CPU_ISA");
  if (forced && *forced && std::string_view(forced) != "auto") return by_name(forced, "EFFNET_FAST_CPU_ISA");
  for (int i = 0; i < kIsaCount; i++) {
    if (supported(static_cast<Isa>(i))) return static_cast<Isa>(i);
  }
  return Isa::kPortable;
}

}  // namespace

Isa active_isa() {
  static const Isa active = choose();
  return active;
}

Isa parse_isa(std::string_view name) { return name == "auto" ? active_isa() : by_name(name, "isa"); }

const KernelTable& kernels_of(Isa isa) {
  switch (isa) {
#if defined(__x86_64__)
    case Isa::kAvx512Bf16: return avx512_bf16_kernels();
    case Isa::kAvx512: return avx512_kernels();
    case Isa::kAvx2: return avx2_kernels();
#endif
    default: return portable_kernels();
  }
}

}  // namespace effnet_fast
