#include "operators.h"

namespace effnet_fast::emulation {

std::map<std::string, Function>& operators() {
  static std::map<std::string, Function> table;
  return table;
}

DType Arguments::dtype(const std::string& name) const {
  const std::string& value = text(name);
  if (value == "float32") return DType::kFloat32;
  if (value == "float16") return DType::kFloat16;
  if (value == "bfloat16") return DType::kBFloat16;
  if (value == "uint8") return DType::kUInt8;
  throw std::invalid_argument(name + ": no storage type is called '" + value + "'");
}

void* Arguments::address(const std::string& name, bool weights) {
  const HostTensor& tensor = find(tensors, name);
  return launcher->memory().add(name, weights ? Role::kWeights : tensor.role, tensor.data, tensor.bytes);
}

int64_t call(const std::string& name, Arguments& arguments, uint64_t seed) {
  const auto at = operators().find(name);
  if (at == operators().end()) throw std::invalid_argument("no operator is bound as '" + name + "'");
  Launcher launcher(seed);
  arguments.launcher = &launcher;
  at->second(arguments, launcher);
  const std::string problem = launcher.memory().finish();
  if (!problem.empty()) throw EmulationError(name + ": " + problem);
  return launcher.blocks();
}

}  // namespace effnet_fast::emulation
