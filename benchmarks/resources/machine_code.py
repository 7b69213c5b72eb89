"""Machine code as the disassembler prints it: instructions, loops, and what one turn of a loop costs."""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass
from functools import cached_property

_FUNCTION = re.compile(r"^\s+Function : (\S+)")
_INSTRUCTION = re.compile(r"^\s+/\*([0-9a-f]{4,})\*/\s+(?:@!?U?P\w+ )?([A-Z][A-Z0-9_.]*)(.*?);")
_TARGET = re.compile(r"0x[0-9a-f]+")
_RESOURCES = re.compile(r"Function (\S+):\n\s+REG:(\d+) STACK:(\d+) SHARED:(\d+) LOCAL:(\d+)")

#: Of the multiply-adds of the loop that has most: what encloses the hot loop has hardly more.
HOT_SHARE = 0.9


@dataclass(frozen=True)
class Instruction:
    """`name` with its suffixes (LDG.E.128); `target` of a branch, else None."""

    address: int
    name: str
    target: int | None

    @property
    def family(self) -> str:
        return self.name.partition(".")[0]


@dataclass(frozen=True)
class Code:
    """A stretch of instructions: a function, or a loop in one."""

    instructions: tuple[Instruction, ...]

    def __len__(self) -> int:
        return len(self.instructions)

    @cached_property
    def families(self) -> Counter[str]:
        return Counter(instruction.family for instruction in self.instructions)

    @property
    def multiply_adds(self) -> int:
        return self.families["FFMA"] + 2 * self.families["FFMA2"]

    @property
    def special(self) -> dict[str, int]:
        """MUFU.TANH and the like with their numbers."""
        names = (".".join(i.name.split(".")[:2]) for i in self.instructions if i.family == "MUFU")
        return dict(sorted(Counter(names).items()))

    @property
    def matrix(self) -> dict[str, int]:
        return {name: n for name, n in sorted(self.families.items()) if name.endswith("MMA")}

    @property
    def rounds_to_tf32(self) -> bool:
        return any("TF32" in i.name for i in self.instructions)

    def accesses(self, *families: str) -> tuple[int, int]:
        """How many, and how many of those move 16 bytes a thread."""
        names = [i.name for i in self.instructions if i.family in families]
        return len(names), sum(".128" in name for name in names)

    def before(self, family: str) -> Code:
        """What is placed before the first instruction of `family`; nothing where there is none."""
        places = [i.address for i in self.instructions if i.family == family]
        return Code(tuple(i for i in self.instructions if places and i.address < places[0]))

    def between(self, first: int, last: int) -> Code:
        return Code(tuple(i for i in self.instructions if first <= i.address <= last))

    def loops(self) -> list[Code]:
        """What lies between a branch backwards and its target. A branch to itself only ends a function."""
        return [
            self.between(i.target, i.address)
            for i in self.instructions
            if i.target is not None and i.target < i.address
        ]

    def hot_loop(self) -> Code | None:
        """The smallest loop with nearly as many multiply-adds as any."""
        loops = self.loops()
        most = max((loop.multiply_adds for loop in loops), default=0)
        busy = [loop for loop in loops if loop.multiply_adds >= max(1, HOT_SHARE * most)]
        return min(busy, key=len, default=None)

    def innermost_loops(self) -> list[Code]:
        """Those with no other loop inside."""
        spans = {(loop.instructions[0].address, loop.instructions[-1].address) for loop in self.loops()}

        def has_another(first: int, last: int) -> bool:
            return any(first <= a and b <= last and (a, b) != (first, last) for a, b in spans)

        return [self.between(*span) for span in sorted(spans) if not has_another(*span)]

    def copy_loops(self) -> list[Code]:
        """The loops inside this one that do nothing but copy to shared memory."""
        inner = [loop for loop in self.loops() if len(loop) < len(self)]
        return [loop for loop in inner if loop.families["LDGSTS"] and not loop.multiply_adds]


def read_functions(text: str) -> dict[str, Code]:
    """Mangled name -> code, of ``cuobjdump -sass``."""
    found: dict[str, list[Instruction]] = {}
    current: list[Instruction] = []
    for line in text.splitlines():
        if function := _FUNCTION.match(line):
            current = found.setdefault(function[1], [])
        elif parts := _INSTRUCTION.match(line):
            branch = _TARGET.search(parts[3]) if parts[2].startswith("BRA") else None
            current.append(Instruction(int(parts[1], 16), parts[2], int(branch[0], 16) if branch else None))
    return {name: Code(tuple(instructions)) for name, instructions in found.items()}


@dataclass(frozen=True)
class Resources:
    """`spilled_bytes`: of a thread in local memory. `shared_bytes`: static, of a block."""

    registers: int
    spilled_bytes: int
    shared_bytes: int


def read_resources(text: str) -> dict[str, Resources]:
    """Mangled name -> resources, of ``cuobjdump -res-usage``."""
    return {
        name: Resources(int(registers), int(stack) + int(local), int(shared))
        for name, registers, stack, shared, local in _RESOURCES.findall(text)
    }


def issue_slots(loop: Code, outputs: int, copies: float) -> float:
    """Instructions that a thread issues for one output.

    Args:
        loop: that makes `outputs` in a turn.
        copies: of 16 bytes into shared memory, for an output. Its loops are entered as often as a block's
            threads need to share them, so their cost is counted by the copy.
    """
    inner = loop.copy_loops()
    own = len(loop) - sum(map(len, inner))
    copied = sum(part.families["LDGSTS"] for part in inner)
    return own / outputs + (copies * sum(map(len, inner)) / copied if copied else 0.0)


def kernel_name(text: str) -> str:
    """A kernel's own part of a demangled name: ``void a::name<a::Traits<a::half, 3> >(a::Args<...>)`` gives
    ``name<Traits<half, 3>>``. The name may be a template argument, as in ``Name<&(void a::name<...>(...))>``.
    """
    text = re.sub(r"\b(?:\w+::)+", "", text.rpartition("&(")[2]).removeprefix("void ")
    depth = 0
    for at, character in enumerate(text):
        depth += {"<": 1, ">": -1}.get(character, 0)
        if character == "(" and depth == 0:
            text = text[:at]
            break
    return text.replace("> >", ">>")
