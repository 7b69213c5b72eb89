// Kernels of a few lines for the tests of the emulator: right ones that it must accept, and broken ones that it must
// refuse. The line that a report must name ends in `// report: <kernel>`.
#include "../../csrc/cuda/activation.cuh"
#include "../../csrc/emulation/operators.h"

namespace effnet_fast::cuda {

struct MiniArgs {
  Global<const float> x;
  Global<float> y;
  int count;
};

// y[i] = x[count - 1 - i] through shared memory, by blocks of 64 threads.
template <bool kBarrier>
__global__ void reverse(const MiniArgs args) {
  const auto shared = shared_memory<float>();
  const int i = threadIdx.x;
  store(shared + i, load<float>(args.x + i));
  if (kBarrier) ptx::sync_threads();
  store(args.y + i, load<float>(shared + (args.count - 1 - i)));  // report: reverse<false>
}

// One thread reads what another one wrote, or, where it comes first, what nobody wrote.
__global__ void hand_over(const MiniArgs args) {
  const auto shared = shared_memory<float>();
  if (threadIdx.x == 0) store(shared, load<float>(args.x));
  if (threadIdx.x == 63) store(args.y, load<float>(shared));
}

// The buffer is filled again while others may still read it.
template <bool kBarrier>
__global__ void refill(const MiniArgs args) {
  const auto shared = shared_memory<float>();
  const int i = threadIdx.x;
  float sum = 0.0f;
  for (int round = 0; round < 2; round++) {
    store(shared + i, load<float>(args.x + i));  // report: refill<false>
    ptx::sync_threads();
    sum += load<float>(shared + (args.count - 1 - i));  // report: refill<false>
    if (kBarrier) ptx::sync_threads();
  }
  store(args.y + i, sum);
}

// Neighbours exchange values inside a warp.
template <bool kSync>
__global__ void swap_in_warp(const MiniArgs args) {
  const auto shared = shared_memory<float>();
  const int i = threadIdx.x;
  store(shared + i, load<float>(args.x + i));
  if (kSync) ptx::sync_warp();
  const float other = load<float>(shared + (i ^ 1));  // report: swap_in_warp<false>
  if (kSync) ptx::sync_warp();
  store(shared + i, other);
  store(args.y + i, load<float>(shared + i));
}

// Two stages of cp.async; kGroups left in flight: 1 waits for the stage that is read, 2 does not.
template <int kGroups>
__global__ void pipeline(const MiniArgs args) {
  const auto shared = shared_memory<float>();
  const int i = threadIdx.x, stages = 3;
  for (int stage = 0; stage < 2; stage++) {
    cp_async<4>(shared + (stage * 64 + i), args.x + (stage * 64 + i));
    ptx::cp_async_commit();
  }
  for (int stage = 0; stage < stages; stage++) {
    ptx::cp_async_wait<kGroups>();
    ptx::sync_threads();
    const float value = load<float>(shared + (stage % 2 * 64 + 63 - i));  // report: pipeline<2>
    ptx::sync_threads();
    if (stage + 2 < stages) cp_async<4>(shared + (stage % 2 * 64 + i), args.x + ((stage + 2) * 64 + i));
    ptx::cp_async_commit();
    store(args.y + (stage * 64 + i), value);
  }
  ptx::cp_async_wait<0>();
}

// A copy that may still be running when the kernel ends.
__global__ void copy_without_wait(const MiniArgs args) {
  const auto shared = shared_memory<float>();
  cp_async<4>(shared + static_cast<int>(threadIdx.x), args.x + threadIdx.x);  // report: copy_without_wait
  ptx::cp_async_commit();
  store(args.y + threadIdx.x, 0.0f);
}

// y[i] = x[i - 1] + x[i] + x[i + 1], with kBefore without a look at the first border, else at the last.
template <bool kBefore>
__global__ void halo(const MiniArgs args) {
  const int i = threadIdx.x;
  float sum = load<float>(args.x + i);
  if (kBefore || i > 0) sum += load<float>(args.x + (i - 1));                // report: halo<true>
  if (!kBefore || i < args.count - 1) sum += load<float>(args.x + (i + 1));  // report: halo<false>
  store(args.y + i, sum);
}

// Whole groups of four only: the last values of y stay poison.
__global__ void no_tail(const MiniArgs args) {
  const int i = 4 * threadIdx.x;
  if (i + 4 <= args.count) store(args.y + i, load<Pack<float, 4>>(args.x + i));
}

__global__ void misaligned(const MiniArgs args) {
  const int i = threadIdx.x;
  if (i + 5 > args.count) return;
  const auto values = load<Pack<float, 4>>(args.x + (i + 1));  // report: misaligned
  store(args.y + i, values.words[0]);
}

// A misaligned vector in shared memory.
__global__ void misaligned_shared(const MiniArgs args) {
  const auto shared = shared_memory<float>();
  for (int i = threadIdx.x; i < args.count; i += 64) store(shared + i, load<float>(args.x + i));
  ptx::sync_threads();
  store(args.y + threadIdx.x, load<Pack<float, 2>>(shared + 1).words[0]);  // report: misaligned_shared
}

__global__ void beyond_shared(const MiniArgs args) {
  const auto shared = shared_memory<float>();
  store(shared + args.count, load<float>(args.x));  // report: beyond_shared
}

// Half of the threads never come to the barrier.
__global__ void early_return(const MiniArgs args) {
  if (threadIdx.x >= 32) return;
  ptx::sync_threads();  // report: early_return
  store(args.y + threadIdx.x, load<float>(args.x + threadIdx.x));
}

// One warp waits at the barrier, a part of the other one for the rest of it.
__global__ void half_a_warp(const MiniArgs args) {
  float value = load<float>(args.x + threadIdx.x);
  if (threadIdx.x < 16) value = ptx::shuffle_xor(value, 1);  // report: half_a_warp
  ptx::sync_threads();                                       // report: half_a_warp
  store(args.y + threadIdx.x, value);
}

__global__ void two_barriers(const MiniArgs args) {
  if (threadIdx.x < 32)
    ptx::sync_threads();  // report: two_barriers
  else
    ptx::sync_threads();  // report: two_barriers
  store(args.y + threadIdx.x, load<float>(args.x + threadIdx.x));
}

__global__ void write_to_input(const MiniArgs args) {
  const Global<float> x(const_cast<float*>(args.x.pointer));
  store(x + threadIdx.x, 0.0f);  // report: write_to_input
}

// Thread 0's slot is never filled.
__global__ void unwritten_shared(const MiniArgs args) {
  const auto shared = shared_memory<float>();
  const int i = threadIdx.x;
  if (i > 0) store(shared + i, load<float>(args.x + i));
  ptx::sync_threads();
  store(args.y + i, load<float>(shared + i));  // report: unwritten_shared
}

__global__ void constant_of_output(const MiniArgs args) {
  store(args.y + threadIdx.x, load<float>(args.x + threadIdx.x));
  const Global<const float> y = args.y;
  store(args.y + threadIdx.x, load_constant<float>(y + threadIdx.x));  // report: constant_of_output
}

// Every block writes the same value to y[0], or each its own.
template <bool kSame>
__global__ void shared_output(const MiniArgs args) {
  if (threadIdx.x == 0) store(args.y, kSame ? 1.0f : static_cast<float>(blockIdx.x));  // report: shared_output<false>
}

// A block reads what another one may have written, without load_coherent.
__global__ void neighbour_block(const MiniArgs args) {
  const int i = blockIdx.x, count = static_cast<int>(gridDim.x);
  if (threadIdx.x != 0) return;
  store(args.y + i, 1.0f);
  const Global<const float> y = args.y;
  const float other = load<float>(y + (i + 1) % count);  // report: neighbour_block
  store(args.y + i, other);
}

// Launched before the launch before it ended.
template <bool kWait>
__global__ void dependent(const MiniArgs args) {
  if (kWait) ptx::grid_dependency_wait();
  const float value = load<float>(args.x + threadIdx.x);  // report: dependent<false>
  store(args.y + threadIdx.x, value);
}

__global__ void null_pointer(const MiniArgs args) {
  const Global<const float> bias;
  store(args.y + threadIdx.x, load<float>(bias) + static_cast<float>(args.count));  // report: null_pointer
}

// The last block to take a ticket adds up what all wrote.
__global__ void last_block(const struct TicketArgs args);
struct TicketArgs {
  Global<const float> x;
  Global<float> partial, y;
  Global<int> ticket;
};
__global__ void last_block(const TicketArgs args) {
  const auto shared = shared_memory<int>();
  if (threadIdx.x == 0) {
    store(args.partial + blockIdx.x, 2.0f * load<float>(args.x + blockIdx.x));
    ptx::thread_fence();
    store(shared, atomic_add(args.ticket, 1));
  }
  ptx::sync_threads();
  if (load<int>(shared) != static_cast<int>(gridDim.x) - 1 || threadIdx.x != 0) return;
  float sum = 0.0f;
  for (unsigned i = 0; i < gridDim.x; i++) sum += load_coherent<float>(args.partial + i);
  store(args.y, sum);
}

// One fragment of each: a [16][16] by ldmatrix.x4, b by ldmatrix.x2 from [8][16] (columns) or transposed from [16][8].
template <class T>
struct FragmentArgs {
  Global<const T> a, b;
  Global<float> d;
};
template <class T, bool kTransposeA, bool kTransposeB>
__global__ void fragments(const FragmentArgs<T> args) {
  constexpr int kPitch = 24;  // values of a row: an odd multiple of 16 bytes, as kernels have it
  const auto a = shared_memory<T>(), b = shared_memory<T>(16 * kPitch * 2);
  const int lane = ptx::lane();
  cp_async<16>(a + (lane / 2 * kPitch + lane % 2 * 8), args.a + lane * 8);
  const int columns = kTransposeB ? 8 : 16;
  if (lane < 16) cp_async<16>(b + (lane * 8 / columns * kPitch + lane * 8 % columns), args.b + lane * 8);
  ptx::cp_async_commit();
  ptx::cp_async_wait<0>();
  ptx::sync_warp();
  uint32_t fragment_a[4], fragment_b[2];
  // Matrices of a: rows 0 and 8 of columns 0, then of columns 8. Transposed, a is stored by columns.
  const int row = lane % 8 + (kTransposeA ? lane / 16 * 8 : lane / 8 % 2 * 8);
  const int column = kTransposeA ? lane / 8 % 2 * 8 : lane / 16 * 8;
  ldmatrix<kTransposeA>(fragment_a, a + (row * kPitch + column));
  const int half_b = lane / 8 % 2 * 8;
  const auto row_b = kTransposeB ? b + (lane % 8 + half_b) * kPitch : b + (lane % 8 * kPitch + half_b);
  ldmatrix<kTransposeB>(fragment_b, row_b);
  float d[4] = {1.0f, 2.0f, 3.0f, 4.0f};
  mma<T>(d, fragment_a, fragment_b);
  const int group = lane / 4, pair = lane % 4 * 2;
  store(args.d + (group * 8 + pair), Pack<float, 2>{{d[0], d[1]}});
  store(args.d + ((group + 8) * 8 + pair), Pack<float, 2>{{d[2], d[3]}});
}

// Packs of every size, there and back, and the arithmetic.
template <class T>
struct ConvertArgs {
  Global<const T> x;
  Global<T> y;
};
template <class T, int kCount>
__global__ void convert(const ConvertArgs<T> args) {
  float values[kCount];
  const int i = threadIdx.x * kCount;
  unpack(load<Pack<T, kCount>>(args.x + i), values);
  for (float& value : values) value = activate<Activation::kSilu, T>(value);
  store(args.y + i, pack<T>(values));
}

}  // namespace effnet_fast::cuda

