// Drives every CPU kernel of every instruction set that this machine runs, without PyTorch, over odd shapes, against
// loops in double. Meant for AddressSanitizer and UndefinedBehaviorSanitizer: every array has its exact size on the
// heap, so that a read or write past an end is seen. Prints "N passed, M failed"; exit status 1 if any failed.
//
//   python -m tests.cpp.run            builds it with both sanitizers and runs it
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <limits>
#include <memory>
#include <random>
#include <string>
#include <thread>
#include <vector>

#include "../../csrc/cpu/dispatch.h"
#include "../../csrc/cpu/pack.h"

using namespace effnet_fast;

namespace {

int passed = 0, failed = 0;

// Three threads over contiguous ranges, as PyTorch's pool hands them out.
const Parallel kThreads{3, [](int64_t n, void (*body)(int64_t, int64_t, void*), void* context) {
                          std::vector<std::thread> threads;
                          const int64_t share = ceil_div(n, 3);
                          for (int64_t begin = 0; begin < n; begin += share) {
                            threads.emplace_back(body, begin, std::min(begin + share, n), context);
                          }
                          for (auto& thread : threads) thread.join();
                        }};
const Parallel kSerial{1, nullptr};

std::mt19937 generator(7);

// An array of `count` values of a storage type, with their exact values in double beside it. The block is exactly as
// long as the values.
struct Array {
  DType dtype;
  std::vector<double> values;
  std::unique_ptr<char[]> memory;

