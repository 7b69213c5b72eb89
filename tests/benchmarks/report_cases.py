"""What the tests of the report share: a small result file of every kind, and a reader of the page that knows
nothing of how it was made.
"""

from __future__ import annotations

from html.parser import HTMLParser
from pathlib import Path

from click.testing import CliRunner, Result

from benchmarks.commands import main
from benchmarks.results import Results, save
from tests.benchmarks.ladder_cases import LADDER, rows_of

ENVIRONMENT = {
    "device": "cpu", "cpu": "Some CPU", "cores": 2, "threads": 2, "isa": "avx2", "gpu": "",
    "libraries": {"torch": "2.11.0", "timm": ""}, "overrides": {}, "commit": "0123456789",
    "load_per_core": 0.1, "date": "2026-01-01",
}  # fmt: skip
LIMITS = {"copy_bytes_per_second": 4e10, "arithmetic": {"fma_macs": 1e9, "dot_macs": 2e9, "silu": 1e8}}


def times(milliseconds: float, batch: int) -> dict:
    return {
        "images_per_second": round(1e3 * batch / milliseconds, 3), "median_ms": milliseconds,
        "p20_ms": round(0.9 * milliseconds, 5), "p80_ms": round(1.2 * milliseconds, 5),
        "best_ms": round(0.8 * milliseconds, 5), "p99_ms": round(1.5 * milliseconds, 5), "spread": 0.3,
        "rounds": 5, "calls": 123, "error_usage": 0.412,
    }  # fmt: skip


def without(status: str, reason: str) -> dict:
    return {"status": status, "reason": reason}


PEERS = {
    "eager-nhwc": ("eager NHWC", "eager", 4.0),
    "compiled": ("torch.compile", "compiled", 2.5),
    "onnxruntime": ("ONNX Runtime", "runtime", 2.0),
    "some-new-peer": ("New", "runtime", 1.75),
    "engine": ("effnet_fast", "engine", 1.0),
}


def model_rows() -> list[dict]:
    """B0 to B2 at two batches and dtypes; one peer fails, one cannot run bfloat16."""
    rows = []
    for phi in (0, 1, 2):
        for batch in (1, 16):
            for dtype in ("float32", "bfloat16"):
                for peer, (label, group, factor) in PEERS.items():
                    row = {
                        "case": f"efficientnet_b{phi}/{224 + phi}/{batch}/{dtype}",
                        "model": f"efficientnet_b{phi}", "image_size": 224 + phi, "batch": batch,
                        "dtype": dtype, "gmacs": 0.4, "note": "", "phi": phi, "peer": peer, "label": label,
                        "group": group, "status": "ok", "reason": "",
                        "activation_mib": 3.25 * factor,
                    }  # fmt: skip
                    if peer == "onnxruntime" and dtype == "bfloat16":
                        rows.append(row | without("unavailable", "no bfloat16 here"))
                    elif peer == "compiled" and (phi, batch, dtype) == (1, 16, "float32"):
                        rows.append(row | without("FAIL", "error is 3 times") | {"error_usage": 3.0})
                    else:
                        rows.append(row | times(round((1.37 + phi) * factor * batch / 2, 5), batch))
    return rows


def latency_rows(batches: tuple[int, ...] = (1, 4)) -> list[dict]:
    rows = [row for row in model_rows() if row["phi"] == 0]
    rows = [row | {"batch": batches[row["batch"] > 1]} for row in rows]
    rows = [row | {"case": f"{row['case']}/{row['batch']}"} for row in rows]
    return [row | {"host_us": 12.5, "host_operators": 20} if row["peer"] == "engine" else row for row in rows]


def memory_rows() -> list[dict]:
    rows = []
    for batch in (1, 4):
        for peer, share in {"eager": 1.0, "three-kernel": 0.5, "engine": 0.25}.items():
            row = {
                "case": f"efficientnet_b0/224/{batch}/float32", "model": "efficientnet_b0", "image_size": 224,
                "batch": batch, "dtype": "float32", "peer": peer, "label": f"{peer}, measured",
                "status": "ok", "reason": "",
            }  # fmt: skip
            if (peer, batch) == ("eager", 4):
                rows.append(row | without("out of memory", "2 GiB"))
            else:
                rows.append(row | {"activation_bytes": int(share * batch * 2**23), "ratio": share})
    return rows


