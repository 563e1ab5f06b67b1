# SPDX-License-Identifier: Apache-2.0
"""docs/gpu.md, from the results of the check."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from gpu_check.extent import FULL
from gpu_check.parts import check_parts

_NOTE = "<!-- Written by `make gpu-check` from gpu.json: change tools/gpu_check/page.py. -->"

_INTRODUCTION = """\
# On a GPU

`make gpu-check` measures this package on a GPU: one command, at most eight minutes, no network. It
needs torch, transformers and this package's other requirements, no ROS and no checkpoint: the 4B
architecture gets random weights. Without `make`, from the root of the repository:

```
PYTHONPATH=.:tools python3 -m gpu_check --out out/gpu
```

| part | what is measured | at most |
|---|---|---|
{parts}

vlm3-tiny and the 4B architecture are compared, {compared} questions each. A part that fails, or
runs out of time or memory, is recorded with its reason, and the others go on. The results are
`out/gpu/gpu.json` and this page, `out/gpu/gpu.md`; what a part printed is in `out/gpu/PART.log`.
The exit status is 1 if a part failed or answers in float32 differ.

`--tiny` runs every part on a CPU in about a minute, with a small model and a few questions. It
shows that the check works; its figures mean nothing.
"""

_MEASURED = {
    "machine": "names and versions; speed of a copy and of a matrix product",
    "float32": "free and forced answers against stock `generate`, TF32 off: all must be equal",
    "bfloat16": "the same in bfloat16, where rounding changes answers: the share of equal ones",
    "bench": "time and peak memory of a frame at the 4B shape in bfloat16, grids of {grids}, asked "
    "in the wording `{wording}`",
    "training-tiny": "samples per second of training vlm3-tiny by its recipe, without warm-ups",
    "training-lora": "the same for adapters on the 4B shape, by the paper's recipe for depth",
}

_UNTRIED = """\
## Results

**There are none yet: no GPU could be had.** Every CUDA path of this package is untried. The check
itself has only run in its tiny form on a CPU, which a test repeats.

If you have a GPU, please run the check, copy `gpu.json` and `gpu.md` from `out/gpu` to `docs`, and
send them as a pull request or in an issue, with the logs if a part failed.
"""

_TRIAL = """\
**This is a trial on a CPU with a small model, not a measurement.** It only shows that the check
works.
"""

_RANDOM = """\
The weights are random: answers are noise of the right cost. *engine-forced*, the default, follows
all likely numbers and so gives standard deviations; *engine* decodes free text; *packed* puts ten
questions behind one image; *naive* is one `generate` per question.
"""


def gpu_page(result: dict[str, Any] | None) -> str:
    """Return the text of docs/gpu.md.

    Args:
        result: content of gpu.json; None if there is none.
    """
    introduction = _INTRODUCTION.format(parts=_parts(), compared=FULL.compared)
    if result is None:
        return "\n".join([_NOTE, "", introduction, _UNTRIED])
    parts = result["parts"]
    rows = {name: _rows(parts, name) for name in ("machine", "float32", "bfloat16")}
    blocks = [_NOTE, "", introduction, "## Results", ""]
    blocks += [_TRIAL] if result["is_tiny"] else []
    blocks += [f"{_machine(rows['machine'])} All parts took {result['seconds']:.0f} s.", ""]
    if failures := [(part["name"], part["failure"]) for part in parts if part["failure"]]:
        blocks += [_table(("part that ended early", "reason"), failures), ""]
    compared = [
        (
            row["model"],
            row["dtype"],
            row["answers"],
            f"{row['equal']}/{row['compared']}",
        )
        for row in (*rows["float32"], *rows["bfloat16"])
    ]
    if compared:
        head = ("model", "dtype", "answers", "equal to `generate`")
        blocks += ["### Answers", "", _table(head, compared), ""]
    if measured := _rows(parts, "bench-"):
        blocks += [*_benchmark(measured), _RANDOM]
    if trained := _rows(parts, "training-"):
        blocks += ["### Training", "", _training(trained), ""]
    return "\n".join(blocks)


def _parts() -> str:
    """Rows of the table of parts."""
    grids = " and ".join(f"{columns}x{rows}" for columns, rows in FULL.grids)
    lines = []
    for part in check_parts(FULL):
        kind, _, wording = part.name.partition("bench-")
        measured = _MEASURED["bench" if wording else kind].format(grids=grids, wording=wording)
        lines.append(f"| `{part.name}` | {measured} | {part.limit_s} s |")
    return "\n".join(lines)


def _rows(parts: Iterable[dict[str, Any]], name: str) -> list[dict[str, Any]]:
    """Rows of the parts whose name begins like this."""
    return [row for part in parts if part["name"].startswith(name) for row in part["rows"]]


def _machine(rows: Sequence[dict[str, Any]]) -> str:
    if not rows:
        return "The machine is unknown."
    about, *speeds = rows
    memory = f" with {about['memory_gb']} GB" if "memory_gb" in about else ""
    cuda = f", CUDA {about['cuda']}" if "cuda" in about else ""
    measured = "; ".join(
        f"{speed['gb_per_s']:,} GB/s in a copy and {speed['tflop_per_s']:,} TFLOP/s in a matrix "
        f"product as {speed['dtype']}"
        for speed in speeds
    )
    return (
        f"{about['hardware']}{memory}, {about['cores']} CPU cores; Python {about['python']}, torch "
        f"{about['torch']}{cuda}, transformers {about['transformers']}, numpy {about['numpy']}. "
        f"Measured: {measured or 'nothing'}."
    )


def _benchmark(rows: Sequence[dict[str, Any]]) -> list[str]:
    """A heading and a table for each wording."""
    blocks = []
    for wording in dict.fromkeys(row["wording"] for row in rows):
        of_wording = [row for row in rows if row["wording"] == wording]
        first = of_wording[0]
        cells = [
            (
                row["grid"],
                row["method"],
                f"{row['questions']:,}",
                "no memory" if row["ms"] is None else f"{row['ms']:,.0f}",
                "" if row["ms"] is None else f"{row['questions_per_s']:,.1f}",
                f"{row['peak_gb']:.2f}",
                f"{row['added_gb']:.3f}",
            )
            for row in of_wording
        ]
        head = ("grid", "method", "questions", "ms", "per s", "peak GB", "of it for asking")
        blocks += [
            f"### A frame, wording `{wording}`",
            "",
            f"{first['visual_tokens']:,} visual tokens, {first['shared_tokens']:,} shared ones in "
            f"all, {first['own_tokens']} own tokens per question in the first grid.",
            "",
            _table(head, cells),
            "",
        ]
    return blocks


def _training(rows: Sequence[dict[str, Any]]) -> str:
    cells = [
        (
            row["model"],
            str(row["batch"]),
            f"{row['samples_per_s']:,.1f}",
            f"{row['data_wait_share']:.0%}",
            f"{row['samples_per_s_computing']:,.1f}",
            f"{row['ms_per_step_computing']:,.0f}",
            f"{row['peak_gb']:.2f}" if "peak_gb" in row else "",
        )
        for row in rows
    ]
    head = (
        "model",
        "batch",
        "samples/s",
        "waiting for data",
        "samples/s without waiting",
        "ms per step without waiting",
        "peak GB",
    )
    return _table(head, cells)


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)
