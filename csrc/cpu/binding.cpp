#include "binding.h"

#include <exception>
#include <thread>
#include <utility>

#include "team.h"

namespace effnet_fast {

using torch::headeronly::ScalarType;

namespace {

thread_local Team* leading = nullptr;  // the team that this thread leads, within with_team

}  // namespace

Parallel pytorch_threads() {
  if (leading) {
    return {leading->members(),
            [](int64_t n, void (*body)(int64_t, int64_t, void*), void* context) { leading->run(n, body, context); }};
  }
  return {static_cast<int64_t>(torch::stable::get_num_threads()),
          [](int64_t n, void (*body)(int64_t, int64_t, void*), void* context) {
            torch::stable::parallel_for(0, n, 1, [&](int64_t begin, int64_t end) { body(begin, end, context); });
          }};
}

void with_team(const std::function<void()>& body) {
  const int64_t threads = torch::stable::get_num_threads();
  if (threads <= 1 || leading) return body();
  Team team(threads);
  const std::thread::id caller = std::this_thread::get_id();
  std::exception_ptr error;
  bool led = false;
  // PyTorch's pool always runs a part of a region on the thread that opens it, and within another region all of it.
  torch::stable::parallel_for(0, threads, 1, [&](int64_t member, int64_t) {
    if (std::this_thread::get_id() != caller) return team.serve(member);
    if (std::exchange(led, true)) return;
    leading = &team;
    try {
      body();
    } catch (...) {
      error = std::current_exception();  // the stable ABI would keep no more of it than that there was one
    }
    leading = nullptr;
    team.dismiss();
  });
  if (error) std::rethrow_exception(error);
}

DType dtype_of(const Tensor& t, const char* name) {
  switch (t.scalar_type()) {
    case ScalarType::Float: return DType::kFloat32;
    case ScalarType::Half: return DType::kFloat16;
    case ScalarType::BFloat16: return DType::kBFloat16;
    case ScalarType::Byte: return DType::kUInt8;
    default: STD_TORCH_CHECK(false, name, " has a dtype that the CPU kernels do not take");
  }
  return DType::kFloat32;
}

Image nhwc(const Tensor& t, const char* name) {
  STD_TORCH_CHECK(t.dim() == 4, name, " has ", t.dim(), " dimensions, expected 4 (N, C, H, W)");
  STD_TORCH_CHECK(t.is_cpu(), name, " is not on the CPU");
  const Image s{t.size(0), t.size(1), t.size(2), t.size(3)};
  const bool dense =
      t.numel() == 0 || ((s.c == 1 || t.stride(1) == 1) && (s.w == 1 || t.stride(3) == s.c) &&
                         (s.h == 1 || t.stride(2) == s.w * s.c) && (s.n == 1 || t.stride(0) == s.h * s.w * s.c));
  STD_TORCH_CHECK(dense, name, " is not dense in channels_last memory");
  return s;
}

void check_image(const Tensor& t, const char* name, const Image& shape, DType dtype) {
  const Image s = nhwc(t, name);
  STD_TORCH_CHECK(s.n == shape.n && s.c == shape.c && s.h == shape.h && s.w == shape.w, name, " has shape [", s.n, ", ",
                  s.c, ", ", s.h, ", ", s.w, "], expected [", shape.n, ", ", shape.c, ", ", shape.h, ", ", shape.w,
                  "]");
  STD_TORCH_CHECK(dtype_of(t, name) == dtype, name, " has another dtype than this call's");
}

void check_floats(const Tensor& t, const char* name, std::initializer_list<int64_t> shape) {
  bool same = t.dim() == static_cast<int64_t>(shape.size());
  int64_t d = 0;
  for (int64_t size : shape) same = same && t.size(d++) == size;
  STD_TORCH_CHECK(same && t.is_cpu() && t.is_contiguous() && t.scalar_type() == ScalarType::Float, name,
                  " is not a contiguous float32 CPU tensor of the expected shape");
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

Weight::Weight(const Tensor& t, const char* name, int64_t elements) {
  STD_TORCH_CHECK(t.is_cpu() && t.numel() == elements, name, " has ", t.numel(), " elements, expected ", elements,
                  ", on the CPU");
  tensor = t.is_contiguous() ? t : torch::stable::contiguous(t);
  array = {tensor->data_ptr(), dtype_of(t, name)};
  STD_TORCH_CHECK(array.dtype != DType::kUInt8, name, " is not a floating-point tensor");
}

Weight::Weight(const OptionalTensor& t, const char* name, int64_t elements) {
  if (t.has_value()) *this = Weight(*t, name, elements);
}

Tensor pack_tensor(const PackRequest& request, const Tensor& like) { return pack_parts({request}, like); }

Tensor pack_parts(const std::vector<PackRequest>& parts, const Tensor& like) {
  int64_t bytes = 0;
  for (const PackRequest& part : parts) bytes += packed_layout(part).bytes;
  Tensor block = torch::stable::new_empty(like, {bytes}, ScalarType::Byte);
  char* at = static_cast<char*>(block.mutable_data_ptr());
  for (const PackRequest& part : parts) {
    pack(part, at);
    at += packed_layout(part).bytes;
  }
  return block;
}

namespace {

void check_packed_tensor(const Tensor& packed) {
  STD_TORCH_CHECK(
      packed.is_cpu() && packed.dim() == 1 && packed.is_contiguous() && packed.scalar_type() == ScalarType::Byte,
      "packed is not a tensor that effnet_fast.ops.pack made");
}

// The block at `offset`, of which `available` bytes are there.
const PackedHeader* block_at(const Tensor& packed, int64_t offset, PackedKind kind, int64_t in_channels,
                             int64_t out_channels, int64_t kernel, int64_t squeeze, bool reads_halved = false) {
  const int64_t available = packed.numel() - offset;
  STD_TORCH_CHECK(available >= static_cast<int64_t>(sizeof(PackedHeader)),
                  "packed is not a tensor that effnet_fast.ops.pack made");
  const auto* h = reinterpret_cast<const PackedHeader*>(static_cast<const char*>(packed.data_ptr()) + offset);
  STD_TORCH_CHECK(h->magic == kPackedMagic && h->version == kPackedVersion && h->backend == kPackedForCpu &&
                      h->bytes >= static_cast<int64_t>(sizeof(PackedHeader)) && h->bytes <= available,
                  "packed was not made for the CPU backend of this version: pack the weights again");
  STD_TORCH_CHECK(h->isa >= 0 && h->isa < kIsaCount && supported(static_cast<Isa>(h->isa)),
                  "packed was made for an instruction set that this machine does not run: pack the weights again");
  STD_TORCH_CHECK(h->kind == static_cast<int32_t>(kind) && (reads_halved || !h->bf16_values),
                  "packed holds the weights of another operator");
  STD_TORCH_CHECK(
      h->in_channels == in_channels && h->out_channels == out_channels && h->kernel == kernel && h->squeeze == squeeze,
      "packed holds ", h->in_channels, " -> ", h->out_channels, " channels, kernel ", h->kernel, ", squeeze ",
      h->squeeze, "; this call wants ", in_channels, " -> ", out_channels, ", kernel ", kernel, ", squeeze ", squeeze);
  return h;
}

}  // namespace

const PackedHeader* unpack(const Tensor& packed, PackedKind kind, int64_t in_channels, int64_t out_channels,
                           int64_t kernel, int64_t squeeze, bool reads_halved) {
  check_packed_tensor(packed);
  const PackedHeader* h = block_at(packed, 0, kind, in_channels, out_channels, kernel, squeeze, reads_halved);
  STD_TORCH_CHECK(h->bytes == packed.numel(), "packed holds the weights of another operator");
  return h;
}

ExpandDepthwisePacked unpack_pair(const Tensor& packed, int64_t in_channels, int64_t expanded, int64_t kernel) {
  check_packed_tensor(packed);
  const PackedHeader* expand = block_at(packed, 0, PackedKind::kMatrix, in_channels, expanded, 1, 0);
  const PackedHeader* depthwise =
      block_at(packed, expand->bytes, PackedKind::kDepthwise, expanded, expanded, kernel, 0);
  STD_TORCH_CHECK(expand->bytes + depthwise->bytes == packed.numel() && expand->isa == depthwise->isa,
                  "packed holds the weights of another operator");
  return {expand, depthwise};
}

MBConvPacked unpack_mbconv(const Tensor& packed, int64_t in_channels, int64_t expanded, int64_t out_channels,
                           int64_t kernel, int64_t squeeze) {
  check_packed_tensor(packed);
  int64_t offset = 0;
  auto next = [&](PackedKind kind, int64_t from, int64_t to, int64_t k, int64_t s) {
    const PackedHeader* h = block_at(packed, offset, kind, from, to, k, s);
    offset += h->bytes;
    return h;
  };
  MBConvPacked parts{};
  // A block begins with its expansion, a matrix, if it has one.
  const auto* first = static_cast<const PackedHeader*>(packed.data_ptr());
  if (packed.numel() >= static_cast<int64_t>(sizeof(PackedHeader)) &&
      first->kind == static_cast<int32_t>(PackedKind::kMatrix)) {
    parts.expand = next(PackedKind::kMatrix, in_channels, expanded, 1, 0);
  } else {
    STD_TORCH_CHECK(in_channels == expanded, "packed has no expansion: x has ", in_channels, " channels, expected ",
                    expanded);
  }
  parts.depthwise = next(PackedKind::kDepthwise, expanded, expanded, kernel, 0);
  if (squeeze) parts.squeeze_excite = next(PackedKind::kSqueezeExcite, expanded, expanded, 1, squeeze);
  parts.project = next(PackedKind::kMatrix, expanded, out_channels, 1, 0);
  STD_TORCH_CHECK(offset == packed.numel() && parts.depthwise->isa == parts.project->isa &&
                      (!parts.expand || parts.expand->isa == parts.project->isa) &&
                      (!parts.squeeze_excite || parts.squeeze_excite->isa == parts.project->isa),
                  "packed holds the weights of another operator");
  return parts;
}

FusedMBConvPacked unpack_fused_mbconv(const Tensor& packed, int64_t in_channels, int64_t expanded, int64_t out_channels,
                                      int64_t kernel) {
  check_packed_tensor(packed);
  const PackedHeader* expand = block_at(packed, 0, PackedKind::kConv, in_channels, expanded, kernel, 0);
  const PackedHeader* project = block_at(packed, expand->bytes, PackedKind::kMatrix, expanded, out_channels, 1, 0);
  STD_TORCH_CHECK(expand->bytes + project->bytes == packed.numel() && expand->isa == project->isa,
                  "packed holds the weights of another operator");
  return {expand, project};
}

void check_same_dtype(const PackedHeader* packed, DType dtype) {
  STD_TORCH_CHECK(packed->dtype == static_cast<int32_t>(dtype), "packed holds weights of another dtype than x's");
}

PackRequest matrix_request(const Tensor& weight, const OptionalTensor& bias, std::string_view isa, PackedKind kind,
                           Weight* holders) {
  STD_TORCH_CHECK(weight.dim() == 4 || (weight.dim() == 2 && kind == PackedKind::kMatrix), "weight has ", weight.dim(),
                  " dimensions, expected 4");
  PackRequest r{kind,
                parse_isa(isa),
                weight.size(1),
                weight.size(0),
                weight.dim() == 4 ? weight.size(2) : 1,
                0,
                {},
                {},
                {},
                {},
                {},
                {}};
  holders[0] = Weight(weight, "weight", r.out_channels * r.in_channels * r.kernel * r.kernel);
  holders[1] = Weight(bias, "bias", r.out_channels);
  STD_TORCH_CHECK(kind == PackedKind::kConv || r.kernel == 1, "weight has kernel ", r.kernel, ", expected 1");
  r.weight = holders[0].array;
  r.bias = holders[1].array;
  return r;
}

PackRequest depthwise_request(const Tensor& weight, const OptionalTensor& bias, std::string_view isa, Weight* holders) {
  STD_TORCH_CHECK(weight.dim() == 4 && weight.size(1) == 1 && weight.size(2) == weight.size(3),
                  "weight is not of the shape [C, 1, k, k]");
  const int64_t channels = weight.size(0), kernel = weight.size(2);
  PackRequest r{PackedKind::kDepthwise, parse_isa(isa), channels, channels, kernel, 0, {}, {}, {}, {}, {}, {}};
  holders[0] = Weight(weight, "weight", channels * kernel * kernel);
  holders[1] = Weight(bias, "bias", channels);
  r.weight = holders[0].array;
  r.bias = holders[1].array;
  return r;
}

void add_squeeze_excite(PackRequest& r, const Tensor& w1, const OptionalTensor& b1, const Tensor& w2,
                        const OptionalTensor& b2, Weight* holders) {
  STD_TORCH_CHECK(w1.dim() >= 2, "w1 has ", w1.dim(), " dimensions, expected 2 or 4");
  r.squeeze = w1.size(0);
  STD_TORCH_CHECK(w1.size(1) == r.out_channels, "w1 has ", w1.size(1), " input channels, expected ", r.out_channels);
  holders[0] = Weight(w1, "w1", r.squeeze * r.out_channels);
  holders[1] = Weight(b1, "b1", r.squeeze);
  holders[2] = Weight(w2, "w2", r.squeeze * r.out_channels);
  holders[3] = Weight(b2, "b2", r.out_channels);
  r.w1 = holders[0].array;
  r.b1 = holders[1].array;
  r.w2 = holders[2].array;
  r.b2 = holders[3].array;
}

}  // namespace effnet_fast
