"""An engine on paper: the forms of its blocks, the operators that run, the memory that they take.

`InferenceEngine` is built from it; `effnet_fast.scaling` asks it what networks that are not built would take.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch

from effnet_fast import backends as backend_choice
from effnet_fast.backends import Backend
from effnet_fast.inference.block_forms import BlockForm, Forms, possible_forms, whole_operator
from effnet_fast.inference.cost import choose_fused_blocks
from effnet_fast.inference.folding import FoldedNetwork
from effnet_fast.inference.gpu_cost import choose_block_forms
from effnet_fast.inference.layers import Layer, network_layers
from effnet_fast.inference.limits import CpuLimits
from effnet_fast.inference.packing import packed_bytes
from effnet_fast.inference.planner import Plan, plan_network
from effnet_fast.inference.stem_form import choose_stem_form, has_stem_kernel
from effnet_fast.inference.tuned_plans import tuned_plan
from effnet_fast.measure.ceilings import measure_ceilings
from effnet_fast.measure.gpu_rates import measured_rates

__all__ = ["Draft", "choose_forms", "draft"]


@dataclass(frozen=True)
class Draft:
    """What an engine for one network, image size, dtype and device will do.

    Attributes:
        layers: its operators, in order.
        forms: of its blocks, as `network_layers` takes them.
        dtype, image_dtype: of maps and images.
        device: where it runs.
        weight_bytes: of its weights; packing adds padding, a few per cent.
    """

    layers: tuple[Layer, ...]
    forms: Forms
    dtype: torch.dtype
    image_dtype: torch.dtype
    device: torch.device
    weight_bytes: int

    def plan(self, batch: int) -> Plan:
        """Passes and memory for up to `batch` images, for this machine's caches and threads."""
        limits = CpuLimits.detect() if self.device.type == "cpu" else None
        return plan_network(
            self.layers,
            batch=batch,
            dtype=self.dtype,
            image_dtype=self.image_dtype,
            threads=limits.threads if limits else 1,
            # The rule is about the caches of a CPU; elsewhere a whole batch fills the device better.
            budget_bytes=limits.budget_bytes if limits else None,
        )

    def needed_bytes(self, batch: int) -> int:
        """Activations, scratch memory of kernels and weights of an engine for `batch` images."""
        plan = self.plan(batch)
        return plan.arena_bytes + plan.scratch_bytes + self.weight_bytes


def draft(
    network: FoldedNetwork,
    image_size: tuple[int, int],
    *,
    batch: int,
    dtype: torch.dtype,
    image_dtype: torch.dtype,
    device: torch.device,
    backend: str | Backend = "auto",
    forms: Forms | None = None,
) -> Draft:
    """The draft of an engine; `network` may be on the meta device.

    `forms` are those of its blocks; None for `choose_forms`.

    Raises: RuntimeError for a backend asked for by name that cannot serve.
    """
    if forms is None:
        forms = choose_forms(
            network,
            image_size,
            batch=batch,
            dtype=dtype,
            image_dtype=image_dtype,
            device=device,
            backend=backend,
        )
    return Draft(
        layers=network_layers(network, image_size, forms=forms),
        forms=forms,
        dtype=dtype,
        image_dtype=image_dtype,
        device=device,
        weight_bytes=packed_bytes(network, dtype, forms=forms),
    )


def choose_forms(
    network: FoldedNetwork,
    image_size: tuple[int, int],
    *,
    batch: int,
    dtype: torch.dtype,
    image_dtype: torch.dtype,
    device: torch.device,
    backend: str | Backend = "auto",
) -> Mapping[str, BlockForm]:
    """The form of every MBConv and FusedMBConv block, by its name, of those that the backend has kernels for.

    One kernel for a whole block is taken wherever there is one: only the block's input and output pass
    through memory. Of the other two forms the cost model chooses, from ceilings that are measured once in a
    process; on a GPU what was measured of such blocks goes before it, see `tuned_plan`. Arguments as in
    `draft`.

    Raises: RuntimeError for a backend asked for by name that cannot serve. TunedPlanError, a ValueError, for
        a file of measured blocks that cannot be used.
    """

    def has_kernel(operator: str) -> bool:
        # A composition writes to memory what it should not, so only a kernel is worth it.
        chosen = backend_choice.resolve(operator, backend, device_type=device.type, dtype=dtype)
        return chosen is not Backend.REFERENCE and backend_choice.has_kernel(f"{operator}_into", chosen)

    possible = {block.name: possible_forms(block) for block in network.blocks}
    forms = {name: BlockForm.THREE_KERNELS for name, allowed in possible.items() if allowed}
    for block in network.blocks:
        if BlockForm.WHOLE in possible[block.name] and has_kernel(whole_operator(block)):
            forms[block.name] = BlockForm.WHOLE
    undecided = {
        name
        for name, form in forms.items()
        if form is BlockForm.THREE_KERNELS and BlockForm.EXPANSION_FUSED in possible[name]
    }
    if device.type == "cuda" and has_stem_kernel(network, dtype) and has_kernel("stem_block"):
        rates = measured_rates(device, dtype)
        stem = choose_stem_form(
            network, image_size, images=batch, dtype=dtype, image_dtype=image_dtype, rates=rates
        )
        if stem.together:
            forms[network.blocks[0].name] = BlockForm.WITH_STEM
    if undecided and has_kernel("expand_depthwise"):
        shapes = {"dtype": dtype, "image_dtype": image_dtype}
        if device.type == "cuda":
            rates = measured_rates(device, dtype)
            tuned = tuned_plan(rates.name)
            choices = choose_block_forms(
                network, image_size, images=batch, rates=rates, tuned=tuned, **shapes
            )
            return forms | {name: choices[name].form for name in undecided}
        # On a CPU neither batch size nor threads count: engines that differ in them give the same bits.
        ceilings = measure_ceilings(device, dtype)
        fused = choose_fused_blocks(network, image_size, images=1, ceilings=ceilings, **shapes)
        forms |= dict.fromkeys(undecided & fused, BlockForm.EXPANSION_FUSED)
    return forms
