// mbconv against loops in double: a whole block, with and without expansion, squeeze-excite and residual, images one
// by one, in groups and by thread, gates on the weights and on the image.
#include <limits>

#include "harness.h"
#include "loops.h"

using namespace effnet_fast;

struct Shape {
  ConvGeometry g;  // of the depthwise convolution
  int64_t in, out;
  bool expand;
  int64_t squeeze;  // 0: none
  bool residual() const { return in == out && g.out_h() == g.h && g.out_w() == g.w; }
};

static void test_mbconv(Turns& turns, const Shape& s, const std::string& shape, bool with_nan = false) {
  const ConvGeometry& g = s.g;
  const Activation activation = turns.next();
  const Gate gate = turns.turn % 2 ? Gate::kSigmoid : Gate::kHardsigmoid;
  const std::string id = turns.name() + std::to_string(g.n) + " of " + std::to_string(s.in) + "->" + shape + "->" +
                         std::to_string(s.out) + (s.expand ? " expanded" : "") + (s.squeeze ? " gated" : "") +
                         (s.residual() ? " residual" : "");
  Array x(turns.dtype, g.n * g.h * g.w * s.in), w_expand(turns.dtype, g.c * s.in), b_expand(DType::kFloat32, g.c);
  Array w_dw(turns.dtype, g.c * g.kernel * g.kernel), b_dw(DType::kFloat32, g.c);
  Array w1(DType::kFloat32, s.squeeze * g.c), b1(DType::kFloat32, s.squeeze);
  Array w2(DType::kFloat32, s.squeeze * g.c), b2(DType::kFloat32, g.c);
  Array w_project(turns.dtype, s.out * g.c), b_project(DType::kFloat32, s.out);
  x.random(), w_expand.random(0.5f), b_expand.random(), w_dw.random(0.5f), b_dw.random(), w1.random(0.3f);
  b1.random(), w2.random(0.3f), b2.random(), w_project.random(0.3f), b_project.random();
  if (with_nan) x.set(x.count() / g.n + 1, std::numeric_limits<float>::quiet_NaN());  // in the second image

  loops::Doubles map = x.values;
  if (s.expand) map = loops::pointwise(map, w_expand.values, b_expand.values, activation);
  map = loops::depthwise(map, w_dw.values, b_dw.values, g, activation);
  loops::Doubles gates;
  if (s.squeeze) {
    auto mean = loops::pooled(map, g.n, g.c);
    for (double& value : mean) value /= static_cast<double>(g.out_h() * g.out_w());
    gates = loops::squeeze_excite(mean, w1.values, b1.values, w2.values, b2.values, activation, gate);
  }
  auto wanted =
      loops::pointwise(map, w_project.values, b_project.values, Activation::kIdentity, gates, g.out_h() * g.out_w());
  for (size_t i = 0; s.residual() && i < wanted.size(); i++) wanted[i] += x.values[i];

  const Block expand = packed_matrix(turns.isa, s.in, g.c, w_expand, b_expand);
  const Block depthwise = packed_depthwise(turns.isa, g, w_dw, b_dw);
  const Block squeeze_excite = packed_squeeze_excite(turns.isa, g.c, s.squeeze, w1, b1, w2, b2);
  const Block project = packed_matrix(turns.isa, g.c, s.out, w_project, b_project);
  expect_kernel("mbconv " + id, wanted, turns.dtype, [&](Array& y, const Parallel& parallel) {
    kernels_of(turns.isa).mbconv({g, s.in, turns.dtype, x.data(), s.expand ? expand.header() : nullptr,
                                  depthwise.header(), s.squeeze ? squeeze_excite.header() : nullptr, project.header(),
                                  y.data(), activation, activation, gate, s.residual()},
                                 parallel);
  });
}

static void test(Isa isa) {
  for (DType dtype : kStorageTypes) {
    Turns turns{isa, dtype};
    for_each_geometry(turns, [&](ConvGeometry g, const std::string& id) {
      g.n = turns.turn % 6;  // none, a group with a rest, as many for every thread, some left over
      const bool expand = turns.turn % 3;
      const int64_t in = expand ? 1 + turns.turn % 17 : g.c;
      test_mbconv(turns, {g, in, 1 + turns.turn * 5 % 41, expand, turns.turn % 4 ? 1 + turns.turn % 7 : 0}, id);
    });
    // Residuals; several chunks of channels; a small map with several groups, and one with more pixels than weights.
    test_mbconv(turns, {{13, 104, 4, 5, 3, 1, 1, 1, 1, 1}, 24, 24, true, 6}, "104x4x5");
    test_mbconv(turns, {{13, 120, 7, 7, 5, 1, 2, 2, 2, 2}, 56, 56, true, 10}, "120x7x7");
    test_mbconv(turns, {{4, 64, 18, 17, 5, 1, 2, 2, 2, 2}, 24, 24, true, 6}, "64x18x17");
    test_mbconv(turns, {{1, 97, 35, 9, 3, 1, 1, 1, 1, 1}, 27, 27, true, 0}, "97x35x9");
    // A NaN, for every activation: its image is NaN where the convolutions reach, or all of it by its gates.
    for (int64_t squeeze : {0, 0, 0, 0, 0, 6, 6, 6, 6, 6}) {
      test_mbconv(turns, {{7, 40, 9, 8, 3, 1, 1, 1, 1, 1}, 20, 20, true, squeeze}, "NaN 40x9x8", true);
    }
    test_mbconv(turns, {{2, 32, 20, 20, 3, 1, 1, 1, 1, 1}, 32, 32, false, 8}, "32x20x20");
  }
}

int main() { return run("mbconv", test); }
