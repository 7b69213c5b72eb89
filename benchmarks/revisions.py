"""Revisions of this repository side by side: worktrees, their native libraries, processes that time them."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from benchmarks.process import ERROR_TAIL, ROOT, PeerError

#: What the native libraries are made of.
SOURCES = ("csrc/common", "csrc/cpu", "csrc/cuda", "setup.py")

#: Stands for the working tree as it is, with its changes.
HERE = "."

WORKER = Path(__file__).with_name("revision_worker.py")


class RevisionError(ValueError):
    """A revision that cannot be measured; the message names it and the reason."""


def _git(root: Path, *arguments: str) -> subprocess.CompletedProcess:
    try:
        return subprocess.run(["git", "-C", str(root), *arguments], capture_output=True, text=True)
    except FileNotFoundError:
        raise RevisionError("revisions are compared with git, which is not installed") from None


def resolve(name: str, root: Path = ROOT) -> str:
    """The commit that `name` stands for, or `HERE`; RevisionError where git knows none."""
    if name == HERE:
        return HERE
    done = _git(root, "rev-parse", "--verify", "--quiet", "--end-of-options", f"{name}^{{commit}}")
    if done.returncode:
        raise RevisionError(f"{name!r} is neither a result file nor a revision that git knows in {root.name}")
    return done.stdout.strip()


@contextmanager
def checkouts(
    commits: Sequence[str], *, device: str, say: Callable[[str], None], root: Path = ROOT
) -> Iterator[dict[str, Path]]:
    """{commit: folder} with the package of each, ready to be imported, and removed at the end.

    Every commit gets a detached worktree of its own; `HERE` is the working tree itself. A worktree shares the
    native libraries of the working tree, or of another commit, where their sources are the same and the
    libraries are not older; else they are built in it, on a CPU without those of the GPU.

    Args:
        commits: of `resolve`.
        device: that is measured.
        say: told what takes time.
        root: of the repository.

    Raises:
        RevisionError: git makes no worktree, or a build fails.
    """
    trees: dict[str, Path] = {}
    with tempfile.TemporaryDirectory(prefix="effnet-fast-compare-") as folder:
        try:
            for commit in dict.fromkeys(commits):
                if commit == HERE:
                    trees[commit] = root
                    continue
                tree = Path(folder) / commit[:10]
                done = _git(root, "worktree", "add", "--detach", str(tree), commit)
                if done.returncode:
                    raise RevisionError(f"git made no worktree of {commit[:10]}: {_last_line(done.stderr)}")
                trees[commit] = tree
                _provide_libraries(trees, commit, device, say, root)
            yield trees
        finally:
            for commit, tree in trees.items():
                if commit != HERE:
                    _git(root, "worktree", "remove", "--force", str(tree))
            # Of a worktree that git could not remove the folder goes with `folder`; this forgets it.
            _git(root, "worktree", "prune")


def _provide_libraries(
    trees: dict[str, Path], commit: str, device: str, say: Callable[[str], None], root: Path
) -> None:
    tree = trees[commit]
    for other, place in {HERE: root, **trees}.items():
        if other != commit and same_sources(commit, other, root) and (found := built(place, device)):
            for library in found:
                (tree / "effnet_fast" / library.name).symlink_to(library)
            return
    say(f"building the native libraries of {commit[:10]}")
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")])  # ninja lies there
    environment = {**os.environ, "PATH": path}
    if device == "cpu":
        environment["EFFNET_FAST_SKIP_CUDA"] = "1"
    command = [sys.executable, "setup.py", "build_ext", "--inplace"]
    done = subprocess.run(
        command, cwd=tree, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    if done.returncode:
        raise RevisionError(
            f"the native libraries of {commit[:10]} cannot be built: {_last_line(done.stdout)}"
        )


def same_sources(commit: str, other: str, root: Path) -> bool:
    """Whether the native libraries of two commits, `other` perhaps `HERE`, are made of the same files."""
    if other != HERE:
        return _git(root, "diff", "--quiet", commit, other, "--", *SOURCES).returncode == 0
    untracked = _git(root, "ls-files", "--others", "--exclude-standard", "--", *SOURCES).stdout.strip()
    return not untracked and _git(root, "diff", "--quiet", commit, "--", *SOURCES).returncode == 0


def built(tree: Path, device: str) -> list[Path]:
    """The native libraries in `tree`; none where that of `device` is missing or older than a source."""
    found = sorted((tree / "effnet_fast").glob("_C_*.so"))
    needed = [path for path in found if path.name.startswith(f"_C_{device}.")]
    files = [file for name in SOURCES for file in (tree / name, *(tree / name).rglob("*"))]
    newest = max((file.stat().st_mtime for file in files if file.is_file()), default=0.0)
    return found if needed and all(path.stat().st_mtime >= newest for path in needed) else []


def _last_line(text: str) -> str:
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    errors = [line for line in lines if "error" in line.lower()]
    return (errors or lines or ["it said nothing"])[-1][:ERROR_TAIL]


class RevisionProcess:
    """The engine of the package in `tree`, timed by a process that forks for every sample.

    `request` is the case (see benchmarks/revision_worker.py); set it before `sample`.
    """

    def __init__(self, tree: Path, *, threads: int, device: str, folder: Path, name: str) -> None:
        self.request: dict[str, object] = {}
        self.logits = folder / f"logits-{name}.pt"
        self._errors = folder / f"errors-{name}.txt"
        counts = {"OMP_NUM_THREADS": str(threads), "MKL_NUM_THREADS": str(threads)}
        environment = {**os.environ, **counts}
        for variable in ("TRITON_INTERPRET", "PYTHONSAFEPATH", "PYTHONPATH"):
            environment.pop(variable, None)
        with self._errors.open("wb") as errors:
            self._process = subprocess.Popen(
                [sys.executable, str(WORKER), str(tree), str(threads), device],
                cwd=folder,
                env=environment,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
                text=True,
                start_new_session=True,
            )
        package = Path(self._reply()["package"]).resolve()
        if not package.is_relative_to(tree.resolve()):
            self.close()
            raise PeerError(f"the package was imported from {package}, not from the revision's own tree")

    def sample(self, min_seconds: float) -> list[float]:
        """Seconds of each call in a fresh process; PeerError where it fails or dies."""
        request = {**self.request, "logits": str(self.logits), "min_seconds": min_seconds}
        with suppress(BrokenPipeError):
            self._process.stdin.write(json.dumps(request) + "\n")
            self._process.stdin.flush()
        return self._reply()["seconds"]

    def _reply(self) -> dict:
        line = self._process.stdout.readline()
        if not line:
            code = self._process.wait()
            tail = " ".join(self._errors.read_text(errors="replace")[-ERROR_TAIL:].split())
            raise PeerError(f"its process ended (status {code}): {tail}")
        reply = json.loads(line)
        if not reply["ok"]:
            raise PeerError(reply["error"])
        return reply

    def close(self) -> None:
        """End the process, at once if it is in the middle of something."""
        with suppress(BrokenPipeError):
            self._process.stdin.close()
        try:
            self._process.wait(timeout=1.0)
        except subprocess.TimeoutExpired:
            os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()
        self._process.stdout.close()
