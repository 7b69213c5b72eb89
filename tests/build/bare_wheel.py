"""Proves a wheel: installs it in a bare environment without a compiler and classifies a photograph there.

``python -m tests.build.bare_wheel WHEEL`` (what ``make wheel`` runs). The environment gets the wheel and the
wheel's own dependencies only; PyTorch and the other packages are those of the environment that runs this, by
a path file, so that 5 GB are not installed twice.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import venv
import zipfile
from pathlib import Path

import skimage

from effnet_fast.models import lite0_weights_path

# No compiler may be found: these are all the commands the environment sees.
_COMMANDS = ("env", "sh", "uname")


def main() -> int:
    wheel = Path(sys.argv[1]).resolve()
    names = zipfile.ZipFile(wheel).namelist()
    assert any(n.startswith("effnet_fast/_C_cpu") for n in names), f"{wheel.name} holds no native library"
    assert "-abi3-" in wheel.name, f"{wheel.name} is bound to one Python version"
    photograph = Path(skimage.__file__).parent / "data" / "chelsea.png"
    site = next(p for p in map(Path, sys.path) if p.name == "site-packages")
    with tempfile.TemporaryDirectory() as folder:
        venv.create(folder, with_pip=False)
        bare = Path(folder)
        target = next(bare.glob("lib/python*/site-packages"))
        zipfile.ZipFile(wheel).extractall(target)
        # Only packages, not the editable installation's own path file.
        (target / "dependencies.pth").write_text(f"{site}\n")
        tools = bare / "tools"
        tools.mkdir()
        for command in _COMMANDS:
            for place in ("/usr/bin", "/bin"):
                if (Path(place) / command).exists() and not (tools / command).exists():
                    (tools / command).symlink_to(Path(place) / command)
        environment = {"PATH": str(tools), "HOME": folder, "OMP_NUM_THREADS": str(os.cpu_count() or 1)}
        program = (
            "import effnet_fast, sys; from pathlib import Path; "
            f"assert Path(effnet_fast.__file__).is_relative_to({str(bare)!r}), effnet_fast.__file__; "
            "assert effnet_fast.native.available('cpu'), effnet_fast.native.reason('cpu'); "
            "from effnet_fast.cli import main; main()"
        )
        run = subprocess.run(
            [bare / "bin" / "python", "-I", "-c", program, "classify", str(photograph), "--weights",
             str(lite0_weights_path())],
            env=environment, cwd=folder, capture_output=True, text=True,
        )  # fmt: skip
    sys.stdout.write(run.stdout + run.stderr)
    if run.returncode or "cat" not in run.stdout:
        sys.stdout.write(f"{wheel.name}: FAILED, the photograph of a cat was not classified as one\n")
        return 1
    sys.stdout.write(f"{wheel.name}: installs without a compiler and classifies a photograph\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
