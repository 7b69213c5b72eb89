// head_pool against loops in double: the mean over pixels of an activated 1x1 convolution.
#include "harness.h"
#include "loops.h"

using namespace effnet_fast;

static void test_head_pool(Turns& turns, int64_t images, int64_t pixels, int64_t in, int64_t out) {
  const Activation activation = turns.next();
  const std::string id = turns.name() + std::to_string(pixels) + "x" + std::to_string(in) + "->" + std::to_string(out);
  Array x(turns.dtype, images * pixels * in), weight(turns.dtype, out * in), bias(DType::kFloat32, out);
  x.random(), weight.random(0.5f), bias.random();
  const Block block = packed_matrix(turns.isa, in, out, weight, bias);

  auto mean = loops::pooled(loops::pointwise(x.values, weight.values, bias.values, activation), images, out);
  for (double& value : mean) value /= static_cast<double>(pixels);
  expect_kernel("head_pool " + id, mean, DType::kFloat32, [&](Array& y, const Parallel& parallel) {
    kernels_of(turns.isa).head_pool({images, pixels, turns.dtype, x.data(), block.header(), y.floats(), activation},
                                    parallel);
  });
}

static void test(Isa isa) {
  for (DType dtype : kStorageTypes) {
    Turns turns{isa, dtype};
    for (int64_t in : {1, 8, 24, 27}) {
      for (int64_t out : {1, 16, 24, 49, 64, 136}) test_head_pool(turns, 3, 1 + turns.turn * 5 % 53, in, out);
    }
    test_head_pool(turns, 0, 9, 8, 24);
    test_head_pool(turns, 1, 9, 130, 700);  // more weights than one group of panels
  }
}

int main() { return run("head_pool", test); }
