// fused_mbconv against loops in double: tiles of several rows and parts of a row, odd and even channels, residuals.
#include <limits>

#include "harness.h"
#include "loops.h"

using namespace effnet_fast;

static void test_fused_mbconv(Turns& turns, const ConvGeometry& g, int64_t expanded, int64_t out,
                              const std::string& shape, bool with_nan = false) {
  const Activation activation = turns.next();
  const bool residual = g.c == out && g.out_h() == g.h && g.out_w() == g.w;
  const std::string id = turns.name() + std::to_string(g.n) + " of " + shape + "->" + std::to_string(expanded) + "->" +
                         std::to_string(out) + (residual ? " residual" : "");
  Array x(turns.dtype, g.n * g.h * g.w * g.c), w_expand(turns.dtype, expanded * g.c * g.kernel * g.kernel);
  Array b_expand(DType::kFloat32, expanded), w_project(turns.dtype, out * expanded), b_project(DType::kFloat32, out);
  x.random(), w_expand.random(0.3f), b_expand.random(), w_project.random(0.3f), b_project.random();
  if (with_nan) x.set(x.count() / g.n + 1, std::numeric_limits<float>::quiet_NaN());  // in the second image

  auto wanted = loops::pointwise(loops::dense(x.values, w_expand.values, b_expand.values, g, activation),
                                 w_project.values, b_project.values, Activation::kIdentity);
  for (size_t i = 0; residual && i < wanted.size(); i++) wanted[i] += x.values[i];

  const Block expand(
      {PackedKind::kConv, turns.isa, g.c, expanded, g.kernel, 0, w_expand.weight(), b_expand.weight(), {}, {}, {}, {}});
  const Block project = packed_matrix(turns.isa, expanded, out, w_project, b_project);
  expect_kernel("fused_mbconv " + id, wanted, turns.dtype, [&](Array& y, const Parallel& parallel) {
    kernels_of(turns.isa).fused_mbconv(
        {g, turns.dtype, x.data(), expand.header(), project.header(), y.data(), activation, residual}, parallel);
  });
}

static void test(Isa isa) {
  for (DType dtype : kStorageTypes) {
    Turns turns{isa, dtype};
    for_each_geometry(turns, [&](const ConvGeometry& g, const std::string& id) {
      if (g.c >= 27 || g.kernel >= 7) return;
      test_fused_mbconv(turns, g, 1 + turns.turn * 13 % 50, 1 + turns.turn * 5 % 41, id);
    });
    // Residuals; one, two and three tiles a row, of one row each, and up to thirteen rows a tile; sums in parts.
    test_fused_mbconv(turns, {3, 4, 21, 17, 3, 1, 1, 1, 1, 1}, 35, 4, "k3 4x21x17");
    test_fused_mbconv(turns, {2, 2, 5, 300, 3, 1, 1, 1, 1, 1}, 10, 2, "k3 2x5x300");
    test_fused_mbconv(turns, {2, 3, 7, 263, 5, 2, 2, 1, 1, 2}, 12, 7, "k5 s2 3x7x263");
    test_fused_mbconv(turns, {1, 6, 27, 5, 3, 1, 1, 1, 1, 1}, 400, 6, "k3 6x27x5");
    test_fused_mbconv(turns, {2, 2, 70, 1, 1, 3, 0, 0, 0, 0}, 9, 5, "k1 s3 2x70x1");
    // Pairs of bfloat16 in one product and not in the other.
    test_fused_mbconv(turns, {1, 4, 6, 9, 3, 1, 1, 1, 1, 1}, 21, 5, "k3 4x6x9");
    test_fused_mbconv(turns, {1, 5, 6, 9, 3, 1, 1, 1, 1, 1}, 22, 5, "k3 5x6x9");
    // A NaN, for every activation: its image is NaN under it, and no other.
    for (int i = 0; i < 5; i++) {
      test_fused_mbconv(turns, {3, 4, 6, 8, 3, 1, 1, 1, 1, 1}, 20, 4, "NaN k3 4x6x8", true);
    }
  }
}

int main() { return run("fused_mbconv", test); }