def operator_rows() -> list[dict]:
    rows = []
    for index, step in enumerate(("stem", "expand", "depthwise", "project")):
        for peer, group, factor in (("cpu", "ours", 1.0), ("eager", "stock", 3.0)):
            milliseconds = round(factor * (0.11 + 0.07 * index), 5)
            row = {
                "case": f"efficientnet_b0/{step}/1/float32", "model": "efficientnet_b0",
                "layer": f"layer.{step}", "step": step, "operator": f"{step}_conv", "shape": "8>8 @8x8",
                "layers": 2, "batch": 1, "dtype": "float32", "device": "cpu", "peer": peer,
                "label": "effnet_fast cpu" if group == "ours" else "eager NHWC", "group": group,
                "status": "ok", "reason": "", "gmacs": 0.002 * (index + 1), "megabytes": 0.5,
                "copy_gb_per_second": 40.0,
                "matrix_peak_gmacs": 130.0, "vector_peak_gmacs": 130.0, "bound": "arithmetic",
            }  # fmt: skip
            if (step, group) == ("project", "ours"):
                rows.append(row | without("FAIL", "error is 9 times what the contract allows"))
                continue
            rates = {"gb_per_second": 0.5 / milliseconds, "copy_share": 0.1, "of_roof": 0.2}
            rates["gmacs_per_second"] = round(1e3 * row["gmacs"] / milliseconds, 3)
            rows.append(row | times(milliseconds, 1) | rates)
    return rows


def block_rows(kind: str = "blocks") -> list[dict]:
    peers = {"blocks": ("eager", "three-kernels", "mbconv"), "fuse-blocks": ("eager", "fused")}[kind]
    rows = []
    for name in ("stages.1.0", "stages.2.0"):
        for place, peer in enumerate(peers):
            row = {
                "case": f"efficientnet_b0/{name}/1/float32", "model": "efficientnet_b0", "block": name,
                "shape": "8>48>8 k3 @8x8", "blocks": 2, "batch": 1, "dtype": "float32", "gmacs": 0.01,
                "peer": peer, "label": peer, "group": "ours" if place else "stock", "status": "ok",
                "reason": "", "ideal_ms": 0.05,
            }  # fmt: skip
            if (name, place) == ("stages.2.0", len(peers) - 1):
                rows.append(row | without("FAIL", "error is 2 times what the contract allows"))
            else:
                rows.append(row | times(round(0.93 / (place + 1), 5), 1) | {"of_peak": 0.5})
    return rows


def alone_rows() -> list[dict]:
    """A layer in two layouts of its input, slower fused in one of them."""
    rows = []
    for layout, fused in (("NCHW", 1.25), ("NHWC", 0.5)):
        for peer, milliseconds in {"eager": 1.0, "fused": fused}.items():
            row = {
                "case": f"3x3, 8 > 8 @8/1/float32/{layout}", "layer": "3x3, 8 > 8 @8", "batch": 1,
                "dtype": "float32", "layout": layout, "rule": "leave alone", "peer": peer, "label": peer,
                "group": "ours" if peer == "fused" else "eager", "status": "ok", "reason": "",
            }  # fmt: skip
            rows.append(row | times(milliseconds, 1))
    return rows


def profile_rows() -> list[dict]:
    named = {"model": "efficientnet_b0", "dtype": "float32", "batch": 4, "shape": "8>8", "passes": 1}
    return [
        named | {"step": "stem", "block": "stem", "group": "stem", "operator": "stem_conv",
                 "milliseconds": 1.23, "gmacs": 0.01, "ideal_ms": 0.6, "of_peak": 0.49},
        named | {"step": "host", "block": "host", "group": "host", "operator": "", "milliseconds": 0.321,
                 "gmacs": 0.0, "ideal_ms": None, "of_peak": None},
    ]  # fmt: skip


def fuse_rows() -> list[dict]:
    rows = [row for row in model_rows() if row["batch"] == 16 and row["peer"] in ("eager-nhwc", "engine")]
    return [row | {"peer": "fused", "group": "ours"} if row["peer"] == "engine" else row for row in rows]


def photo_rows() -> list[dict]:
    return [
        {"model": "lite0", "dtype": "float32", "photograph": "cat.png", "rank": 1, "label": "tabby",
         "probability": 0.875, "status": "ok", "stock_images_per_second": 50.5, "images_per_second": 101.25},
        {"model": "lite0", "dtype": "bfloat16", "photograph": "cat.png", "rank": 1, "label": "dog",
         "probability": 0.5, "status": "FAIL", "stock_images_per_second": 60.5, "images_per_second": None},
    ]  # fmt: skip


