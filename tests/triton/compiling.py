"""Compiling in a process of its own: that of the tests may interpret kernels, and the two do not mix."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from typing import Any

_CODE = """
import json, sys
from dataclasses import asdict
from benchmarks.resources.keys import devices
from effnet_fast.triton_kernels import offline

answers = []
for device, record in json.load(sys.stdin):
    compiled = offline.compile_key(offline.Key.from_record(record), devices()[device])
    answers.append({**asdict(offline.facts(compiled)), "ptx": compiled.asm.get("ptx", "")})
json.dump({"versions": offline.versions(), "answers": answers}, sys.stdout)
"""


def compile_records(questions: Sequence[tuple[str, dict[str, Any]]]) -> dict[str, Any]:
    """Facts and PTX of (device, key record) pairs, and the compilers' versions."""
    environment = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    done = subprocess.run(
        [sys.executable, "-c", _CODE],
        input=json.dumps(list(questions)), env=environment, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)
