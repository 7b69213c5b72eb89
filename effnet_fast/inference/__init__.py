"""From a trained model to an engine: fold, pack, plan, allocate, run."""

from effnet_fast.inference.block_forms import BlockForm
from effnet_fast.inference.capacity import EngineMemoryError
from effnet_fast.inference.engine import InferenceEngine
from effnet_fast.inference.folding import FoldedNetwork, fold
from effnet_fast.inference.layers import network_layers
from effnet_fast.inference.limits import CpuLimits
from effnet_fast.inference.planner import Plan, plan_network
from effnet_fast.inference.report import MemoryReport
from effnet_fast.inference.storage import EngineFileError
from effnet_fast.inference.stream import Stream

__all__ = [
    "BlockForm",
    "CpuLimits",
    "EngineFileError",
    "EngineMemoryError",
    "FoldedNetwork",
    "InferenceEngine",
    "MemoryReport",
    "Plan",
    "Stream",
    "fold",
    "network_layers",
    "plan_network",
]
