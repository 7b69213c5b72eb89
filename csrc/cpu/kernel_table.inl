// Every kernel of one instruction set and the table that names them. Included once per isa_*.cpp, inside the
// namespace of that instruction set, after its vec_*.h.

#include "math.h"
#include "matrix.h"
#include "matrix_unit.h"
#include "output_tile.h"
#include "pointwise_conv.h"
#include "head_pool.h"
#include "conv.h"
#include "depthwise_conv.h"
#include "expand_depthwise.h"
#include "squeeze_excite_gate.h"
#include "mbconv.h"
#include "fused_mbconv.h"
#include "peak.h"

static const KernelTable kTable = {
    EFFNET_FAST_ISA_NAME, Vec::kWidth, kHasBf16Pairs, kHalvesWeights, split_columns,
    pointwise_conv,       head_pool,   conv,          depthwise_conv, expand_depthwise,
    squeeze_excite_gate,  mbconv,      fused_mbconv,  peak,
};
