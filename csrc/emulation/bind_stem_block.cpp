#include "../cuda/stem_block_launch.h"
#include "geometry.h"
#include "operators.h"

namespace effnet_fast::emulation {

// Shapes alone.
static cuda::StemBlockCall shape(Arguments& arguments) {
  cuda::StemBlockCall call{};
  call.stem.geometry = geometry_of(arguments);
  call.stem.out_channels = arguments.integer("channels");
  call.out_channels = arguments.integer("out_channels");
  call.filter = arguments.integer("filter");
  return call;
}

// Without tensors: whether one launch makes it goes to the output "fused".
static const Operator kChoice("stem_block_is_fused", [](Arguments& arguments, Launcher&) {
  const cuda::StemBlockCall call = shape(arguments);
  cuda::with_storage(arguments.dtype("dtype"), [&]<class T>() {
    *static_cast<int*>(arguments.tensors.at("fused").data) = cuda::stem_block_is_fused<T>(call);
  });
});

template <class T>
static void launch_fused(const cuda::StemBlockCall& call, Launcher& launcher) {
  if (!cuda::stem_block_is_fused<T>(call)) throw std::invalid_argument("the fused kernel does not take this call");
  cuda::launch_stem_block<T>(call, launcher);
}

// With out_channels = 0 this is stem_block_sums. The parts, whose kernels have emulated operators of their own, are
// compiled for float32 alone: a call of 16-bit maps that they would make is an error here.
static const Operator kBound("stem_block", [](Arguments& arguments, Launcher& launcher) {
  cuda::StemBlockCall call = shape(arguments);
  call.stem.multiprocessors = 4;
  call.multiprocessor_shared_bytes = 228 << 10;
  call.stem.activation = parse_activation(arguments.text("activation"));
  call.stem.image_dtype = arguments.dtype("image_dtype");
  for (int i = 0; i < 4; i++) call.stem.image_strides[i] = arguments.integer("image_stride" + std::to_string(i));
  call.stem.image = arguments.tensor<const void>("image");
  call.stem.mean = arguments.optional_tensor<const float>("mean");
  call.stem.std = arguments.optional_tensor<const float>("std");
  call.stem.weight = arguments.weights<void>("w_stem");
  call.stem.bias = arguments.weights<float>("b_stem");
  call.w_filter = arguments.weights<void>("w_filter");
  call.b_filter = arguments.weights<float>("b_filter");
  call.w_project = arguments.optional_weights<void>("w_project");
  call.b_project = arguments.optional_weights<float>("b_project");
  call.gate = arguments.optional_tensor<const float>("gate");
  call.y = arguments.optional_tensor<void>("y");
  call.sums = arguments.optional_tensor<float>("sums");
  const DType dtype = arguments.dtype("dtype");
  if (dtype == DType::kFloat32) {
    const ConvGeometry g = call.filter_geometry();
    call.stem_map = arguments.scratch<float>(g.n * g.h * g.w * g.c);
    call.filter_map = arguments.scratch<float>(g.n * g.h * g.w * g.c);
    cuda::launch_stem_block_parts<float>(call, launcher);
  } else if (dtype == DType::kFloat16) {
    launch_fused<cuda::half>(call, launcher);
  } else {
    launch_fused<cuda::bfloat16>(call, launcher);
  }
});

}  // namespace effnet_fast::emulation