  Array(DType dtype, int64_t count) : dtype(dtype), values(count), memory(new char[count * size_of(dtype)]) {
    // What a kernel does not write must be seen: NaN in every type.
    for (int64_t i = 0; i < count; i++) set(i, std::numeric_limits<float>::quiet_NaN());
  }
  void set(int64_t i, float value) {
    switch (dtype) {
      case DType::kFloat32: reinterpret_cast<float*>(memory.get())[i] = value; break;
      case DType::kFloat16: reinterpret_cast<float16*>(memory.get())[i] = from_float<float16>(value); break;
      case DType::kBFloat16: reinterpret_cast<bfloat16*>(memory.get())[i] = from_float<bfloat16>(value); break;
      case DType::kUInt8: reinterpret_cast<uint8_t*>(memory.get())[i] = std::isnan(value) ? 0 : uint8_t(value); break;
    }
    values[i] = get(i);
  }
  float get(int64_t i) const {
    switch (dtype) {
      case DType::kFloat32: return reinterpret_cast<const float*>(memory.get())[i];
      case DType::kFloat16: return to_float(reinterpret_cast<const float16*>(memory.get())[i]);
      case DType::kBFloat16: return to_float(reinterpret_cast<const bfloat16*>(memory.get())[i]);
      case DType::kUInt8: return reinterpret_cast<const uint8_t*>(memory.get())[i];
    }
    return 0;
  }
  Array& random(float scale = 1.0f) {
    std::normal_distribution<float> normal(0.0f, scale);
    for (size_t i = 0; i < values.size(); i++) set(i, dtype == DType::kUInt8 ? generator() % 256 : normal(generator));
    return *this;
  }
  void* data() const { return memory.get(); }
  float* floats() const { return reinterpret_cast<float*>(memory.get()); }
};

double activate(Activation activation, double x) {
  switch (activation) {
    case Activation::kIdentity: return x;
    case Activation::kRelu: return x > 0 ? x : 0;
    case Activation::kRelu6: return std::min(std::max(x, 0.0), 6.0);
    case Activation::kSilu: return x / (1 + std::exp(-x));
    case Activation::kHardswish: return x * std::min(std::max(x + 3, 0.0), 6.0) / 6;
  }
  return 0;
}

double unit(DType dtype) {
  if (dtype == DType::kBFloat16) return 1.0 / 128;
  return dtype == DType::kFloat16 ? 1.0 / 1024 : 1e-6;
}

// Largest error against the largest value; two units of the storage type are allowed.
void expect(const std::string& what, const std::vector<double>& wanted, const Array& got) {
  double error = 0, largest = 1e-3;
  for (size_t i = 0; i < wanted.size(); i++) {
    const double e = std::fabs(got.get(i) - wanted[i]);
    error = std::isnan(e) ? std::numeric_limits<double>::infinity() : std::max(error, e);
    largest = std::max(largest, std::fabs(wanted[i]));
  }
  if (error <= 2 * unit(got.dtype) * largest) {
    passed++;
  } else {
    failed++;
    std::printf("FAILED %s: error %g of %g\n", what.c_str(), error, largest);
  }
}

struct Block {
  std::unique_ptr<char[]> memory;
  const PackedHeader* header() const { return reinterpret_cast<const PackedHeader*>(memory.get()); }
};

Block packed(const PackRequest& request) {
  Block block{std::unique_ptr<char[]>(new char[packed_layout(request).bytes])};
  pack(request, block.memory.get());
  return block;
}

WeightArray weights(const Array& a) { return {a.data(), a.dtype}; }

void test_pointwise_and_head(Isa isa, DType dtype, Activation activation, int64_t n, int64_t pixels, int64_t in,
                             int64_t out, bool gated, bool residual, const Parallel& parallel, const std::string& id) {
  Array x(dtype, n * pixels * in), w(dtype, out * in), b(DType::kFloat32, out), gate(DType::kFloat32, n * in);
  Array r(dtype, n * pixels * out), y(dtype, n * pixels * out), pooled(DType::kFloat32, n * out);
  x.random(), w.random(0.5f), b.random(), gate.random(), r.random();
  const Block block = packed({PackedKind::kMatrix, isa, in, out, 1, 0, weights(w), weights(b), {}, {}, {}, {}});
  std::vector<double> wanted(n * pixels * out), mean(n * out);
  for (int64_t m = 0; m < n * pixels; m++) {
    for (int64_t o = 0; o < out; o++) {
      double sum = b.values[o], plain = b.values[o];
      for (int64_t k = 0; k < in; k++) {
        const double product = x.values[m * in + k] * w.values[o * in + k];
        sum += product * (gated ? gate.values[m / pixels * in + k] : 1.0);
        plain += product;
      }
      wanted[m * out + o] = activate(activation, sum) + (residual ? r.values[m * out + o] : 0.0);
      mean[m / pixels * out + o] += activate(activation, plain) / pixels;
    }
  }
  kernels_of(isa).pointwise_conv({n, pixels, dtype, x.data(), block.header(), gated ? gate.floats() : nullptr,
                                  residual ? r.data() : nullptr, y.data(), activation},
                                 parallel);
  expect("pointwise_conv " + id, wanted, y);
  kernels_of(isa).head_pool({n, pixels, dtype, x.data(), block.header(), pooled.floats(), activation}, parallel);
  expect("head_pool " + id, mean, pooled);
}

void test_depthwise(Isa isa, DType dtype, Activation activation, const ConvGeometry& g, const Parallel& parallel,
                    const std::string& id) {
  const int64_t oh = g.out_h(), ow = g.out_w(), taps = g.kernel * g.kernel;
  Array x(dtype, g.n * g.h * g.w * g.c), w(dtype, g.c * taps), b(DType::kFloat32, g.c), y(dtype, g.n * oh * ow * g.c);
  Array sums(DType::kFloat32, g.n * g.pool_tiles() * g.c), total(DType::kFloat32, g.n * g.c);
  x.random(), w.random(0.5f), b.random();
  const Block block =
      packed({PackedKind::kDepthwise, isa, g.c, g.c, g.kernel, 0, weights(w), weights(b), {}, {}, {}, {}});
  std::vector<double> wanted(g.n * oh * ow * g.c), wanted_total(g.n * g.c);
  for (int64_t i = 0; i < g.n * oh * ow * g.c; i++) {
    const int64_t c = i % g.c, ox = i / g.c % ow, oy = i / g.c / ow % oh, n = i / g.c / ow / oh;
    double sum = b.values[c];
    for (int64_t tap = 0; tap < taps; tap++) {
      const int64_t iy = oy * g.stride - g.top + tap / g.kernel, ix = ox * g.stride - g.left + tap % g.kernel;
      if (iy < 0 || iy >= g.h || ix < 0 || ix >= g.w) continue;
      sum += x.values[((n * g.h + iy) * g.w + ix) * g.c + c] * w.values[c * taps + tap];
    }
    wanted[i] = activate(activation, sum);
    wanted_total[n * g.c + c] += wanted[i];
  }
  kernels_of(isa).depthwise_conv({g, dtype, x.data(), block.header(), y.data(), sums.floats(), activation}, parallel);
  expect("depthwise_conv " + id, wanted, y);
  for (int64_t n = 0; n < g.n; n++) {
    for (int64_t c = 0; c < g.c; c++) {
      double sum = 0;
      for (int64_t t = 0; t < g.pool_tiles(); t++) sum += sums.get((n * g.pool_tiles() + t) * g.c + c);
      total.set(n * g.c + c, static_cast<float>(sum));
    }
  }
  expect("depthwise_conv sums " + id, wanted_total, total);
}

void test_expand_depthwise(Isa isa, DType dtype, Activation activation, const ConvGeometry& g, int64_t in,
                           const Parallel& parallel, const std::string& id) {
  const int64_t oh = g.out_h(), ow = g.out_w(), taps = g.kernel * g.kernel;
  Array x(dtype, g.n * g.h * g.w * in), we(dtype, g.c * in), be(DType::kFloat32, g.c), w(dtype, g.c * taps);
  Array b(DType::kFloat32, g.c), y(dtype, g.n * oh * ow * g.c), sums(DType::kFloat32, g.n * g.pool_tiles() * g.c);
  x.random(), we.random(0.5f), be.random(), w.random(0.5f), b.random();
  const Block expand = packed({PackedKind::kMatrix, isa, in, g.c, 1, 0, weights(we), weights(be), {}, {}, {}, {}});
  const Block depthwise =
      packed({PackedKind::kDepthwise, isa, g.c, g.c, g.kernel, 0, weights(w), weights(b), {}, {}, {}, {}});
  std::vector<double> expanded(g.n * g.h * g.w * g.c), wanted(g.n * oh * ow * g.c);
  for (int64_t i = 0; i < g.n * g.h * g.w * g.c; i++) {
    double sum = be.values[i % g.c];
    for (int64_t k = 0; k < in; k++) sum += x.values[i / g.c * in + k] * we.values[i % g.c * in + k];
    expanded[i] = activate(activation, sum);
  }
  for (int64_t i = 0; i < g.n * oh * ow * g.c; i++) {
    const int64_t c = i % g.c, ox = i / g.c % ow, oy = i / g.c / ow % oh, n = i / g.c / ow / oh;
    double sum = b.values[c];
    for (int64_t tap = 0; tap < taps; tap++) {
      const int64_t iy = oy * g.stride - g.top + tap / g.kernel, ix = ox * g.stride - g.left + tap % g.kernel;
      if (iy < 0 || iy >= g.h || ix < 0 || ix >= g.w) continue;
      sum += expanded[((n * g.h + iy) * g.w + ix) * g.c + c] * w.values[c * taps + tap];
    }
    wanted[i] = activate(activation, sum);
  }
  kernels_of(isa).expand_depthwise({{g, dtype, nullptr, depthwise.header(), y.data(), sums.floats(), activation},
                                    x.data(),
                                    expand.header(),
                                    activation},
                                   parallel);
  expect("expand_depthwise " + id, wanted, y);
}

void test_conv(Isa isa, DType image, DType dtype, Activation activation, const ConvGeometry& g, int64_t out,
               bool planar, const Parallel& parallel, const std::string& id) {
  const int64_t oh = g.out_h(), ow = g.out_w(), taps = g.kernel * g.kernel;
  Array x(image, g.n * g.c * g.h * g.w), w(dtype, out * g.c * taps), b(DType::kFloat32, out),
      r(dtype, g.n * oh * ow * out);
  Array y(dtype, g.n * oh * ow * out);
  x.random(), w.random(0.3f), b.random(), r.random();
  const std::vector<float> mean(g.c, 1.5f), inverse_std(g.c, 0.75f);
  const bool normalised = image == DType::kUInt8;
  const int64_t sn = g.c * g.h * g.w, sc = planar ? g.h * g.w : 1, sh = planar ? g.w : g.w * g.c, sw = planar ? 1 : g.c;
  const Block block = packed({PackedKind::kConv, isa, g.c, out, g.kernel, 0, weights(w), weights(b), {}, {}, {}, {}});
  std::vector<double> wanted(g.n * oh * ow * out);
  for (int64_t i = 0; i < g.n * oh * ow * out; i++) {
    const int64_t o = i % out, ox = i / out % ow, oy = i / out / ow % oh, n = i / out / ow / oh;
    double sum = b.values[o];
    for (int64_t c = 0; c < g.c; c++) {
      for (int64_t tap = 0; tap < taps; tap++) {
        const int64_t iy = oy * g.stride - g.top + tap / g.kernel, ix = ox * g.stride - g.left + tap % g.kernel;
        if (iy < 0 || iy >= g.h || ix < 0 || ix >= g.w) continue;
        const double pixel = x.values[n * sn + c * sc + iy * sh + ix * sw];
        sum += (normalised ? (pixel / 64 - mean[c]) * inverse_std[c] : pixel) * w.values[(o * g.c + c) * taps + tap];
      }
    }
    wanted[i] = activate(activation, sum) + r.values[i];
  }
  kernels_of(isa).conv({g, image, dtype, x.data(), sn, sc, sh, sw, 1.0f / 64, normalised ? mean.data() : nullptr,
                        inverse_std.data(), block.header(), r.data(), y.data(), activation},
                       parallel);
  expect("conv " + id, wanted, y);
}

void test_squeeze_excite(Isa isa, Gate gate, int64_t n, int64_t tiles, int64_t channels, int64_t squeeze,
                         const std::string& id) {
  Array sums(DType::kFloat32, n * tiles * channels), w1(DType::kFloat32, squeeze * channels),
      b1(DType::kFloat32, squeeze);
  Array w2(DType::kFloat32, channels * squeeze), b2(DType::kFloat32, channels), gates(DType::kFloat32, n * channels);
  sums.random(20.0f), w1.random(0.3f), b1.random(), w2.random(0.3f), b2.random();
  const int64_t count = 50;
  const Block block = packed({PackedKind::kSqueezeExcite,
                              isa,
                              channels,
                              channels,
                              1,
                              squeeze,
                              {},
                              {},
                              weights(w1),
                              weights(b1),
                              weights(w2),
                              weights(b2)});
  std::vector<double> wanted(n * channels);
  for (int64_t i = 0; i < n; i++) {
    std::vector<double> hidden(squeeze);
    for (int64_t s = 0; s < squeeze; s++) {
      double sum = b1.values[s];
      for (int64_t c = 0; c < channels; c++) {
        double mean = 0;
        for (int64_t t = 0; t < tiles; t++) mean += sums.values[(i * tiles + t) * channels + c] / count;
        sum += w1.values[s * channels + c] * mean;
      }
      hidden[s] = activate(Activation::kSilu, sum);
    }
    for (int64_t c = 0; c < channels; c++) {
      double sum = b2.values[c];
      for (int64_t s = 0; s < squeeze; s++) sum += w2.values[c * squeeze + s] * hidden[s];
      wanted[i * channels + c] =
          gate == Gate::kSigmoid ? 1 / (1 + std::exp(-sum)) : std::min(std::max(sum + 3, 0.0), 6.0) / 6;
    }
  }
  kernels_of(isa).squeeze_excite_gate(
      {n, tiles, count, sums.floats(), block.header(), gates.floats(), Activation::kSilu, gate}, kThreads);
  expect("squeeze_excite_gate " + id, wanted, gates);
}

void test_isa(Isa isa) {
  const std::string name = kIsaNames[static_cast<int>(isa)];
  const Activation activations[] = {Activation::kSilu, Activation::kIdentity, Activation::kRelu, Activation::kRelu6,
                                    Activation::kHardswish};
  int turn = 0;  // every shape meets another activation, dtype and thread count
  for (DType dtype : {DType::kFloat32, DType::kFloat16, DType::kBFloat16}) {
    const std::string kind = name + (dtype == DType::kFloat32 ? " f32" : dtype == DType::kFloat16 ? " f16" : " bf16");
    auto next = [&] { return activations[turn++ % 5]; };
    auto parallel = [&]() -> const Parallel& { return turn % 2 ? kThreads : kSerial; };
    for (int64_t in : {1, 8, 24, 27}) {
      for (int64_t out : {1, 16, 24, 49, 64, 136}) {
        const int64_t pixels = 1 + (turn * 5) % 53;
        test_pointwise_and_head(
            isa, dtype, next(), 3, pixels, in, out, turn % 2, turn % 3, parallel(),
            kind + " " + std::to_string(pixels) + "x" + std::to_string(in) + "->" + std::to_string(out));
      }
    }
    for (int64_t kernel : {1, 3, 5, 7, 9}) {
      for (int64_t stride : {1, 2, 3}) {
        for (int64_t channels : {1, 8, 27, 56}) {
          const int64_t h = 1 + (turn * 7) % 19, w = 1 + (turn * 11) % 23, p = kernel / 2;
          const ConvGeometry g{2, channels, h, w, kernel, stride, p, std::max<int64_t>(p - 1, 0), p, p + 1};
          const std::string id = kind + " k" + std::to_string(kernel) + " s" + std::to_string(stride) + " " +
                                 std::to_string(channels) + "x" + std::to_string(h) + "x" + std::to_string(w);
          if (h + g.top + g.bottom < kernel || w + g.left + g.right < kernel) continue;
          test_depthwise(isa, dtype, next(), g, parallel(), id);
          test_expand_depthwise(isa, dtype, next(), g, 1 + turn % 17, parallel(), id);
          if (channels < 27 && kernel < 7) {
            const DType image = turn % 2 ? DType::kUInt8 : dtype;
            test_conv(isa, image, dtype, next(), g, 1 + (turn * 13) % 50, turn % 3, parallel(), id);
          }
        }
      }
    }
  }
  for (int64_t channels : {1, 24, 57}) {
    test_squeeze_excite(isa, Gate::kSigmoid, 3, 4, channels, 1, name);
    test_squeeze_excite(isa, Gate::kHardsigmoid, 2, 1, channels, 7, name);
  }
}

}  // namespace

int main() {
  for (int i = 0; i < kIsaCount; i++) {
    if (!supported(static_cast<Isa>(i))) {
      std::printf("%s: not run, this machine does not have it\n", kIsaNames[i]);
      continue;
    }
    const int before = passed;
    test_isa(static_cast<Isa>(i));
    std::printf("%s: %d checks passed\n", kIsaNames[i], passed - before);
  }
  std::printf("%d passed, %d failed\n", passed, failed);
  return failed ? 1 : 0;
}
