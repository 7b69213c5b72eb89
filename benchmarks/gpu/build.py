"""The kernels, compiled for the GPU that is here, by the Python and the PyTorch that run this."""

from __future__ import annotations

from benchmarks.gpu.steps import PASSED, Failed, NotRun, Outcome, Step, Workspace, last_line


def _build(space: Workspace) -> Outcome:
    done = space.python(
        "build", "setup.py", "build_ext", "--inplace", TORCH_CUDA_ARCH_LIST=space.machine.capability
    )
    if done.timed_out:
        raise Failed(f"not built within {space.limit_seconds:.0f} s; see {done.log.name}")
    if done.status != 0:
        errors = [line for line in done.output.splitlines() if "error" in line.lower()]
        raise Failed(f"{errors[0] if errors else last_line(done)}; see {done.log.name}")
    if space.machine.missing:
        raise NotRun(f"the GPU kernels in C++ are not built; missing: {space.machine.missing}")
    loaded = space.python(
        "build-loaded", "-c", "from effnet_fast import native; print(native.reason('cuda'))"
    )
    if loaded.status != 0 or loaded.output.strip():
        raise Failed(f"built, but not in use: {last_line(loaded)}")
    return Outcome("build", PASSED, f"native {space.machine.architecture}, with {space.machine.toolkit}")


BUILD = Step("build", "compiles the kernels for this GPU", 450.0, _build)
