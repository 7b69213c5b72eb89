#include "binding.h"

namespace effnet_fast::cuda {

using torch::headeronly::ScalarType;

namespace {

cudaStream_t current_stream(int device) {
  void* stream = nullptr;
  TORCH_ERROR_CODE_CHECK(aoti_torch_get_current_cuda_stream(device, &stream));
  return static_cast<cudaStream_t>(stream);
}

const Tensor& on_gpu(const Tensor& t) {
  STD_TORCH_CHECK(t.is_cuda(), "the CUDA kernels were given a tensor that is not on a GPU");
  return t;
}

}  // namespace

DType dtype_of(ScalarType type, const char* name) {
  switch (type) {
    case ScalarType::Float: return DType::kFloat32;
    case ScalarType::Half: return DType::kFloat16;
    case ScalarType::BFloat16: return DType::kBFloat16;
    case ScalarType::Byte: return DType::kUInt8;
    default: STD_TORCH_CHECK(false, name, " has a dtype that the CUDA kernels do not take");
  }
  return DType::kFloat32;
}

Call::Call(const char* op, const Tensor& on)
    : on_(on_gpu(on)),
      guard_(on.get_device_index()),
      launcher_(op, on.get_device_index(), current_stream(on.get_device_index())) {}

void Call::check_device(const Tensor& t, const char* name) const {
  STD_TORCH_CHECK(t.is_cuda() && t.get_device_index() == on_.get_device_index(), name, " is not on GPU ",
                  on_.get_device_index(), ", where this call's other tensors are");
}

Image Call::nhwc(const Tensor& t, const char* name) const {
  STD_TORCH_CHECK(t.dim() == 4, name, " has ", t.dim(), " dimensions, expected 4 (N, C, H, W)");
  check_device(t, name);
  const Image s{t.size(0), t.size(1), t.size(2), t.size(3)};
  const bool dense =
      t.numel() == 0 || ((s.c == 1 || t.stride(1) == 1) && (s.w == 1 || t.stride(3) == s.c) &&
                         (s.h == 1 || t.stride(2) == s.w * s.c) && (s.n == 1 || t.stride(0) == s.h * s.w * s.c));
  STD_TORCH_CHECK(dense, name, " is not dense in channels_last memory");
  return s;
}

void Call::check_image(const Tensor& t, const char* name, const Image& shape, DType dtype) const {
  const Image s = nhwc(t, name);
  STD_TORCH_CHECK(s.n == shape.n && s.c == shape.c && s.h == shape.h && s.w == shape.w, name, " has shape [", s.n, ", ",
                  s.c, ", ", s.h, ", ", s.w, "], expected [", shape.n, ", ", shape.c, ", ", shape.h, ", ", shape.w,
                  "]");
  STD_TORCH_CHECK(dtype_of(t, name) == dtype, name, " has another dtype than this call's");
}

float* Call::floats(const Tensor& t, const char* name, std::initializer_list<int64_t> shape) const {
  check_device(t, name);
  bool same = t.dim() == static_cast<int64_t>(shape.size());
  int64_t d = 0;
  for (int64_t size : shape) same = same && t.size(d++) == size;
  STD_TORCH_CHECK(same && t.is_contiguous() && t.scalar_type() == ScalarType::Float, name,
                  " is not a contiguous float32 tensor of the expected shape");
  return static_cast<float*>(t.data_ptr());
}

const float* Call::floats(const OptionalTensor& t, const char* name, std::initializer_list<int64_t> shape) const {
  return t ? floats(*t, name, shape) : nullptr;
}

std::vector<const void*> Call::unpack(const Tensor& packed, const PackedFor& use,
                                      std::initializer_list<int64_t> section_bytes) const {
  check_device(packed, "packed");
  STD_TORCH_CHECK(packed.dim() == 1 && packed.is_contiguous() && packed.scalar_type() == ScalarType::Byte,
                  "packed is not a tensor that effnet_fast.ops.pack made");
  const std::string problem = packed_problem(packed.numel(), use, section_bytes);
  STD_TORCH_CHECK(problem.empty(), problem);
  const char* at = static_cast<const char*>(packed.data_ptr());
  STD_TORCH_CHECK(reinterpret_cast<uintptr_t>(at) % 16 == 0,
                  "packed is a part of another tensor that begins at no multiple of 16 bytes");
  std::vector<const void*> sections;
  for (int64_t bytes : section_bytes) {
    sections.push_back(at);
    at += round_up(bytes, kPackedAlignment);
  }
  return sections;
}

void* Call::keep(Tensor memory) {
  kept_.push_back(std::move(memory));
  return kept_.back().mutable_data_ptr();
}

float* Call::workspace(int64_t elements) {
  return static_cast<float*>(keep(torch::stable::new_empty(on_, {elements}, ScalarType::Float)));
}

int* Call::zeros(int64_t elements) {
  return static_cast<int*>(keep(torch::stable::new_zeros(on_, {elements}, ScalarType::Int)));
}

ConvGeometry geometry_of(const Image& x, int64_t kernel, int64_t stride, const Padding& padding) {
  STD_TORCH_CHECK(padding.size() == 4, "padding has ", padding.size(),
                  " values, expected 4 (top, left, bottom, right)");
  STD_TORCH_CHECK(kernel >= 1 && stride >= 1, "kernel and stride must be positive");
  for (int64_t p : padding) STD_TORCH_CHECK(p >= 0, "padding must not be negative");
  const ConvGeometry g{x.n, x.c, x.h, x.w, kernel, stride, padding[0], padding[1], padding[2], padding[3]};
  STD_TORCH_CHECK(x.h + g.top + g.bottom >= kernel && x.w + g.left + g.right >= kernel,
                  "the padded image is smaller than the kernel");
  return g;
}

PackedFor packed_for(PackedKind kind, DType dtype, Activation activation) {
  return {kind, dtype, activation == Activation::kSilu && size_of(dtype) == 2};
}

}  // namespace effnet_fast::cuda
