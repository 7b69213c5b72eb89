// Growing, 64-byte aligned blocks of scratch memory, two per thread. Torch-free.
#pragma once

#include <cstddef>
#include <cstdint>

namespace effnet_fast {

// What a task uses for itself, and what a kernel keeps over several tasks, which other threads may read and write.
enum ScratchSlot { kTaskScratch, kWorkspace };

// At least `bytes` bytes, uninitialised, valid until the thread asks for the same slot again. Throws std::bad_alloc.
void* thread_scratch(size_t bytes, ScratchSlot slot = kTaskScratch);

// The thread's scratch as a row pointer for each kernel row, and `count` floats on a 64-byte boundary behind them.
struct TapScratch {
  TapScratch(int64_t kernel, int64_t count) {
    const size_t pointers = (kernel * sizeof(float*) + 63) / 64 * 64;
    char* block = static_cast<char*>(thread_scratch(pointers + count * sizeof(float)));
    taps = reinterpret_cast<const float**>(block);
    floats = reinterpret_cast<float*>(block + pointers);
  }
  const float** taps;
  float* floats;
};

}  // namespace effnet_fast
