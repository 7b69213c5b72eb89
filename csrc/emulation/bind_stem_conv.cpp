#include "../cuda/stem_conv_launch.h"
#include "geometry.h"
#include "operators.h"

namespace effnet_fast::emulation {

static const Operator kBound("stem_conv", [](Arguments& arguments, Launcher& launcher) {
  cuda::StemConvCall call;
  call.geometry = geometry_of(arguments);
  call.out_channels = arguments.integer("out_channels");
  call.multiprocessors = arguments.integer("multiprocessors");
  call.activation = parse_activation(arguments.text("activation"));
  call.image_dtype = arguments.dtype("image_dtype");
  for (int i = 0; i < 4; i++) call.image_strides[i] = arguments.integer("image_stride" + std::to_string(i));
  call.image = arguments.tensor<const void>("image");
  call.mean = arguments.optional_tensor<const float>("mean");
  call.std = arguments.optional_tensor<const float>("std");
  call.weight = arguments.weights<void>("weight");
  call.bias = arguments.weights<float>("bias");
  call.y = arguments.tensor<void>("y");
  cuda::with_storage(arguments.dtype("dtype"), [&]<class T>() { cuda::launch_stem_conv<T>(call, launcher); });
});

}  // namespace effnet_fast::emulation
