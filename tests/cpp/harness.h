// What the tests of the CPU kernels share: exact arrays, packing, threads, comparison, and the loop over instruction
// sets. Torch-free, meant for AddressSanitizer and UndefinedBehaviorSanitizer: every array has its exact size on the
// heap, so that a read or write past an end is seen.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "../../csrc/cpu/dispatch.h"
#include "../../csrc/cpu/pack.h"

namespace effnet_fast {

// An array of `count` values of a storage type, with their exact values in double beside it. It starts as NaN in every
// type that has one, so that a value which no kernel wrote is seen.
struct Array {
  DType dtype;
  std::vector<double> values;
  std::unique_ptr<char[]> memory;

  Array(DType dtype, int64_t count);
  void set(int64_t i, float value);
  float get(int64_t i) const;
  Array& random(float scale = 1.0f);  // normal; uint8 uniform
  int64_t count() const { return static_cast<int64_t>(values.size()); }
  void* data() const { return memory.get(); }
  float* floats() const { return reinterpret_cast<float*>(memory.get()); }
  WeightArray weight() const { return {memory.get(), dtype}; }
};

// A packed block, as long as its header says.
struct Block {
  explicit Block(const PackRequest& request);
  std::unique_ptr<char[]> memory;
  const PackedHeader* header() const { return reinterpret_cast<const PackedHeader*>(memory.get()); }
};
Block packed_matrix(Isa isa, int64_t in, int64_t out, const Array& weight, const Array& bias);
Block packed_squeeze_excite(Isa isa, int64_t channels, int64_t squeeze, const Array& w1, const Array& b1,
                            const Array& w2, const Array& b2);
Block packed_depthwise(Isa isa, const ConvGeometry& g, const Array& weight, const Array& bias);

// The sums of [n][pool tiles][channels] over the tiles, whose split is a kernel's own business.
Array over_tiles(const Array& sums, const ConvGeometry& g);

// Counts one check: NaN and infinities where they are wanted, and the largest error against the largest value, two
// units of got's type allowed. What is float32 but was `computed_for` 16 bits may have the error of their shorter
// exponential as well, a sixty-fourth of their unit.
void expect_near(const std::string& what, const std::vector<double>& wanted, const Array& got,
                 DType computed_for = DType::kFloat32);
// Counts one check: the same bits.
void expect_same(const std::string& what, const Array& wanted, const Array& got);

extern const Parallel kSerial;   // one thread
extern const Parallel kThreads;  // three, over contiguous ranges, as PyTorch's pool hands them out

// Runs kernel(y, parallel) on one thread, compares with `wanted`, and then on three: into memory of its own, with the
// same bits.
template <class Kernel>
void expect_kernel(const std::string& what, const std::vector<double>& wanted, DType dtype, const Kernel& kernel) {
  Array serial(dtype, static_cast<int64_t>(wanted.size())), threaded(dtype, serial.count());
  kernel(serial, kSerial);
  expect_near(what, wanted, serial);
  kernel(threaded, kThreads);
  expect_same(what + " on three threads", serial, threaded);
}

// What a test goes through: an instruction set and a storage type, with another activation at each call of next().
struct Turns {
  Isa isa;
  DType dtype;
  int turn = 0;  // calls of next() so far: sizes are derived from it
  Activation next();
  std::string name() const;  // "avx2 bf16 silu": the activation that next() gave last
};
inline constexpr DType kStorageTypes[] = {DType::kFloat32, DType::kFloat16, DType::kBFloat16};

// Convolutions that fit: kernel 1 to 9, stride 1 to 3, uneven padding, 1 to 56 channels, images down to one pixel, and
// an empty batch. Calls body(geometry, "k3 s2 27x5x12").
template <class Body>
void for_each_geometry(Turns& turns, const Body& body) {
  for (int64_t kernel : {1, 3, 5, 7, 9}) {
    for (int64_t stride : {1, 2, 3}) {
      for (int64_t channels : {1, 8, 27, 56}) {
        turns.turn++;
        const int64_t h = 1 + turns.turn * 7 % 19, w = 1 + turns.turn * 11 % 23, p = kernel / 2;
        const int64_t images = turns.turn % 16 == 0 ? 0 : 2;
        const ConvGeometry g{images, channels, h, w, kernel, stride, p, p > 0 ? p - 1 : 0, p, p + 1};
        if (h + g.top + g.bottom < kernel || w + g.left + g.right < kernel) continue;
        body(g, "k" + std::to_string(kernel) + " s" + std::to_string(stride) + " " + std::to_string(channels) + "x" +
                    std::to_string(h) + "x" + std::to_string(w));
      }
    }
  }
}

// The main() of a test: `test` for every instruction set of this machine. Prints "N passed, M failed"; 1 if any failed.
int run(const char* kernel, void (*test)(Isa isa));

}  // namespace effnet_fast
