// The activations and gates of the operator contract. Torch-free.
#pragma once

#include <cstdint>
#include <stdexcept>
#include <string>
#include <string_view>

namespace effnet_fast {

enum class Activation : int32_t { kIdentity, kRelu, kRelu6, kSilu, kHardswish };
enum class Gate : int32_t { kSigmoid, kHardsigmoid };

inline Activation parse_activation(std::string_view name) {
  if (name == "identity") return Activation::kIdentity;
  if (name == "relu") return Activation::kRelu;
  if (name == "relu6") return Activation::kRelu6;
  if (name == "silu") return Activation::kSilu;
  if (name == "hardswish") return Activation::kHardswish;
  throw std::invalid_argument("activation must be one of silu, relu, relu6, hardswish, identity; got '" +
                              std::string(name) + "'");
}

inline Gate parse_gate(std::string_view name) {
  if (name == "sigmoid") return Gate::kSigmoid;
  if (name == "hardsigmoid") return Gate::kHardsigmoid;
  throw std::invalid_argument("gate must be one of sigmoid, hardsigmoid; got '" + std::string(name) + "'");
}

}  // namespace effnet_fast
