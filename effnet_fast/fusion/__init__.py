"""Drop-in fusion for models of timm, torchvision and efficientnet_pytorch: `effnet_fast.fuse`."""

from effnet_fast.fusion.fuse import fuse, repack, unfuse
from effnet_fast.fusion.report import FusionReport, FusionRow, fusion_report

__all__ = ["FusionReport", "FusionRow", "fuse", "fusion_report", "repack", "unfuse"]
