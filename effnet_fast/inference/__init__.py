"""From a trained model to an engine: fold, pack, plan, allocate, run."""

from effnet_fast.inference.engine import InferenceEngine
from effnet_fast.inference.folding import FoldedNetwork, fold
from effnet_fast.inference.layers import network_layers
from effnet_fast.inference.limits import CpuLimits
from effnet_fast.inference.planner import Plan, plan_network
from effnet_fast.inference.report import MemoryReport

__all__ = [
    "CpuLimits",
    "FoldedNetwork",
    "InferenceEngine",
    "MemoryReport",
    "Plan",
    "fold",
    "network_layers",
    "plan_network",
]
