#include "global_memory.h"

#include <sys/mman.h>

#include <algorithm>
#include <cstring>
#include <new>
#include <stdexcept>

namespace effnet_fast::emulation {

GlobalMemory::GlobalMemory() {
  void* memory = mmap(nullptr, kSlotBytes * kSlots, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (memory == MAP_FAILED) throw std::bad_alloc();
  base_ = static_cast<char*>(memory);
  buffers_.reserve(kSlots);
}

GlobalMemory::~GlobalMemory() { munmap(base_, kSlotBytes * kSlots); }

void* GlobalMemory::add(const std::string& name, Role role, void* host, int64_t bytes) {
  if (static_cast<int>(buffers_.size()) == kSlots || bytes > kSlotBytes / 4) {
    throw std::invalid_argument(name + ": the emulator takes 32 buffers of up to 1 GiB");
  }
  char* middle = base_ + static_cast<int64_t>(buffers_.size()) * kSlotBytes + kSlotBytes / 2;
  if (mprotect(middle, static_cast<size_t>(bytes + 64), PROT_READ | PROT_WRITE) != 0) throw std::bad_alloc();
  Buffer buffer{name, role, static_cast<char*>(host), middle + reinterpret_cast<uintptr_t>(host) % 64, bytes, {}};
  const bool writable = role != Role::kInput && role != Role::kWeights;
  if (!writable) std::memcpy(buffer.begin, host, static_cast<size_t>(bytes));
  if (role == Role::kOutput || role == Role::kScratch) std::memset(buffer.begin, 0xFF, static_cast<size_t>(bytes));
  if (writable) buffer.writer.resize(static_cast<size_t>(bytes));
  buffers_.push_back(std::move(buffer));
  return buffers_.back().begin;
}

Buffer* GlobalMemory::find(const void* address) {
  const char* at = static_cast<const char*>(address);
  const auto slot = static_cast<size_t>((at - base_) / kSlotBytes);
  return at >= base_ && slot < buffers_.size() ? &buffers_[slot] : nullptr;
}

std::string GlobalMemory::check(const void* address, int64_t bytes) {
  const Buffer* buffer = find(address);
  const int64_t offset = buffer ? static_cast<const char*>(address) - buffer->begin : 0;
  const bool inside = buffer && offset >= 0 && offset + bytes <= buffer->bytes;
  const bool aligned = reinterpret_cast<uintptr_t>(address) % static_cast<uintptr_t>(bytes) == 0;
  if (inside && aligned) return {};
  std::string problem = std::to_string(bytes) + " bytes at ";
  if (!address) return problem + "a null pointer";
  if (!buffer) return problem + "an address in no tensor";
  problem += "byte " + std::to_string(offset) + " of '" + buffer->name + "', ";
  return problem + (inside ? "misaligned" : "which has " + std::to_string(buffer->bytes));
}

std::string GlobalMemory::read(const void* address, int64_t bytes, bool coherent, void* value) {
  std::string problem = check(address, bytes);
  if (!problem.empty()) return problem;
  const Buffer& buffer = *find(address);
  if (!buffer.writer.empty() && !coherent) {
    const auto first = buffer.writer.begin() + (static_cast<const char*>(address) - buffer.begin);
    if (std::any_of(first, first + bytes, [&](uint32_t writer) { return by_other_block(writer); })) {
      return "race: '" + buffer.name + "' was written by another block of this launch";
    }
  }
  std::memcpy(value, address, static_cast<size_t>(bytes));
  return {};
}

std::string GlobalMemory::write(void* address, int64_t bytes, const void* value) {
  std::string problem = check(address, bytes);
  if (!problem.empty()) return problem;
  Buffer& buffer = *find(address);
  if (buffer.writer.empty()) return std::to_string(bytes) + " bytes to the input '" + buffer.name + "'";
  const auto first = buffer.writer.begin() + (static_cast<char*>(address) - buffer.begin);
  const bool others = std::any_of(first, first + bytes, [&](uint32_t writer) { return by_other_block(writer); });
  // Blocks may overlap where they agree.
  if (others && std::memcmp(address, value, static_cast<size_t>(bytes)) != 0) {
    return "race: '" + buffer.name + "' was written with another value by another block of this launch";
  }
  std::fill_n(first, bytes, block_);
  std::memcpy(address, value, static_cast<size_t>(bytes));
  return {};
}

std::string GlobalMemory::add(void* address, int value, int* before) {
  std::string problem = read(address, sizeof value, true, before);
  if (!problem.empty()) return problem;
  Buffer& buffer = *find(address);
  if (buffer.role != Role::kZeros) return "'" + buffer.name + "', which does not start as zeros";
  const int sum = *before + value;
  std::fill_n(buffer.writer.begin() + (static_cast<char*>(address) - buffer.begin), sizeof sum, block_);
  std::memcpy(address, &sum, sizeof sum);
  return {};
}

std::string GlobalMemory::finish() {
  std::string problem;
  for (const Buffer& buffer : buffers_) {
    if (buffer.role != Role::kOutput) continue;
    std::memcpy(buffer.host, buffer.begin, static_cast<size_t>(buffer.bytes));
    const auto first = std::find(buffer.writer.begin(), buffer.writer.end(), 0u);
    if (first == buffer.writer.end() || !problem.empty()) continue;
    problem = std::to_string(std::count(first, buffer.writer.end(), 0u)) + " of the " + std::to_string(buffer.bytes) +
              " bytes of output '" + buffer.name + "' were never written, the first at " +
              std::to_string(first - buffer.writer.begin());
  }
  return problem;
}

}  // namespace effnet_fast::emulation
