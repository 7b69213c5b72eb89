// conv (dense_conv and stem_conv) against loops in double: float and uint8 images, NCHW and NHWC strides.
#include "harness.h"
#include "loops.h"

using namespace effnet_fast;

static void test_conv(Turns& turns, DType image, const ConvGeometry& g, int64_t out, bool planar,
                      const std::string& shape) {
  const Activation activation = turns.next();
  const std::string id = turns.name() + shape + (planar ? " planar" : "") + (image == DType::kUInt8 ? " uint8" : "");
  const int64_t oh = g.out_h(), ow = g.out_w(), taps = g.kernel * g.kernel;
  const bool normalised = image == DType::kUInt8, has_residual = turns.turn % 2;
  const int64_t sn = g.c * g.h * g.w, sc = planar ? g.h * g.w : 1, sh = planar ? g.w : g.w * g.c, sw = planar ? 1 : g.c;
  Array x(image, g.n * sn), weight(turns.dtype, out * g.c * taps), bias(DType::kFloat32, out);
  Array residual(turns.dtype, g.n * oh * ow * out);
  x.random(), weight.random(0.3f), bias.random(), residual.random();
  const std::vector<float> mean(g.c, 1.5f), inverse_std(g.c, 0.75f);
  const Block block(
      {PackedKind::kConv, turns.isa, g.c, out, g.kernel, 0, weight.weight(), bias.weight(), {}, {}, {}, {}});

  std::vector<double> wanted(residual.count());
  for (int64_t i = 0; i < residual.count(); i++) {
    const int64_t o = i % out, ox = i / out % ow, oy = i / out / ow % oh, n = i / out / ow / oh;
    double sum = bias.values[o];
    loops::for_each_tap(g, n, oy, ox, [&](int64_t tap, int64_t at) {
      for (int64_t c = 0; c < g.c; c++) {
        const double pixel = x.values[n * sn + c * sc + at / g.w % g.h * sh + at % g.w * sw];
        const double value = normalised ? (pixel / 64 - mean[c]) * inverse_std[c] : pixel;
        sum += value * weight.values[(o * g.c + c) * taps + tap];
      }
    });
    wanted[i] = loops::activate(activation, sum) + (has_residual ? residual.values[i] : 0.0);
  }
  expect_kernel("conv " + id, wanted, turns.dtype, [&](Array& y, const Parallel& parallel) {
    kernels_of(turns.isa).conv(
        {g, image, turns.dtype, x.data(), sn, sc, sh, sw, 1.0f / 64, normalised ? mean.data() : nullptr,
         inverse_std.data(), block.header(), has_residual ? residual.data() : nullptr, y.data(), activation},
        parallel);
  });
}

static void test(Isa isa) {
  for (DType dtype : kStorageTypes) {
    Turns turns{isa, dtype};
    for_each_geometry(turns, [&](const ConvGeometry& g, const std::string& id) {
      if (g.c >= 27 || g.kernel >= 7) return;
      const DType image = turns.turn % 2 ? DType::kUInt8 : dtype;
      test_conv(turns, image, g, 1 + turns.turn * 13 % 50, turns.turn % 3, id);
    });
  }
}

int main() { return run("conv", test); }
