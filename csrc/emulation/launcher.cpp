#include "launcher.h"

#include <numeric>

namespace effnet_fast::emulation {

static constexpr unsigned kMaxShared = 227 << 10;  // of a block on sm_90; sm_80 has 163 KiB

void Launcher::run(const Launch& launch) {
  const cuda::LaunchShape& shape = launch.shape;
  const cuda::Extent& grid = shape.grid;
  const auto require = [&](bool ok, const char* what) {
    if (!ok) throw EmulationError(launch.kernel + ": " + what);
  };
  require(shape.threads >= 32 && shape.threads <= 1024 && shape.threads % 32 == 0, "threads: 32 to 1024, whole warps");
  require(shape.shared_bytes <= kMaxShared, "more than 227 KiB of shared memory");
  require(grid.x < 1u << 31 && grid.y < 1u << 16 && grid.z < 1u << 16, "the grid is larger than a GPU takes");
  if (grid.count() == 0) return;
  std::vector<unsigned> order(static_cast<size_t>(grid.count()));
  std::iota(order.begin(), order.end(), 0u);
  for (size_t i = order.size(); i > 1; i--) std::swap(order[i - 1], order[random_.below(i)]);
  memory_.start_launch();
  for (const unsigned i : order) {
    block_.run(launch, {i % grid.x, i / grid.x % grid.y, i / grid.x / grid.y});
    blocks_++;
  }
}

// "... [with auto kKernel = effnet_fast::cuda::name<...>; Args = ...]" gives "name<...>".
std::string Launcher::kernel_name(std::string_view pretty_function) {
  std::string_view name = pretty_function.substr(pretty_function.find("kKernel = ") + 10);
  name = name.substr(0, name.find("; Args = "));
  std::string result;
  for (const std::string_view scope = "effnet_fast::cuda::"; !name.empty();) {
    if (name.starts_with(scope)) {
      name.remove_prefix(scope.size());
    } else {
      if (name[0] != '&' && name[0] != '(' && name[0] != ')') result += name[0];
      name.remove_prefix(1);
    }
  }
  return result;
}

}  // namespace effnet_fast::emulation
