// What a GPU can do at most, one figure a line as JSON: bandwidth of memory and of the L2 cache, instruction rates,
// the gap between kernels of a graph, and the error of SiLU by tanh.approx. Run by `make gpu`; alone:
//   nvcc -std=c++20 -O3 -arch=native ceilings.cu -o ceilings && ./ceilings
#include <cuda_runtime.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <string>
#include <vector>

namespace {

constexpr int kSamples = 15;

void check(cudaError_t status, const char* what) {
  if (status == cudaSuccess) return;
  std::printf("ceilings: %s: %s\n", what, cudaGetErrorString(status));
  std::exit(1);
}
#define CHECK(call) check(call, #call)

void report(const std::string& what, double value, const char* unit) {
  std::printf("{\"what\": \"%s\", \"value\": %.6g, \"unit\": \"%s\"}\n", what.c_str(), value, unit);
  std::fflush(stdout);
}

template <class T>
T* allocate(size_t count) {
  void* memory = nullptr;
  CHECK(cudaMalloc(&memory, count * sizeof(T)));
  CHECK(cudaMemset(memory, 0, count * sizeof(T)));
  return static_cast<T*>(memory);
}

// Median seconds of what `launch` puts into `stream`, after one run that is not counted.
template <class Launch>
double seconds(cudaStream_t stream, Launch launch) {
  cudaEvent_t begin, end;
  CHECK(cudaEventCreate(&begin));
  CHECK(cudaEventCreate(&end));
  launch();
  std::vector<float> times(kSamples);
  for (float& milliseconds : times) {
    CHECK(cudaEventRecord(begin, stream));
    launch();
    CHECK(cudaEventRecord(end, stream));
    CHECK(cudaGetLastError());
    CHECK(cudaEventSynchronize(end));
    CHECK(cudaEventElapsedTime(&milliseconds, begin, end));
  }
  CHECK(cudaEventDestroy(begin));
  CHECK(cudaEventDestroy(end));
  std::nth_element(times.begin(), times.begin() + kSamples / 2, times.end());
  return times[kSamples / 2] * 1e-3;
}

// Bandwidth. Reads skip the L1 cache, whose hits would count as bandwidth of what is behind it.

__global__ void read_kernel(const uint4* from, size_t count, int repeats, uint32_t* sink) {
  uint32_t sum = 0;
  for (int r = 0; r < repeats; r++) {
    for (size_t i = blockIdx.x * size_t{blockDim.x} + threadIdx.x; i < count; i += size_t{gridDim.x} * blockDim.x) {
      const uint4 v = __ldcg(from + i);
      sum += v.x ^ v.y ^ v.z ^ v.w;
    }
  }
  if (sum == 0x1234567) *sink = sum;  // never: it keeps the loads
}

__global__ void copy_kernel(const uint4* from, uint4* to, size_t count, int repeats) {
  for (int r = 0; r < repeats; r++) {
    for (size_t i = blockIdx.x * size_t{blockDim.x} + threadIdx.x; i < count; i += size_t{gridDim.x} * blockDim.x) {
      to[i] = __ldcg(from + i);
    }
  }
}

void bandwidth(int multiprocessors, cudaStream_t stream) {
  constexpr size_t kMegabyte = 1 << 20, kLargest = 1024 * kMegabyte, kTraffic = 4096 * kMegabyte;
  auto* from = allocate<uint4>(kLargest / sizeof(uint4));
  auto* to = allocate<uint4>(kLargest / sizeof(uint4));
  auto* sink = allocate<uint32_t>(1);
  const int blocks = 2 * multiprocessors;
  for (const size_t megabytes : {4, 8, 16, 24, 32, 40, 48, 64, 96, 128, 1024}) {
    const size_t bytes = megabytes * kMegabyte, count = bytes / sizeof(uint4);
    const int repeats = static_cast<int>(std::max<size_t>(1, kTraffic / bytes));
    const double read = seconds(stream, [&] { read_kernel<<<blocks, 1024, 0, stream>>>(from, count, repeats, sink); });
    // The footprint of a copy is what it reads and what it writes.
    const double copy =
        seconds(stream, [&] { copy_kernel<<<blocks, 1024, 0, stream>>>(from, to, count / 2, repeats); });
    const double traffic = static_cast<double>(bytes) * repeats / 1e9;
    report("read, " + std::to_string(megabytes) + " MiB", traffic / read, "GB/s");
    report("copy, " + std::to_string(megabytes) + " MiB", traffic / copy, "GB/s");
  }
  CHECK(cudaFree(from));
  CHECK(cudaFree(to));
  CHECK(cudaFree(sink));
}

// Rates: eight independent chains a thread hide each instruction's latency.

enum class Instruction { kFma, kTanh, kExp2, kReciprocal };
constexpr int kChains = 8, kTurns = 4096;

template <Instruction kInstruction>
__global__ void rate_kernel(float* sink, int64_t* cycles) {
  float values[kChains];
  for (int i = 0; i < kChains; i++) values[i] = 1e-3f * static_cast<float>(threadIdx.x) + 0.1f * static_cast<float>(i);
  const int64_t begin = clock64();
  for (int turn = 0; turn < kTurns; turn++) {
#pragma unroll
    for (int i = 0; i < kChains; i++) {
      if constexpr (kInstruction == Instruction::kFma) asm volatile("fma.rn.f32 %0, %0, %0, %0;" : "+f"(values[i]));
      if constexpr (kInstruction == Instruction::kTanh) asm volatile("tanh.approx.f32 %0, %0;" : "+f"(values[i]));
      if constexpr (kInstruction == Instruction::kExp2) asm volatile("ex2.approx.ftz.f32 %0, %0;" : "+f"(values[i]));
      if constexpr (kInstruction == Instruction::kReciprocal) {
        asm volatile("rcp.approx.ftz.f32 %0, %0;" : "+f"(values[i]));
      }
    }
  }
  const int64_t elapsed = clock64() - begin;
  float sum = 0;
  for (int i = 0; i < kChains; i++) sum += values[i];
  if (sum == 12345.0f) *sink = sum;
  if (blockIdx.x == 0 && threadIdx.x == 0) *cycles = elapsed;
}

__global__ void mma_kernel(float* sink, int64_t* cycles) {
  float sums[kChains][4] = {};
  const uint32_t a[4] = {1, 2, 3, threadIdx.x}, b[2] = {threadIdx.x, 5};
  const int64_t begin = clock64();
  for (int turn = 0; turn < kTurns; turn++) {
#pragma unroll
    for (int i = 0; i < kChains; i++) {
      asm volatile(
          "mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, "
          "{%0, %1, %2, %3};"
          : "+f"(sums[i][0]), "+f"(sums[i][1]), "+f"(sums[i][2]), "+f"(sums[i][3])
          : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
    }
  }
  const int64_t elapsed = clock64() - begin;
  float sum = 0;
  for (int i = 0; i < kChains; i++) sum += sums[i][0] + sums[i][3];
  if (sum == 12345.0f) *sink = sum;
  if (blockIdx.x == 0 && threadIdx.x == 0) *cycles = elapsed;
}

void rates(int multiprocessors, cudaStream_t stream) {
  auto* sink = allocate<float>(1);
  auto* cycles = allocate<int64_t>(1);
  // `kernel` fills every multiprocessor with one block; `each` is what an instruction counts for.
  const auto measure = [&](const char* name, auto kernel, unsigned threads, double lanes, double flop) {
    const double time = seconds(stream, [&] { kernel<<<multiprocessors, threads, 0, stream>>>(sink, cycles); });
    int64_t elapsed = 0;
    CHECK(cudaMemcpy(&elapsed, cycles, sizeof elapsed, cudaMemcpyDeviceToHost));
    const double instructions = threads / lanes * kChains * kTurns;  // of a multiprocessor
    report(std::string(name) + " a clock and multiprocessor", instructions / static_cast<double>(elapsed), "");
    if (flop > 0) report(name, instructions * multiprocessors * flop / time / 1e12, "TFLOP/s");
  };
  measure("FMA", rate_kernel<Instruction::kFma>, 1024, 1, 2);
  measure("MUFU.TANH", rate_kernel<Instruction::kTanh>, 1024, 1, 0);
  measure("MUFU.EX2", rate_kernel<Instruction::kExp2>, 1024, 1, 0);
  measure("MUFU.RCP", rate_kernel<Instruction::kReciprocal>, 1024, 1, 0);
  measure("mma.sync 16x8x16 of float16", mma_kernel, 512, 32, 2 * 16 * 8 * 16);
  CHECK(cudaFree(sink));
  CHECK(cudaFree(cycles));
}

// Launches: kernels that do next to nothing, one after the other in a graph, with and without dependent launch.

__global__ void tiny_kernel(int* counter) {
#if __CUDA_ARCH__ >= 900
  asm volatile("griddepcontrol.launch_dependents;");
  asm volatile("griddepcontrol.wait;" ::: "memory");
#endif
  if (threadIdx.x == 0 && blockIdx.x == 0) *counter += 1;
}

void launches(const cudaDeviceProp& properties, cudaStream_t stream) {
  constexpr int kKernels = 200;
  auto* counter = allocate<int>(1);
  for (const int dependent : {0, 1}) {
    if (dependent && properties.major < 9) continue;
    for (const int blocks : {1, properties.multiProcessorCount, 8 * properties.multiProcessorCount}) {
      cudaLaunchAttribute attribute{};
      attribute.id = cudaLaunchAttributeProgrammaticStreamSerialization;
      attribute.val.programmaticStreamSerializationAllowed = 1;
      cudaLaunchConfig_t config{};
      config.gridDim = static_cast<unsigned>(blocks);
      config.blockDim = 256;
      config.stream = stream;
      config.attrs = &attribute;
      config.numAttrs = dependent;
      cudaGraph_t graph;
      cudaGraphExec_t executable;
      CHECK(cudaStreamBeginCapture(stream, cudaStreamCaptureModeThreadLocal));
      for (int i = 0; i < kKernels; i++) CHECK(cudaLaunchKernelEx(&config, tiny_kernel, counter));
      CHECK(cudaStreamEndCapture(stream, &graph));
      CHECK(cudaGraphInstantiate(&executable, graph, 0));
      const double time = seconds(stream, [&] { CHECK(cudaGraphLaunch(executable, stream)); });
      const std::string kind = dependent ? "dependent launch in a graph, " : "launch in a graph, ";
      report(kind + std::to_string(blocks) + " blocks", time / kKernels * 1e6, "us");
      CHECK(cudaGraphExecDestroy(executable));
      CHECK(cudaGraphDestroy(graph));
    }
  }
  CHECK(cudaFree(counter));
}

// The error of SiLU as 16-bit kernels compute it, h + h tanh.approx(h) with h = x / 2, before it is rounded.

__global__ void silu_error_kernel(float low, float high, int64_t count, double* largest) {
  double absolute = 0, relative = 0;
  for (int64_t i = blockIdx.x * int64_t{blockDim.x} + threadIdx.x; i < count; i += int64_t{gridDim.x} * blockDim.x) {
    const float x = low + (high - low) * static_cast<float>(static_cast<double>(i) / static_cast<double>(count));
    const float half = 0.5f * x;
    float tanh;
    asm("tanh.approx.f32 %0, %1;" : "=f"(tanh) : "f"(half));
    const double exact = x / (1.0 + exp(-static_cast<double>(x)));
    const double error = fabs(static_cast<double>(fmaf(half, tanh, half)) - exact);
    absolute = fmax(absolute, error);
    relative = fmax(relative, error / fmax(fabs(exact), 1e-3));
  }
  // Of doubles that are not negative, the order is that of their bits.
  auto* bits = reinterpret_cast<unsigned long long*>(largest);
  atomicMax(bits, static_cast<unsigned long long>(__double_as_longlong(absolute)));
  atomicMax(bits + 1, static_cast<unsigned long long>(__double_as_longlong(relative)));
}

void silu_errors(int multiprocessors) {
  struct Range {
    float low, high;
  };
  auto* largest = allocate<double>(2);
  for (const Range range : {Range{-20, -8}, Range{-8, -4}, Range{-4, -1}, Range{-1, 1}, Range{1, 4}, Range{4, 20}}) {
    CHECK(cudaMemset(largest, 0, 2 * sizeof(double)));
    silu_error_kernel<<<4 * multiprocessors, 256>>>(range.low, range.high, int64_t{1} << 26, largest);
    CHECK(cudaGetLastError());
    double errors[2];
    CHECK(cudaMemcpy(errors, largest, sizeof errors, cudaMemcpyDeviceToHost));
    char name[64];
    std::snprintf(name, sizeof name, "SiLU error, x from %g to %g", range.low, range.high);
    report(std::string(name) + ", absolute", errors[0], "");
    report(std::string(name) + ", of max(|y|, 0.001)", errors[1], "");
  }
  CHECK(cudaFree(largest));
}

}  // namespace

int main() {
  cudaDeviceProp properties;
  CHECK(cudaGetDeviceProperties(&properties, 0));
  cudaStream_t stream;
  CHECK(cudaStreamCreate(&stream));
  report("multiprocessors", properties.multiProcessorCount, "");
  report("L2 cache", properties.l2CacheSize / 1048576.0, "MiB");
  bandwidth(properties.multiProcessorCount, stream);
  rates(properties.multiProcessorCount, stream);
  launches(properties, stream);
  silu_errors(properties.multiProcessorCount);
  CHECK(cudaDeviceSynchronize());
  return 0;
}
