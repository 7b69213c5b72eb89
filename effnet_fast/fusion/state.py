"""What a fused module carries: its block as it was read, and the program that stands for it.

Each call asks whether that is still true, and otherwise reads or packs again, or declines: then the modules
run as they are, which is always right.
"""

from __future__ import annotations

import logging
import secrets
import weakref
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensor
from torch.autograd import forward_ad
from torch.nn.modules import module as torch_module
from torch.utils._device import DeviceContext

from effnet_fast.backends import Backend
from effnet_fast.fusion.dtypes import STORAGE, result_dtype, storage_dtype
from effnet_fast.fusion.geometry import SMALL, block_output_size, fits
from effnet_fast.fusion.program import Program, bind, runs_native
from effnet_fast.fusion.reading import Packed, Reading
from effnet_fast.fusion.sources import key_of, kinds_of, with_tensors
from effnet_fast.fusion.spec import Block

__all__ = ["State", "states", "tell"]

_logger = logging.getLogger("effnet_fast")
_told: set[str] = set()

# A number of this process -> the state that it stands for, for what compilers trace.
states: weakref.WeakValueDictionary[int, State] = weakref.WeakValueDictionary()


class State:
    """Of the fused module `owner`, which holds it; a copy of the module gets a state of its own.

    Args:
        owner: the fused module.
        read: makes a `Block` of it, or raises Unsupported.
        backend: as in `effnet_fast.ops`.
        watched: all modules that the block has parts of, where they are not inside of the owner. Hooks on the
            owner itself are run by its call, as ever; not so here, where its output is not its own any more.
    """

    def __init__(
        self,
        owner: nn.Module,
        read: Callable[[nn.Module], Block],
        backend: str | Backend,
        watched: Sequence[nn.Module] = (),
    ):
        self.backend = backend
        self.number = secrets.randbits(62)
        states[self.number] = self
        self._owner = weakref.ref(owner)
        self._reader = read
        self._roots = tuple(watched)
        self._reading: Reading | None = None

    @property
    def block(self) -> Block | None:
        """What the owner computes, as it was read last; None where it is not understood."""
        return None if self._reading is None else self._reading.block

    @property
    def reason(self) -> str:
        """Why there is no block, where there is none."""
        return "" if self._reading is None else self._reading.reason

    def read(self) -> Block | None:
        """Look at the owner again; None, with the `reason`, where it is not understood any more."""
        owner = self._owner()
        self._reading = Reading(owner, self._reader, self._roots or (owner,))
        return self._reading.block

    def run(self, owner: nn.Module, x: object) -> Tensor | None:
        """`owner(x)` by its program, None where its own modules must compute it."""
        if type(x) is not Tensor or x.dim() != 4 or self._owner() is not owner or not _is_plain():
            return None
        reading = self._current()
        if reading is None or not fits(reading.block, *x.shape[1:]):
            return None
        tensors = reading.tensors()
        weight = tensors[0]
        if weight is None:
            return None
        if torch.is_grad_enabled() and (
            x.requires_grad or any(t is not None and t.requires_grad for t in tensors)
        ):
            tell(
                "gradients are enabled, so fused modules run unfused: call the model under "
                "torch.inference_mode() or torch.no_grad()"
            )
            return None
        dtype = storage_dtype(x, weight)
        if dtype is None or x.device != weight.device:
            return None
        given = result_dtype(reading.block, dtype, x.dtype)
        program = None if given is None else self._program(reading, tensors, dtype, x.device)
        return None if program is None else program(x.to(dtype)).to(given)

    def forget(self) -> None:
        """Forget the packed weights."""
        self._reading = None

    def pack(self) -> Program | None:
        """The program for the weights' own dtype and device, packed anew; None where there is none."""
        if self.read() is None:
            return None
        tensors = self._reading.tensors()
        return self._program(self._reading, tensors, tensors[0].dtype, tensors[0].device)

    # What compilers ask while they trace.

    def names(self) -> tuple[str, ...]:
        """Names of the owner's tensors that its weights are made of; none where it must run unfused."""
        # An exporter has put fake tensors in the place of the module's: no time to read it.
        exporting = torch.compiler.is_exporting()
        reading = self._current(may_read=not exporting) if _no_global_hooks() else None
        if reading is not None and not exporting and kinds_of(reading.tensors()) != reading.kinds:
            self.read()
            reading = self._current()
        if reading is None:
            return ()
        owner = self._owner()
        names = {id(tensor): name for name, tensor in (*owner.named_parameters(), *owner.named_buffers())}
        return tuple(names[id(tensor)] for tensor in reading.tensors() if tensor is not None)

    def result_dtype(
        self, channels: int, maps: torch.dtype, given: torch.dtype, device_type: str
    ) -> torch.dtype | None:
        """The dtype of the result for such an input and maps; None where no operators of ours take it."""
        block = self.block
        if not (fits(block, channels, SMALL, SMALL) and runs_native(block, maps, device_type, self.backend)):
            return None
        return result_dtype(block, maps, given)

    def exported(self, dtype: torch.dtype) -> Program | None:
        """The program for maps of `dtype`, if it was made before and is up to date.

        torch.export puts fake tensors in the place of the module's: nothing can be packed then.
        """
        reading = self._reading
        held = None if reading is None else reading.programs.get(dtype)
        if held is None or held.key != key_of(held.tensors, reading.norms):
            return None
        now = reading.tensors()
        same = all(_stands_for(tensor, source) for tensor, source in zip(now, held.tensors, strict=True))
        return held.program if same else None

    def output_shape(self, height: int, width: int) -> tuple[int, int, int]:
        """Channels, height and width of the output."""
        return self.block.out_channels, *block_output_size(self.block, height, width)

    def run_with(self, x: Tensor, sources: list[Tensor]) -> Tensor:
        """The output for an x in its storage dtype, with `sources` in the order of `names`."""
        if self._reading is None:
            self.read()
        reading, program = self._reading, None
        if len(sources) == sum(kind is not None for kind in reading.kinds):
            given = iter(sources)
            tensors = [None if kind is None else next(given) for kind in reading.kinds]
            program = self._program(reading, tensors, x.dtype, x.device, own=False)
        if program is None:
            raise RuntimeError(
                "the modules of a fused block were exchanged after it was compiled: torch.compile it again"
            )
        return program(x)

    def _program(
        self,
        reading: Reading,
        tensors: list[Tensor | None],
        dtype: torch.dtype,
        device: torch.device,
        own: bool = True,
    ) -> Program | None:
        """The program for weights made of `tensors`, packed if it is not the one that was made last.

        `own` tells that the modules hold these tensors now; a compiled function may pass others.
        """
        key = key_of(tensors, reading.norms)
        held = reading.programs.get(dtype)
        if key is not None and held is not None and held.key == key:
            return held.program
        if kinds_of(tensors) != reading.kinds:
            self._reading = None
            return None
        if dtype not in STORAGE or any(tensor is not None and tensor.device != device for tensor in tensors):
            return None
        if key is None:
            tell(
                "fused modules with parameters made under torch.inference_mode() run unfused: writing to "
                "such tensors leaves no trace; make the model outside of it"
            )
            if own:
                return None
        block = reading.block if own else with_tensors(reading.block, tensors)
        program = bind(block, dtype, device, self.backend)
        if key is not None:
            reading.keep(Packed(key, tensors, program), dtype)
        return program

    def _current(self, may_read: bool = True) -> Reading | None:
        """How the owner was read, if that still holds or it could be read again.

        None where its modules train, have hooks inside, or compute what is not known.
        """
        reading = self._reading
        seen = None if reading is None else reading.look(None if self._roots else self._owner())
        if seen is None and may_read:
            self.read()
            return self._current(may_read=False)
        return reading if seen and reading.block is not None else None


def _stands_for(tensor: Tensor | None, source: Tensor | None) -> bool:
    """Whether `tensor` is `source`, or the fake tensor that was made of it."""
    if not isinstance(tensor, FakeTensor) or source is None:
        return tensor is source
    return tensor.fake_mode.fake_tensor_converter._get_memo(source) is tensor


def _is_plain() -> bool:
    """Nothing looks at the modules' own operators: no tracer, transform or mode, and no global hook."""
    return _no_global_hooks() and not (
        torch._C._get_tracing_state()
        or torch._C._functorch.peek_interpreter_stack() is not None
        or torch._C._len_torch_dispatch_stack()
        or forward_ad._current_level >= 0
        or _function_mode()
    )


def _function_mode() -> bool:
    """Whether a mode sees every function called; a default device, which is one, sees nothing of ours."""
    at = torch._C._get_function_stack_at
    return any(type(at(i)) is not DeviceContext for i in range(torch._C._len_torch_function_stack()))


def _no_global_hooks() -> bool:
    return not (torch_module._global_forward_hooks or torch_module._global_forward_pre_hooks)


def tell(message: str) -> None:
    """Log a warning, once."""
    if message not in _told:
        _told.add(message)
        _logger.warning(message)
