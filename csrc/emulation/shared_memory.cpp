#include "shared_memory.h"

#include <algorithm>
#include <cstring>

namespace effnet_fast::emulation {

void Clock::start_block(int warps) {
  block_start = block_release = ++now;
  warp_release.assign(static_cast<size_t>(warps), now);
}

void SharedMemory::start_block(int64_t bytes) {
  data_.assign(static_cast<size_t>(bytes), static_cast<char>(0xFF));
  // Cells of an earlier block need no reset: their stamps are below block_start.
  if (cells_.size() < data_.size()) cells_.resize(data_.size());
}

bool SharedMemory::ordered(int warp_of_other, uint32_t stamp, int thread) const {
  if (stamp < clock_.block_release) return true;
  return warp_of_other == thread / 32 && stamp < clock_.warp_release[static_cast<size_t>(warp_of_other)];
}

bool SharedMemory::in_range(uint32_t address, int bytes) const {
  return static_cast<int64_t>(address) + bytes <= static_cast<int64_t>(data_.size()) &&
         address % static_cast<unsigned>(bytes) == 0;
}

bool SharedMemory::write_is_over(const Cell& cell, int thread) const {
  if (cell.writer & kInFlight) return false;
  return cell.writer == thread || ordered(cell.writer / 32, cell.write_stamp, thread);
}

bool SharedMemory::read_is_over(const Cell& cell, int thread) const {
  if (cell.read_stamp < clock_.block_release || cell.reader == thread) return true;
  if (cell.reader == kSeveralWarps) return false;
  return ordered(cell.reader & kWarp ? cell.reader & ~kWarp : cell.reader / 32, cell.read_stamp, thread);
}

// One reader is remembered exactly; of several since the last barrier, their warp if it is one.
void SharedMemory::record_read(Cell& cell, int thread, unsigned line) const {
  const int warp = thread / 32;
  if (read_is_over(cell, thread)) {
    cell.reader = static_cast<uint16_t>(thread);
  } else {
    const int reader_warp = cell.reader & kWarp ? cell.reader & ~kWarp : cell.reader / 32;
    const bool same_warp = cell.reader != kSeveralWarps && reader_warp == warp;
    cell.reader = static_cast<uint16_t>(same_warp ? kWarp | warp : kSeveralWarps);
  }
  cell.read_stamp = clock_.now;
  cell.read_line = static_cast<uint16_t>(line);
}

std::string SharedMemory::explain_range(uint32_t address, int bytes) const {
  const bool inside = static_cast<int64_t>(address) + bytes <= static_cast<int64_t>(data_.size());
  return std::to_string(bytes) + " bytes at byte " + std::to_string(static_cast<int32_t>(address)) +
         " of shared memory, " + (inside ? "misaligned" : "which has " + std::to_string(data_.size()));
}

std::string SharedMemory::explain_write(const Cell& cell) {
  const std::string by =
      " by thread " + std::to_string(cell.writer & ~kInFlight) + " at line " + std::to_string(cell.write_line);
  if (cell.writer & kInFlight) return "shared memory that a cp.async" + by + " may still be filling";
  return "race: no barrier since the write" + by;
}

std::string SharedMemory::explain_read(const Cell& cell) {
  const std::string reader = cell.reader & kWarp ? "several threads" : "thread " + std::to_string(cell.reader);
  return "race: no barrier since the read by " + reader + " at line " + std::to_string(cell.read_line);
}

std::string SharedMemory::read(uint32_t address, int bytes, int thread, unsigned line, void* value) {
  if (!in_range(address, bytes)) return explain_range(address, bytes);
  for (int i = 0; i < bytes; i++) {
    Cell& cell = cells_[address + i];
    if (cell.write_stamp < clock_.block_start) return "shared memory that was never written";
    if (!write_is_over(cell, thread)) return explain_write(cell);
    record_read(cell, thread, line);
  }
  std::memcpy(value, data_.data() + address, static_cast<size_t>(bytes));
  return {};
}

std::string SharedMemory::begin_write(uint32_t address, int bytes, int thread, unsigned line, uint16_t flag) {
  if (!in_range(address, bytes)) return explain_range(address, bytes);
  for (int i = 0; i < bytes; i++) {
    Cell& cell = cells_[address + i];
    if (cell.write_stamp >= clock_.block_start && !write_is_over(cell, thread)) return explain_write(cell);
    if (!read_is_over(cell, thread)) return explain_read(cell);
    cell.write_stamp = clock_.now;
    cell.writer = static_cast<uint16_t>(thread | flag);
    cell.write_line = static_cast<uint16_t>(line);
  }
  return {};
}

std::string SharedMemory::write(uint32_t address, int bytes, int thread, unsigned line, const void* value) {
  std::string problem = begin_write(address, bytes, thread, line, 0);
  if (problem.empty()) std::memcpy(data_.data() + address, value, static_cast<size_t>(bytes));
  return problem;
}

std::string SharedMemory::begin_copy(uint32_t address, int bytes, int thread, unsigned line) {
  return begin_write(address, bytes, thread, line, kInFlight);
}

void SharedMemory::end_copy(uint32_t address, int bytes, const void* value) {
  for (int i = 0; i < bytes; i++) {
    Cell& cell = cells_[address + i];
    cell.writer &= static_cast<uint16_t>(~kInFlight);
    cell.write_stamp = clock_.now;
  }
  if (value)
    std::memcpy(data_.data() + address, value, static_cast<size_t>(bytes));
  else
    std::memset(data_.data() + address, 0, static_cast<size_t>(bytes));
}

}  // namespace effnet_fast::emulation
