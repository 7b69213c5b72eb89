// pointwise_conv against loops in double: odd channel counts and heights, with and without gate and residual.
#include "harness.h"
#include "loops.h"

using namespace effnet_fast;

static void test_pointwise_conv(Turns& turns, int64_t images, int64_t pixels, int64_t in, int64_t out) {
  const Activation activation = turns.next();
  const bool gated = turns.turn % 2, has_residual = turns.turn % 3;
  const std::string id = turns.name() + std::to_string(pixels) + "x" + std::to_string(in) + "->" + std::to_string(out);
  Array x(turns.dtype, images * pixels * in), weight(turns.dtype, out * in), bias(DType::kFloat32, out);
  Array gate(DType::kFloat32, images * in), residual(turns.dtype, images * pixels * out);
  x.random(), weight.random(0.5f), bias.random(), gate.random(), residual.random();
  const Block block = packed_matrix(turns.isa, in, out, weight, bias);

  auto wanted = loops::pointwise(x.values, weight.values, bias.values, activation,
                                 gated ? gate.values : loops::Doubles{}, pixels);
  for (int64_t i = 0; has_residual && i < residual.count(); i++) wanted[i] += residual.values[i];
  expect_kernel("pointwise_conv " + id, wanted, turns.dtype, [&](Array& y, const Parallel& parallel) {
    kernels_of(turns.isa).pointwise_conv(
        {images, pixels, turns.dtype, x.data(), block.header(), gated ? gate.floats() : nullptr,
         has_residual ? residual.data() : nullptr, y.data(), activation},
        parallel);
  });
}

// Weights that bfloat16 holds are stored as such: half the bytes, and every bit of the result as without.
static void test_halved_weights(Turns& turns, int64_t pixels, int64_t in, int64_t out) {
  const Activation activation = turns.next();
  Array x(DType::kFloat32, pixels * in), gate(DType::kFloat32, in), rounded(DType::kBFloat16, out * in);
  Array weight(DType::kFloat32, out * in), bias(DType::kFloat32, out);
  x.random(), gate.random(), rounded.random(0.5f), bias.random();
  for (int64_t i = 0; i < weight.count(); i++) weight.set(i, static_cast<float>(rounded.values[i]));
  PackRequest request{PackedKind::kMatrix, turns.isa, in, out, 1, 0, weight.weight(), bias.weight(), {}, {}, {}, {}};
  Array results[] = {Array(DType::kFloat32, pixels * out), Array(DType::kFloat32, pixels * out)};
  for (const bool halve : {false, true}) {
    request.may_halve = halve;
    const Block block(request);
    const PointwiseConvArgs args{1,
                                 pixels,
                                 DType::kFloat32,
                                 x.data(),
                                 block.header(),
                                 turns.turn % 2 ? gate.floats() : nullptr,
                                 nullptr,
                                 results[halve].data(),
                                 activation};
    kernels_of(turns.isa).pointwise_conv(args, kSerial);
  }
  expect_same("pointwise_conv of halved weights " + turns.name() + std::to_string(pixels) + "x" + std::to_string(in) +
                  "->" + std::to_string(out),
              results[0], results[1]);
}

static void test(Isa isa) {
  for (DType dtype : kStorageTypes) {
    Turns turns{isa, dtype};
    for (int64_t in : {1, 8, 24, 27}) {
      for (int64_t out : {1, 16, 24, 49, 64, 136}) test_pointwise_conv(turns, 3, 1 + turns.turn * 5 % 53, in, out);
    }
    test_pointwise_conv(turns, 0, 9, 8, 24);
    test_pointwise_conv(turns, 1, 9, 130, 700);  // more weights than one group of panels
  }
  Turns turns{isa, DType::kFloat32};
  for (int64_t in : {2, 27, 64, 400}) {
    for (int64_t out : {1, 24, 136}) test_halved_weights(turns, 1 + turns.turn * 5 % 19, in, out);
  }
}

int main() { return run("pointwise_conv", test); }
