// Global memory: copies of the tensors of one call, far apart, with every access checked.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace effnet_fast::emulation {

enum class Role {
  kWeights,  // read only, and never written by any launch
  kInput,    // read only; the launch before the call may still be writing it
  kOutput,   // poisoned with 0xFF (NaN in every float type); every byte must be written
  kScratch,  // poisoned with 0xFF
  kZeros,    // zeroed: tickets
};

struct Buffer {
  std::string name;
  Role role;
  char* host = nullptr;  // the tensor that this is a copy of; null: a workspace
  char* begin = nullptr;
  int64_t bytes = 0;
  std::vector<uint32_t> writer;  // of each byte that kernels may write: the block, counted from 1; 0: none
};

class GlobalMemory {
 public:
  GlobalMemory();
  ~GlobalMemory();
  GlobalMemory(const GlobalMemory&) = delete;
  GlobalMemory& operator=(const GlobalMemory&) = delete;

  // An address for kernels. It has the host address's remainder modulo 64, so that launch code sees the alignment
  // that a view of a tensor has.
  void* add(const std::string& name, Role role, void* host, int64_t bytes);

  void start_launch() { launch_start_ = block_ + 1; }
  void start_block() { block_++; }

  bool is_weights(const void* address) { return find(address) && find(address)->role == Role::kWeights; }

  // Each carries out an access, and returns an empty string or what is wrong with it. A coherent read may see what
  // other blocks of the launch wrote.
  std::string check(const void* address, int64_t bytes);
  std::string read(const void* address, int64_t bytes, bool coherent, void* value);
  std::string write(void* address, int64_t bytes, const void* value);
  std::string add(void* address, int value, int* before);

  // Outputs go back to their tensors; an empty string, or which bytes nobody wrote.
  std::string finish();

 private:
  // A buffer stands in the middle of a slot of address space, so that no overrun below 2 GiB meets another one.
  static constexpr int64_t kSlotBytes = int64_t{4} << 30;
  static constexpr int kSlots = 32;

  Buffer* find(const void* address);  // the buffer of the slot, or null
  bool by_other_block(uint32_t writer) const { return writer >= launch_start_ && writer != block_; }

  char* base_;
  uint32_t block_ = 0, launch_start_ = 1;
  std::vector<Buffer> buffers_;
};

}  // namespace effnet_fast::emulation
