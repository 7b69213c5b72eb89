// How an operator is bound: one file bind_<op>.cpp with one Operator, a function that turns named arguments into the
// operator's Call and launches it. Nothing else knows the operators.
#pragma once

#include <functional>
#include <map>
#include <string>

#include "launcher.h"

namespace effnet_fast::emulation {

struct HostTensor {
  void* data;
  int64_t bytes;
  Role role;
};

// The arguments of one call by name; ones that are missing raise with their name. Each tensor is asked for once, and
// as what it is: `weights` are what no launch ever writes.
class Arguments {
 public:
  std::map<std::string, HostTensor> tensors;
  std::map<std::string, int64_t> integers;
  std::map<std::string, std::string> texts;
  Launcher* launcher = nullptr;

  template <class T>
  T* tensor(const std::string& name) {
    return static_cast<T*>(address(name, false));
  }
  template <class T>
  const T* weights(const std::string& name) {
    return static_cast<const T*>(address(name, true));
  }
  // Null when the caller gave none.
  template <class T>
  T* optional_tensor(const std::string& name) {
    return tensors.contains(name) ? tensor<T>(name) : nullptr;
  }
  template <class T>
  const T* optional_weights(const std::string& name) {
    return tensors.contains(name) ? weights<T>(name) : nullptr;
  }
  int64_t integer(const std::string& name) const { return find(integers, name); }
  const std::string& text(const std::string& name) const { return find(texts, name); }
  DType dtype(const std::string& name) const;  // "float32", "float16", "bfloat16" or "uint8"

  // Workspaces, which the library allocates: poisoned, and zeroed.
  template <class T>
  T* scratch(int64_t elements) {
    return static_cast<T*>(launcher->memory().add("scratch", Role::kScratch, nullptr, elements * sizeof(T)));
  }
  template <class T>
  T* zeros(int64_t elements) {
    return static_cast<T*>(launcher->memory().add("zeros", Role::kZeros, nullptr, elements * sizeof(T)));
  }

 private:
  void* address(const std::string& name, bool weights);
  template <class Map>
  static const typename Map::mapped_type& find(const Map& map, const std::string& name) {
    const auto at = map.find(name);
    if (at == map.end()) throw std::invalid_argument("the call has no argument '" + name + "'");
    return at->second;
  }
};

using Function = std::function<void(Arguments&, Launcher&)>;
std::map<std::string, Function>& operators();

// static const Operator kBound("depthwise_conv", [](Arguments& arguments, Launcher& launcher) { ... });
struct Operator {
  Operator(const std::string& name, Function function) { operators()[name] = std::move(function); }
};

// Runs `name`, gives outputs back, raises EmulationError on a failed check. Returns the number of blocks run.
int64_t call(const std::string& name, Arguments& arguments, uint64_t seed);

}  // namespace effnet_fast::emulation
