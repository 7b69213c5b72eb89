// Registration of head_pool for CUDA; the kernels are head_pool.cuh, compiled in one file a storage type.
#include "head_pool_launch.h"

#include "binding.h"

namespace effnet_fast::cuda {

extern template void launch_head_pool<float>(const HeadPoolCall&, Launcher&);
extern template void launch_head_pool<half>(const HeadPoolCall&, Launcher&);
extern template void launch_head_pool<bfloat16>(const HeadPoolCall&, Launcher&);

namespace {

void packed_into(Tensor y, Tensor x, Tensor packed, int64_t out_channels, std::string activation) {
  Call call("head_pool", x);
  const Image s = call.nhwc(x, "x");
  STD_TORCH_CHECK(s.h * s.w > 0, "x has no pixels to average");
  const DType dtype = dtype_of(x, "x");
  const Activation parsed = parse_activation(activation);
  const auto weights = call.unpack(packed, packed_for(PackedKind::kHead, dtype, parsed),
                                   {out_channels * s.c * size_of(dtype), out_channels * 4});
  const HeadPoolCall c{s.n,
                       s.h * s.w,
                       s.c,
                       out_channels,
                       call.launcher().multiprocessors(),
                       call.launcher().multiprocessor_shared_bytes(),
                       parsed,
                       x.data_ptr(),
                       weights[0],
                       static_cast<const float*>(weights[1]),
                       call.floats(y, "y", {s.n, out_channels})};
  with_storage(dtype, [&]<class T>() { launch_head_pool<T>(c, call.launcher()); });
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(effnet_fast, CUDA, m) { m.impl("head_pool_packed_into", TORCH_BOX(&packed_into)); }

}  // namespace effnet_fast::cuda
