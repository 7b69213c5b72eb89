#include "pack.h"

#include <algorithm>
#include <cstring>

#include "dispatch.h"

namespace effnet_fast {
namespace {

bool is_conv(PackedKind kind) { return kind == PackedKind::kMatrix || kind == PackedKind::kConv; }
bool has_depthwise(PackedKind kind) { return kind == PackedKind::kDepthwise || kind == PackedKind::kDepthwiseGate; }
bool has_squeeze(PackedKind kind) { return kind == PackedKind::kSqueezeExcite || kind == PackedKind::kDepthwiseGate; }

void pack_matrix(const PackRequest& r, const KernelTable& kernels, const PackedHeader& h, float* words) {
  const int64_t channels = stored_channels(h);
  const bool pairs = h.bf16_pairs || h.bf16_values;
  const int64_t width = kernels.width, taps = r.kernel * r.kernel, depth = channels * taps;
  // A panel's columns lie together, so the panels' bounds decide where a column goes.
  const PanelSplit panels = kernels.panels(h);
  // k runs over kernel rows, kernel columns, input channels: the order of an interleaved image row.
  auto value = [&](int64_t out, int64_t k) {
    const int64_t tap = k / channels, in = k % channels;
    if (out >= r.out_channels || in >= r.in_channels) return 0.0f;
    return r.weight.at((out * r.in_channels + in) * taps + tap);
  };
  for (int64_t panel = 0; panel < panels.count; panel++) {
    const int64_t first = panels.first_vector(panel) * width, columns = panels.width_of(panel) * width;
    for (int64_t k = 0; k < depth; k += pairs ? 2 : 1) {
      for (int64_t column = 0; column < columns; column++, words++) {
        if (pairs) {
          const bfloat16 pair[] = {from_float<bfloat16>(value(first + column, k)),
                                   from_float<bfloat16>(value(first + column, k + 1))};
          std::memcpy(words, pair, sizeof pair);
        } else {
          *words = value(first + column, k);
        }
      }
    }
  }
}

// Whether bfloat16 holds every weight exactly; of most float32 weights the first few say no.
bool are_bf16_values(const WeightArray& weight, int64_t count) {
  const float* values = static_cast<const float*>(weight.data);
  return std::all_of(values, values + count, [](float value) { return (bits_of(value) & 0xffffu) == 0; });
}

void pack_depthwise(const PackRequest& r, int64_t width, float* to) {
  const int64_t taps = r.kernel * r.kernel;
  for (int64_t c = 0; c < r.out_channels; c++) {
    for (int64_t tap = 0; tap < taps; tap++)
      to[(c / width * taps + tap) * width + c % width] = r.weight.at(c * taps + tap);
  }
}

void copy_array(const WeightArray& from, int64_t count, float* to) {
  if (!from.data) return;
  for (int64_t i = 0; i < count; i++) to[i] = from.at(i);
}

}  // namespace

float WeightArray::at(int64_t i) const {
  switch (dtype) {
    case DType::kFloat32: return static_cast<const float*>(data)[i];
    case DType::kFloat16: return to_float(static_cast<const float16*>(data)[i]);
    case DType::kBFloat16: return to_float(static_cast<const bfloat16*>(data)[i]);
    case DType::kUInt8: break;
  }
  return 0.0f;
}

PackedHeader packed_layout(const PackRequest& r) {
  const KernelTable& kernels = kernels_of(r.isa);
  const int64_t width = kernels.width;
  const int64_t padded = ceil_div(r.out_channels, width) * width;
  PackedHeader h{};
  h.magic = kPackedMagic;
  h.version = kPackedVersion;
  h.backend = kPackedForCpu;
  h.isa = static_cast<int32_t>(r.isa);
  h.kind = static_cast<int32_t>(r.kind);
  h.dtype = static_cast<int32_t>(r.weight.data ? r.weight.dtype : DType::kFloat32);
  h.in_channels = static_cast<int32_t>(r.in_channels);
  h.out_channels = static_cast<int32_t>(r.out_channels);
  h.kernel = static_cast<int32_t>(r.kernel);
  h.squeeze = static_cast<int32_t>(r.squeeze);
  // See stored_channels for an odd number of channels.
  h.bf16_pairs = is_conv(r.kind) && kernels.bf16_pairs && r.weight.dtype == DType::kBFloat16 &&
                 (r.kind == PackedKind::kConv || r.in_channels % 2 == 0);
  h.bf16_values = r.may_halve && kernels.halves_weights && r.weight.dtype == DType::kFloat32 &&
                  r.in_channels % 2 == 0 && are_bf16_values(r.weight, r.in_channels * r.out_channels);
  const bool pairs = h.bf16_pairs || h.bf16_values;
  int64_t end = sizeof(PackedHeader);
  auto place = [&](int64_t floats) {
    const int64_t at = end;
    end = ceil_div(at + floats * 4, kPackedAlignment) * kPackedAlignment;
    return at;
  };
  if (is_conv(r.kind)) h.weight = place(stored_channels(h) * r.kernel * r.kernel * padded / (pairs ? 2 : 1));
  if (has_depthwise(r.kind)) h.weight = place(r.kernel * r.kernel * padded);
  if (is_conv(r.kind) || has_depthwise(r.kind)) h.bias = place(padded);
  if (has_squeeze(r.kind)) {
    h.w1 = place(r.squeeze * padded);
    h.b1 = place(r.squeeze);
    h.w2 = place(r.squeeze * padded);
    h.b2 = place(padded);
  }
  h.bytes = end;
  return h;
}

void pack(const PackRequest& r, void* block) {
  const KernelTable& kernels = kernels_of(r.isa);
  const PackedHeader h = packed_layout(r);
  char* bytes = static_cast<char*>(block);
  std::memset(bytes, 0, h.bytes);
  std::memcpy(bytes, &h, sizeof h);
  auto at = [&](int64_t offset) { return reinterpret_cast<float*>(bytes + offset); };
  if (is_conv(r.kind)) pack_matrix(r, kernels, h, at(h.weight));
  if (has_depthwise(r.kind)) pack_depthwise(r, kernels.width, at(h.weight));
  if (h.bias) copy_array(r.bias, r.out_channels, at(h.bias));
  if (has_squeeze(r.kind)) {
    const int64_t padded = ceil_div(r.out_channels, kernels.width) * kernels.width;
    for (int64_t s = 0; s < r.squeeze; s++) {
      for (int64_t c = 0; c < r.out_channels; c++) {
        at(h.w1)[s * padded + c] = r.w1.at(s * r.out_channels + c);
        at(h.w2)[s * padded + c] = r.w2.at(c * r.squeeze + s);
      }
    }
    copy_array(r.b1, r.squeeze, at(h.b1));
    copy_array(r.b2, r.out_channels, at(h.b2));
  }
}

}  // namespace effnet_fast
