// The shared memory of one block, with the last write and read of every byte: finds bytes that nobody wrote, copies
// that were not waited for, and accesses of two threads that no barrier orders.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace effnet_fast::emulation {

// Counts barriers. Of two accesses of different threads, the first happened before the second when a barrier of both
// was released between them, that is, when the first one's stamp is lower than that release.
struct Clock {
  uint32_t now = 0;
  uint32_t block_start = 0;
  uint32_t block_release = 0;               // the latest sync_threads()
  std::vector<uint32_t> warp_release = {};  // the latest sync_warp() of each warp

  void start_block(int warps);
  void release_block() { block_release = ++now; }
  void release_warp(int warp) { warp_release[static_cast<size_t>(warp)] = ++now; }
};

class SharedMemory {
 public:
  explicit SharedMemory(const Clock& clock) : clock_(clock) {}

  void start_block(int64_t bytes);  // 0xFF everywhere, which is NaN in every float type

  // Each returns an empty string, or what is wrong.
  std::string read(uint32_t address, int bytes, int thread, unsigned line, void* value);
  std::string write(uint32_t address, int bytes, int thread, unsigned line, const void* value);
  std::string begin_copy(uint32_t address, int bytes, int thread, unsigned line);
  void end_copy(uint32_t address, int bytes, const void* value);  // null: zeros

 private:
  struct Cell {  // of a byte
    uint32_t write_stamp, read_stamp;
    uint16_t writer, reader, write_line, read_line;
  };
  static constexpr uint16_t kInFlight = 0x8000;      // flag of a writer: by a cp.async that was not waited for
  static constexpr uint16_t kWarp = 0x8000;          // flag of a reader: several threads of this warp
  static constexpr uint16_t kSeveralWarps = 0xffff;  // reader

  bool ordered(int warp_of_other, uint32_t stamp, int thread) const;
  bool in_range(uint32_t address, int bytes) const;
  // Whether a thread may see, and may replace, what the last write left; whether it may replace what was read.
  bool write_is_over(const Cell& cell, int thread) const;
  bool read_is_over(const Cell& cell, int thread) const;
  void record_read(Cell& cell, int thread, unsigned line) const;
  std::string begin_write(uint32_t address, int bytes, int thread, unsigned line, uint16_t flag);
  std::string explain_range(uint32_t address, int bytes) const;
  static std::string explain_write(const Cell& cell);
  static std::string explain_read(const Cell& cell);

  const Clock& clock_;
  std::vector<char> data_;
  std::vector<Cell> cells_;
};

}  // namespace effnet_fast::emulation
