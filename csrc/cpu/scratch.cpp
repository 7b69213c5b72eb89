#include "scratch.h"

#include <new>

namespace effnet_fast {
namespace {

constexpr std::align_val_t kAlignment{64};

struct Block {
  void* data = nullptr;
  size_t bytes = 0;
  ~Block() { ::operator delete(data, kAlignment); }
};

}  // namespace

void* thread_scratch(size_t bytes, ScratchSlot slot) {
  thread_local Block blocks[2];
  Block& block = blocks[slot];
  if (bytes > block.bytes) {
    ::operator delete(block.data, kAlignment);
    block.data = nullptr;
    block.bytes = 0;
    block.data = ::operator new(bytes, kAlignment);
    block.bytes = bytes;
  }
  return block.data;
}

}  // namespace effnet_fast