namespace effnet_fast::emulation {

template <auto kKernel, bool kDependent = false>
static void mini(Arguments& arguments, Launcher& launcher) {
  const cuda::MiniArgs args{arguments.tensor<const float>("x"), arguments.tensor<float>("y"),
                            static_cast<int>(arguments.integer("count"))};
  const auto blocks = static_cast<unsigned>(arguments.integer("blocks"));
  launcher.run<kKernel>(cuda::LaunchShape{{blocks}, 64, 128 * sizeof(float), kDependent}, args);
}
#define EFFNET_FAST_MINI(name, ...) static const Operator k_##name(#name, &mini<&cuda::__VA_ARGS__>)
EFFNET_FAST_MINI(reverse, reverse<true>);
EFFNET_FAST_MINI(missing_barrier, reverse<false>);
EFFNET_FAST_MINI(hand_over, hand_over);
EFFNET_FAST_MINI(refill, refill<true>);
EFFNET_FAST_MINI(missing_second_barrier, refill<false>);
EFFNET_FAST_MINI(swap_in_warp, swap_in_warp<true>);
EFFNET_FAST_MINI(missing_sync_warp, swap_in_warp<false>);
EFFNET_FAST_MINI(pipeline, pipeline<1>);
EFFNET_FAST_MINI(missing_wait, pipeline<2>);
EFFNET_FAST_MINI(copy_without_wait, copy_without_wait);
EFFNET_FAST_MINI(halo_before, halo<true>);
EFFNET_FAST_MINI(halo_behind, halo<false>);
EFFNET_FAST_MINI(no_tail, no_tail);
EFFNET_FAST_MINI(misaligned, misaligned);
EFFNET_FAST_MINI(misaligned_shared, misaligned_shared);
EFFNET_FAST_MINI(beyond_shared, beyond_shared);
EFFNET_FAST_MINI(early_return, early_return);
EFFNET_FAST_MINI(half_a_warp, half_a_warp);
EFFNET_FAST_MINI(two_barriers, two_barriers);
EFFNET_FAST_MINI(write_to_input, write_to_input);
EFFNET_FAST_MINI(unwritten_shared, unwritten_shared);
EFFNET_FAST_MINI(constant_of_output, constant_of_output);
EFFNET_FAST_MINI(null_pointer, null_pointer);
EFFNET_FAST_MINI(overlap, shared_output<true>);
EFFNET_FAST_MINI(conflict, shared_output<false>);
EFFNET_FAST_MINI(neighbour_block, neighbour_block);
static const Operator k_dependent("dependent", &mini<&cuda::dependent<true>, true>);
static const Operator k_missing_dependency_wait("missing_dependency_wait", &mini<&cuda::dependent<false>, true>);

// Any launch shape.
static const Operator kLaunch("launch", [](Arguments& arguments, Launcher& launcher) {
  const cuda::MiniArgs args{arguments.tensor<const float>("x"), arguments.tensor<float>("y"), 0};
  const auto number = [&](const char* name) { return static_cast<unsigned>(arguments.integer(name)); };
  launcher.run<&cuda::reverse<true>>(
      cuda::LaunchShape{{number("x"), number("y")}, number("threads"), number("shared_bytes")}, args);
});

static const Operator kLastBlock("last_block", [](Arguments& arguments, Launcher& launcher) {
  const auto blocks = static_cast<unsigned>(arguments.integer("blocks"));
  const cuda::TicketArgs args{arguments.tensor<const float>("x"), arguments.scratch<float>(blocks),
                              arguments.tensor<float>("y"), arguments.zeros<int>(1)};
  launcher.run<&cuda::last_block>(cuda::LaunchShape{{blocks}, 64, sizeof(int)}, args);
});

template <class T, bool kTransposeA, bool kTransposeB>
static void run_fragments(Arguments& arguments, Launcher& launcher) {
  const cuda::FragmentArgs<T> args{arguments.tensor<const T>("a"), arguments.tensor<const T>("b"),
                                   arguments.tensor<float>("d")};
  launcher.run<&cuda::fragments<T, kTransposeA, kTransposeB>>(cuda::LaunchShape{{1}, 32, 2 * 2 * 16 * 24}, args);
}
static const Operator kFragments("fragments", [](Arguments& arguments, Launcher& launcher) {
  const bool transpose_a = arguments.integer("transpose_a"), transpose_b = arguments.integer("transpose_b");
  const auto run = [&]<class T>() {
    if (transpose_a && transpose_b)
      run_fragments<T, true, true>(arguments, launcher);
    else if (transpose_a)
      run_fragments<T, true, false>(arguments, launcher);
    else if (transpose_b)
      run_fragments<T, false, true>(arguments, launcher);
    else
      run_fragments<T, false, false>(arguments, launcher);
  };
  if (arguments.dtype("dtype") == DType::kFloat16)
    run.operator()<cuda::half>();
  else
    run.operator()<cuda::bfloat16>();
});

static const Operator kConvert("convert", [](Arguments& arguments, Launcher& launcher) {
  const int64_t count = arguments.integer("count"), values = arguments.integer("values");
  cuda::with_storage(arguments.dtype("dtype"), [&]<class T>() {
    const cuda::ConvertArgs<T> args{arguments.tensor<const T>("x"), arguments.tensor<T>("y")};
    const cuda::LaunchShape shape{{1}, static_cast<unsigned>(values / count), 0};
    if (count == 1)
      launcher.run<&cuda::convert<T, 1>>(shape, args);
    else if (count == 2)
      launcher.run<&cuda::convert<T, 2>>(shape, args);
    else
      launcher.run<&cuda::convert<T, cuda::kVector<T>>>(shape, args);
  });
});

}  // namespace effnet_fast::emulation
