// expand_depthwise against loops in double: both activations, every kernel size, stride and uneven padding.
#include "harness.h"
#include "loops.h"

using namespace effnet_fast;

static void test_expand_depthwise(Turns& turns, int64_t in, const ConvGeometry& g, const std::string& shape) {
  const Activation expand_activation = turns.next(), activation = turns.next();
  const std::string id = turns.name() + std::to_string(in) + "->" + shape;
  Array x(turns.dtype, g.n * g.h * g.w * in), expand_weight(turns.dtype, g.c * in), expand_bias(DType::kFloat32, g.c);
  Array weight(turns.dtype, g.c * g.kernel * g.kernel), bias(DType::kFloat32, g.c);
  x.random(), expand_weight.random(0.5f), expand_bias.random(), weight.random(0.5f), bias.random();
  const Block expand = packed_matrix(turns.isa, in, g.c, expand_weight, expand_bias);
  const Block depthwise = packed_depthwise(turns.isa, g, weight, bias);

  const auto expanded = loops::pointwise(x.values, expand_weight.values, expand_bias.values, expand_activation);
  const auto wanted = loops::depthwise(expanded, weight.values, bias.values, g, activation);
  Array sums(DType::kFloat32, g.n * g.pool_tiles() * g.c);
  expect_kernel("expand_depthwise " + id, wanted, turns.dtype, [&](Array& y, const Parallel& parallel) {
    kernels_of(turns.isa).expand_depthwise(
        {{g, turns.dtype, nullptr, depthwise.header(), y.data(), sums.floats(), activation},
         x.data(),
         expand.header(),
         expand_activation},
        parallel);
  });
  expect_near("sums of expand_depthwise " + id, loops::pooled(wanted, g.n, g.c), over_tiles(sums, g), turns.dtype);
}

static void test(Isa isa) {
  for (DType dtype : kStorageTypes) {
    Turns turns{isa, dtype};
    for_each_geometry(turns, [&](const ConvGeometry& g, const std::string& id) {
      test_expand_depthwise(turns, 1 + turns.turn % 17, g, id);
    });
    test_expand_depthwise(turns, 24, {1, 104, 35, 18, 3, 1, 1, 1, 1, 1}, "104x35x18");
  }
}

int main() { return run("expand_depthwise", test); }
