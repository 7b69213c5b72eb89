// What the lanes of a warp compute together. Operands hold one lane's inputs and results; memory was read before.
#pragma once

#include <bit>
#include <cstdint>
#include <cstring>

#include "../common/dtype.h"

namespace effnet_fast::emulation {

struct ShuffleOperand {
  uint64_t value, result;
  int source_lane;
};
inline void shuffle(void** operands) {
  for (int l = 0; l < 32; l++) {
    auto* o = static_cast<ShuffleOperand*>(operands[l]);
    o->result = static_cast<ShuffleOperand*>(operands[o->source_lane & 31])->value;
  }
}

struct BallotOperand {
  bool predicate;
  uint32_t result;
};
inline void ballot(void** operands) {
  uint32_t bits = 0;
  for (int l = 0; l < 32; l++) bits |= static_cast<uint32_t>(static_cast<BallotOperand*>(operands[l])->predicate) << l;
  for (int l = 0; l < 32; l++) static_cast<BallotOperand*>(operands[l])->result = bits;
}

struct LdmatrixOperand {
  uint16_t row[8];
  uint32_t* registers;
};
template <int kMatrices, bool kTranspose>
void ldmatrix(void** operands) {
  const auto row = [&](int matrix, int r) { return static_cast<LdmatrixOperand*>(operands[matrix * 8 + r])->row; };
  for (int l = 0; l < 32; l++) {
    uint32_t* registers = static_cast<LdmatrixOperand*>(operands[l])->registers;
    const int major = l / 4, minor = 2 * (l % 4);
    for (int m = 0; m < kMatrices; m++) {
      const uint32_t low = kTranspose ? row(m, minor)[major] : row(m, major)[minor];
      const uint32_t high = kTranspose ? row(m, minor + 1)[major] : row(m, major)[minor + 1];
      registers[m] = low | high << 16;
    }
  }
}

// Whether the GPU has stmatrix: sm_90 has, sm_80 has not. Set before a launch.
inline bool g_stmatrix = true;

struct StmatrixOperand {
  uint16_t row[8];  // that this lane stores
  const uint32_t* registers;
};
inline void stmatrix(void** operands) {
  for (int l = 0; l < 32; l++) {
    for (int column = 0; column < 8; column++) {
      const auto* holder = static_cast<StmatrixOperand*>(operands[l % 8 * 4 + column / 2]);
      static_cast<StmatrixOperand*>(operands[l])->row[column] =
          static_cast<uint16_t>(holder->registers[l / 8] >> 16 * (column % 2));
    }
  }
}

struct MmaOperand {
  float* d;
  const uint32_t *a, *b;
  const float* c;
};
// Value is float16 or bfloat16. Products are added one by one in float32; the tensor cores' order and rounding of
// intermediate sums are their own.
template <class Value, int kDepth>
void mma(void** operands) {
  float a[16][kDepth], b[kDepth][8], d[16][8];
  const auto low = [](uint32_t word) { return to_float(Value{static_cast<uint16_t>(word)}); };
  const auto high = [](uint32_t word) { return to_float(Value{static_cast<uint16_t>(word >> 16)}); };
  for (int l = 0; l < 32; l++) {
    const auto* o = static_cast<MmaOperand*>(operands[l]);
    const int group = l / 4, pair = 2 * (l % 4);
    for (int i = 0; i < kDepth / 4; i++) {
      a[group + i % 2 * 8][pair + i / 2 * 8] = low(o->a[i]);
      a[group + i % 2 * 8][pair + i / 2 * 8 + 1] = high(o->a[i]);
    }
    for (int i = 0; i < 4; i++) d[group + i / 2 * 8][pair + i % 2] = o->c[i];
    for (int i = 0; i < kDepth / 8; i++) {
      b[pair + i * 8][group] = low(o->b[i]);
      b[pair + i * 8 + 1][group] = high(o->b[i]);
    }
  }
  for (int row = 0; row < 16; row++) {
    for (int k = 0; k < kDepth; k++) {
      for (int column = 0; column < 8; column++) d[row][column] += a[row][k] * b[k][column];
    }
  }
  for (int l = 0; l < 32; l++) {
    const auto* o = static_cast<MmaOperand*>(operands[l]);
    for (int i = 0; i < 4; i++) o->d[i] = d[l / 4 + i / 2 * 8][2 * (l % 4) + i % 2];
  }
}

}  // namespace effnet_fast::emulation
