// squeeze_excite_gate against loops in double: every activation and both gates, from partial sums.
#include "harness.h"
#include "loops.h"

using namespace effnet_fast;

static void test_squeeze_excite_gate(Turns& turns, Gate gate, int64_t n, int64_t tiles, int64_t channels,
                                     int64_t squeeze) {
  constexpr int64_t kCount = 50;
  const Activation activation = turns.next();
  const std::string id = turns.name() + std::to_string(channels) + " by " + std::to_string(squeeze);
  Array sums(DType::kFloat32, n * tiles * channels), w1(DType::kFloat32, squeeze * channels);
  Array b1(DType::kFloat32, squeeze), w2(DType::kFloat32, channels * squeeze), b2(DType::kFloat32, channels);
  sums.random(20.0f), w1.random(0.3f), b1.random(), w2.random(0.3f), b2.random();
  const Block block = packed_squeeze_excite(turns.isa, channels, squeeze, w1, b1, w2, b2);

  auto mean = loops::pooled(sums.values, n, channels);
  for (double& value : mean) value /= kCount;
  const auto wanted = loops::squeeze_excite(mean, w1.values, b1.values, w2.values, b2.values, activation, gate);
  expect_kernel("squeeze_excite_gate " + id, wanted, DType::kFloat32, [&](Array& y, const Parallel& parallel) {
    kernels_of(turns.isa).squeeze_excite_gate(
        {n, tiles, kCount, sums.floats(), block.header(), y.floats(), activation, gate}, parallel);
  });
}

static void test(Isa isa) {
  Turns turns{isa, DType::kFloat32};
  for (Gate gate : {Gate::kSigmoid, Gate::kHardsigmoid}) {
    for (int64_t channels : {1, 7, 24, 57, 240}) {
      for (int64_t squeeze : {1, 6, 7, 20})
        test_squeeze_excite_gate(turns, gate, 4, 1 + turns.turn % 5, channels, squeeze);
    }
    test_squeeze_excite_gate(turns, gate, 0, 2, 24, 6);
  }
}

int main() { return run("squeeze_excite_gate", test); }
