// depthwise_conv and its sums against loops in double, over every kernel size, stride and uneven padding.
#include "harness.h"
#include "loops.h"

using namespace effnet_fast;

static void test_depthwise_conv(Turns& turns, const ConvGeometry& g, const std::string& shape) {
  const Activation activation = turns.next();
  const std::string id = turns.name() + shape;
  Array x(turns.dtype, g.n * g.h * g.w * g.c), weight(turns.dtype, g.c * g.kernel * g.kernel);
  Array bias(DType::kFloat32, g.c);
  x.random(), weight.random(0.5f), bias.random();
  const Block block = packed_depthwise(turns.isa, g, weight, bias);

  const auto wanted = loops::depthwise(x.values, weight.values, bias.values, g, activation);
  const auto run = [&](void* y, float* sums, const Parallel& parallel) {
    kernels_of(turns.isa).depthwise_conv({g, turns.dtype, x.data(), block.header(), y, sums, activation}, parallel);
  };
  expect_kernel("depthwise_conv " + id, wanted, turns.dtype,
                [&](Array& y, const Parallel& parallel) { run(y.data(), nullptr, parallel); });

  Array y(turns.dtype, static_cast<int64_t>(wanted.size()));
  Array sums(DType::kFloat32, g.n * g.pool_tiles() * g.c), threaded(DType::kFloat32, sums.count());
  run(y.data(), sums.floats(), kSerial);
  expect_near("depthwise_conv with sums " + id, wanted, y);
  expect_near("sums of depthwise_conv " + id, loops::pooled(wanted, g.n, g.c), over_tiles(sums, g), turns.dtype);
  run(y.data(), threaded.floats(), kThreads);
  expect_same("sums of depthwise_conv on three threads " + id, sums, threaded);
}

static void test(Isa isa) {
  for (DType dtype : kStorageTypes) {
    Turns turns{isa, dtype};
    for_each_geometry(turns, [&](const ConvGeometry& g, const std::string& id) { test_depthwise_conv(turns, g, id); });
    // Three rows and two columns of pool tiles, more than one chunk of channels.
    test_depthwise_conv(turns, {1, 104, 35, 18, 3, 1, 1, 1, 1, 1}, "104x35x18");
  }
}

int main() { return run("depthwise_conv", test); }
