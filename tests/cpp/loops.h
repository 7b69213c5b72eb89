// The operators as plain loops in double: what the kernels are compared with.
#pragma once

#include <algorithm>
#include <cmath>
#include <vector>

#include "../../csrc/common/activation.h"
#include "../../csrc/common/geometry.h"

namespace effnet_fast::loops {

using Doubles = std::vector<double>;

inline double activate(Activation activation, double x) {
  switch (activation) {
    case Activation::kIdentity: return x;
    case Activation::kRelu: return x < 0 ? 0 : x;  // NaN stays
    case Activation::kRelu6: return std::min(std::max(x, 0.0), 6.0);
    case Activation::kSilu: return x / (1 + std::exp(-x));
    case Activation::kHardswish: return x * std::min(std::max(x + 3, 0.0), 6.0) / 6;
  }
  return 0;
}

inline double open(Gate gate, double x) {
  return gate == Gate::kSigmoid ? 1 / (1 + std::exp(-x)) : std::min(std::max(x + 3, 0.0), 6.0) / 6;
}

// activation((x * gate) @ weight + bias): x [rows][in], weight [out][in], gate [rows / pixels][in] or empty.
inline Doubles pointwise(const Doubles& x, const Doubles& weight, const Doubles& bias, Activation activation,
                         const Doubles& gate = {}, int64_t pixels = 1) {
  const int64_t out = static_cast<int64_t>(bias.size()), in = static_cast<int64_t>(weight.size()) / out;
  const int64_t rows = static_cast<int64_t>(x.size()) / in;
  Doubles y(rows * out);
  for (int64_t row = 0; row < rows; row++) {
    for (int64_t o = 0; o < out; o++) {
      double sum = bias[o];
      for (int64_t k = 0; k < in; k++) {
        sum += x[row * in + k] * (gate.empty() ? 1.0 : gate[row / pixels * in + k]) * weight[o * in + k];
      }
      y[row * out + o] = activate(activation, sum);
    }
  }
  return y;
}

// Calls body(tap, index of its pixel) for the taps of an output pixel that lie inside image `n`.
template <class Body>
void for_each_tap(const ConvGeometry& g, int64_t n, int64_t oy, int64_t ox, const Body& body) {
  for (int64_t tap = 0; tap < g.kernel * g.kernel; tap++) {
    const int64_t iy = oy * g.stride - g.top + tap / g.kernel, ix = ox * g.stride - g.left + tap % g.kernel;
    if (iy >= 0 && iy < g.h && ix >= 0 && ix < g.w) body(tap, (n * g.h + iy) * g.w + ix);
  }
}

// activation(depthwise convolution + bias): x [n][h][w][c], weight [c][k][k].
inline Doubles depthwise(const Doubles& x, const Doubles& weight, const Doubles& bias, const ConvGeometry& g,
                         Activation activation) {
  const int64_t oh = g.out_h(), ow = g.out_w(), taps = g.kernel * g.kernel;
  Doubles y(g.n * oh * ow * g.c);
  for (int64_t pixel = 0; pixel < g.n * oh * ow; pixel++) {
    for (int64_t c = 0; c < g.c; c++) {
      double sum = bias[c];
      for_each_tap(g, pixel / ow / oh, pixel / ow % oh, pixel % ow,
                   [&](int64_t tap, int64_t at) { sum += x[at * g.c + c] * weight[c * taps + tap]; });
      y[pixel * g.c + c] = activate(activation, sum);
    }
  }
  return y;
}

// activation(convolution over all channels + bias): x [n][h][w][c], weight [out][c][k][k].
inline Doubles dense(const Doubles& x, const Doubles& weight, const Doubles& bias, const ConvGeometry& g,
                     Activation activation) {
  const int64_t oh = g.out_h(), ow = g.out_w(), taps = g.kernel * g.kernel, out = static_cast<int64_t>(bias.size());
  Doubles y(g.n * oh * ow * out);
  for (int64_t i = 0; i < static_cast<int64_t>(y.size()); i++) {
    const int64_t o = i % out, pixel = i / out;
    double sum = bias[o];
    for_each_tap(g, pixel / ow / oh, pixel / ow % oh, pixel % ow, [&](int64_t tap, int64_t at) {
      for (int64_t c = 0; c < g.c; c++) sum += x[at * g.c + c] * weight[(o * g.c + c) * taps + tap];
    });
    y[i] = activate(activation, sum);
  }
  return y;
}

// Sums over the pixels of each image: [n][pixels][channels] to [n][channels].
inline Doubles pooled(const Doubles& x, int64_t images, int64_t channels) {
  Doubles sums(images * channels);
  const int64_t of_an_image = images ? static_cast<int64_t>(x.size()) / images : 0;
  for (int64_t i = 0; i < static_cast<int64_t>(x.size()); i++) sums[i / of_an_image * channels + i % channels] += x[i];
  return sums;
}

// gate(w2 @ activation(w1 @ mean + b1) + b2): mean [n][channels], w1 [squeeze][channels], w2 [channels][squeeze].
inline Doubles squeeze_excite(const Doubles& mean, const Doubles& w1, const Doubles& b1, const Doubles& w2,
                              const Doubles& b2, Activation activation, Gate gate) {
  Doubles gates = pointwise(pointwise(mean, w1, b1, activation), w2, b2, Activation::kIdentity);
  for (double& value : gates) value = open(gate, value);
  return gates;
}

}  // namespace effnet_fast::loops
