#include "harness.h"

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstring>
#include <limits>
#include <random>
#include <thread>

namespace effnet_fast {
namespace {

int passed = 0, failed = 0;
std::mt19937 generator(7);

double unit(DType dtype) {
  if (dtype == DType::kBFloat16) return 1.0 / 128;
  return dtype == DType::kFloat16 ? 1.0 / 1024 : 1e-6;
}

void count(bool good) { (good ? passed : failed)++; }

void on_three_threads(int64_t n, void (*body)(int64_t, int64_t, void*), void* context) {
  std::vector<std::thread> threads;
  const int64_t share = ceil_div(n, 3);
  for (int64_t begin = 0; begin < n; begin += share) {
    threads.emplace_back(body, begin, std::min(begin + share, n), context);
  }
  for (auto& thread : threads) thread.join();
}

constexpr Activation kActivations[] = {Activation::kSilu, Activation::kIdentity, Activation::kRelu, Activation::kRelu6,
                                       Activation::kHardswish};
constexpr const char* kActivationNames[] = {"silu", "identity", "relu", "relu6", "hardswish"};

}  // namespace

const Parallel kSerial{1, nullptr};
const Parallel kThreads{3, on_three_threads};

Array::Array(DType dtype, int64_t count) : dtype(dtype), values(count), memory(new char[count * size_of(dtype)]) {
  for (int64_t i = 0; i < count; i++) set(i, dtype == DType::kUInt8 ? 0 : std::numeric_limits<float>::quiet_NaN());
}

void Array::set(int64_t i, float value) {
  switch (dtype) {
    case DType::kFloat32: reinterpret_cast<float*>(memory.get())[i] = value; break;
    case DType::kFloat16: reinterpret_cast<float16*>(memory.get())[i] = from_float<float16>(value); break;
    case DType::kBFloat16: reinterpret_cast<bfloat16*>(memory.get())[i] = from_float<bfloat16>(value); break;
    case DType::kUInt8: reinterpret_cast<uint8_t*>(memory.get())[i] = static_cast<uint8_t>(value); break;
  }
  values[i] = get(i);
}

float Array::get(int64_t i) const {
  switch (dtype) {
    case DType::kFloat32: return reinterpret_cast<const float*>(memory.get())[i];
    case DType::kFloat16: return to_float(reinterpret_cast<const float16*>(memory.get())[i]);
    case DType::kBFloat16: return to_float(reinterpret_cast<const bfloat16*>(memory.get())[i]);
    case DType::kUInt8: return reinterpret_cast<const uint8_t*>(memory.get())[i];
  }
  return 0;
}

Array& Array::random(float scale) {
  std::normal_distribution<float> normal(0.0f, scale);
  for (int64_t i = 0; i < count(); i++) {
    set(i, dtype == DType::kUInt8 ? static_cast<float>(generator() % 256) : normal(generator));
  }
  return *this;
}

Block::Block(const PackRequest& request) : memory(new char[packed_layout(request).bytes]) {
  pack(request, memory.get());
}

Block packed_matrix(Isa isa, int64_t in, int64_t out, const Array& weight, const Array& bias) {
  return Block({PackedKind::kMatrix, isa, in, out, 1, 0, weight.weight(), bias.weight(), {}, {}, {}, {}});
}

Block packed_squeeze_excite(Isa isa, int64_t channels, int64_t squeeze, const Array& w1, const Array& b1,
                            const Array& w2, const Array& b2) {
  return Block({PackedKind::kSqueezeExcite,
                isa,
                channels,
                channels,
                1,
                squeeze,
                {},
                {},
                w1.weight(),
                b1.weight(),
                w2.weight(),
                b2.weight()});
}

Block packed_depthwise(Isa isa, const ConvGeometry& g, const Array& weight, const Array& bias) {
  return Block({PackedKind::kDepthwise, isa, g.c, g.c, g.kernel, 0, weight.weight(), bias.weight(), {}, {}, {}, {}});
}

Array over_tiles(const Array& sums, const ConvGeometry& g) {
  Array total(DType::kFloat32, g.n * g.c);
  for (int64_t i = 0; i < total.count(); i++) {
    double sum = 0;
    for (int64_t t = 0; t < g.pool_tiles(); t++) sum += sums.get((i / g.c * g.pool_tiles() + t) * g.c + i % g.c);
    total.set(i, static_cast<float>(sum));
  }
  return total;
}

void expect_near(const std::string& what, const std::vector<double>& wanted, const Array& got, DType computed_for) {
  double error = 0, largest = 1e-3;
  for (double value : wanted) largest = std::isfinite(value) ? std::max(largest, std::fabs(value)) : largest;
  for (int64_t i = 0; i < got.count(); i++) {
    const double value = got.get(i);
    if (value == wanted[i] || (std::isnan(value) && std::isnan(wanted[i]))) continue;
    const double e = std::fabs(value - wanted[i]);
    error = std::isnan(e) ? std::numeric_limits<double>::infinity() : std::max(error, e);
  }
  const double allowed = 2 * unit(got.dtype) + (computed_for == DType::kFloat32 ? 0 : unit(computed_for) / 64);
  const bool good = error <= allowed * largest;
  count(good);
  if (!good) std::printf("FAILED %s: error %g of %g\n", what.c_str(), error, largest);
}

void expect_same(const std::string& what, const Array& wanted, const Array& got) {
  const bool good = std::memcmp(wanted.data(), got.data(), got.count() * size_of(got.dtype)) == 0;
  count(good);
  if (!good) std::printf("FAILED %s: other bits\n", what.c_str());
}

Activation Turns::next() { return kActivations[++turn % 5]; }

std::string Turns::name() const {
  const char* type = dtype == DType::kFloat32 ? " f32 " : dtype == DType::kFloat16 ? " f16 " : " bf16 ";
  return std::string(kIsaNames[static_cast<int>(isa)]) + type + kActivationNames[turn % 5] + " ";
}

int run(const char* kernel, void (*test)(Isa isa)) {
  for (int i = 0; i < kIsaCount; i++) {
    if (!supported(static_cast<Isa>(i))) {
      std::printf("%s %s: not run, this machine does not have it\n", kernel, kIsaNames[i]);
      continue;
    }
    const int before = passed;
    test(static_cast<Isa>(i));
    std::printf("%s %s: %d checks passed\n", kernel, kIsaNames[i], passed - before);
  }
  std::printf("%d passed, %d failed\n", passed, failed);
  return failed ? 1 : 0;
}

}  // namespace effnet_fast
