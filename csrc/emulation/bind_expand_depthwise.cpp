#include "bind_expand_depthwise.h"

namespace effnet_fast::emulation {

static const Operator kBound("expand_depthwise", launch_fused_expand_depthwise<true>);

// Without tensors but the output "plan": what a call of 16-bit maps would be given.
static const Operator kPlan("expand_depthwise_plan", [](Arguments& arguments, Launcher&) {
  cuda::ExpandDepthwiseCall call{};
  call.shape = expand_depthwise_shape(arguments);
  call.expand_activation = parse_activation(arguments.text("expand_activation"));
  call.activation = parse_activation(arguments.text("activation"));
  const cuda::ExpandDepthwisePlan p = expand_depthwise_plan(arguments, call);
  const cuda::ExpandDepthwiseVariant v =
      p.variant < 0 ? cuda::ExpandDepthwiseVariant{} : cuda::kExpandDepthwiseVariants[p.variant];
  auto* out = static_cast<double*>(arguments.tensors.at("plan").data);
  const double values[] = {
      static_cast<double>(p.variant),      static_cast<double>(v.chunk),        static_cast<double>(v.rows),
      static_cast<double>(p.tile_rows),    static_cast<double>(p.tile_columns), static_cast<double>(p.pitch),
      static_cast<double>(p.bands),        static_cast<double>(p.blocks),       static_cast<double>(p.block_chunks),
      static_cast<double>(p.shared_bytes), static_cast<double>(p.resident),     p.cycles};
  std::copy(std::begin(values), std::end(values), out);
});

// Bytes of the six sections of packed weights to "bytes".
static const Operator kSections("expand_depthwise_sections", [](Arguments& arguments, Launcher&) {
  const auto parse = [&](const char* name) { return parse_activation(arguments.text(name)); };
  const cuda::ExpandDepthwiseSections s = cuda::expand_depthwise_sections(
      arguments.dtype("dtype"), arguments.integer("c"), arguments.integer("m"), arguments.integer("kernel"),
      cuda::same_halving(parse("expand_activation"), parse("activation")));
  const int64_t bytes[] = {s.expand_weight, s.expand_bias, s.weight, s.bias, s.expand, s.taps};
  std::copy(std::begin(bytes), std::end(bytes), static_cast<int64_t*>(arguments.tensors.at("bytes").data));
});

}  // namespace effnet_fast::emulation