def compare_rows() -> list[dict]:
    """Two revisions, the second a fifth faster; one case that it fails."""
    rows = []
    for row in (row for row in model_rows() if row["peer"] == "engine" and row["dtype"] == "float32"):
        named = row | {"group": "engine", "label": "abc", "peer": "A"}
        rows.append(named)
        faster = named | {"label": "def", "peer": "B"} | times(round(row["median_ms"] / 1.2, 5), row["batch"])
        spread = {"p20_ms": 0.999 * faster["median_ms"], "p80_ms": 1.001 * faster["median_ms"]}
        rows.append(faster | spread)
        rows[-2] = named | {"p20_ms": 0.999 * named["median_ms"], "p80_ms": 1.001 * named["median_ms"]}
    failed = {name: value for name, value in rows[-1].items() if name not in times(1.0, 1)}
    return [*rows[:-1], failed | without("FAIL", "error is 4 times")]


ROWS = {
    "models": model_rows(),
    "latency": latency_rows(),
    "memory": memory_rows(),
    "operators": operator_rows(),
    "blocks": block_rows(),
    "ladder": rows_of(**LADDER),
    "profile": profile_rows(),
    "fuse": fuse_rows(),
    "fuse-blocks": block_rows("fuse-blocks"),
    "fuse-alone": alone_rows(),
    "compare": compare_rows(),
    "photos": photo_rows(),
    "never heard of": [{"anything": "a", "figure": 12.75}],
}


def write(folder: Path, kind: str, rows: list[dict] | None = None, **changes: object) -> Path:
    """A result file of `kind` in `folder`."""
    environment = ENVIRONMENT | {"limits": LIMITS}
    command = f"python -m benchmarks {kind} --some option"
    results = Results(kind, environment, {"rounds": 5}, command, ROWS[kind] if rows is None else rows)
    for name, value in changes.items():
        setattr(results, name, value)
    path = folder / f"{kind.replace(' ', '-')}.json"
    save(results, path)
    return path


VOID = {"meta", "link", "img", "br", "hr", "input"}


class Page(HTMLParser):
    """Tags with their attributes and ancestors, texts by the tag that they are in, and tables as lists."""

    def __init__(self, path: Path) -> None:
        super().__init__(convert_charrefs=True)
        self.text = path.read_text(encoding="utf-8")
        self.tags: list[tuple[str, dict[str, str | None], tuple[str, ...]]] = []
        self.said: list[tuple[str, str]] = []
        self.tables: list[list[list[str]]] = []
        self._open: list[str] = []
        self.feed(self.text)
        self.close()
        assert not self._open, f"never closed: {self._open}"

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        mark = f"{tag}.{given['class']}" if given.get("class") else tag
        self.tags.append((tag, given, tuple(self._open)))
        if tag == "table":
            self.tables.append([])
        elif tag == "tr":
            self.tables[-1].append([])
        elif tag in ("td", "th"):
            self.tables[-1][-1].append("")
        if tag not in VOID:
            self._open.append(mark)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs), tuple(self._open)))

    def handle_endtag(self, tag: str) -> None:
        assert self._open, f"closed but not open: {tag}"
        assert self._open.pop().split(".")[0] == tag

    def handle_data(self, data: str) -> None:
        inside = self._open[-1] if self._open else ""
        self.said.append((inside, data))
        if any(mark.split(".")[0] in ("td", "th") for mark in self._open):
            self.tables[-1][-1][-1] += data

    @property
    def words(self) -> str:
        """Everything that a reader sees, and the titles of the plots' parts; no style sheet."""
        return " ".join(data for inside, data in self.said if inside != "style")

    def table(self, *headings: str) -> list[dict[str, str]]:
        """Rows of the first table that has all of `headings`, by heading."""
        for first, *rows in self.tables:
            if set(headings) <= set(first):
                return [dict(zip(first, row, strict=True)) for row in rows]
        raise AssertionError(f"no table with {headings}")


def invoke(*arguments: object) -> Result:
    """The command, with these arguments."""
    return CliRunner().invoke(main, ["report", *map(str, arguments)])


def page_of(*files: Path, out: Path) -> Page:
    """The page that it makes of `files`."""
    done = invoke(*files, "--out", out)
    assert done.exit_code == 0, done.output
    return Page(out / "index.html")


def page_of_all(folder: Path) -> Page:
    """The page, in `folder`/page, of one file of each kind."""
    for kind in ROWS:
        write(folder / "device", kind)
    return page_of(folder / "device", out=folder / "page")
