# SPDX-License-Identifier: Apache-2.0
"""Cost of asking, by method: table rows, JSON and a plot."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from typing import Any

from vlm3_lab.studies.bench.calls import Call, call_passes
from vlm3_lab.studies.bench.measuring import Measurement, Method, Setting, WorkloadCalls
from vlm3_lab.studies.bench.stock import PACK
from vlm3_lab.studies.bench.work import ModelWork, Pass

DESCRIPTIONS: dict[Method, str] = {
    "naive": "one generate per question, image encoded each time",
    "batched": "one generate, image repeated for each question",
    "packed": f"{PACK} questions in one sequence after one image, stock masked attention",
    "engine": "image and shared text once, questions in chunks, free answers",
    "engine-forced": "the same, answers forced into their form, with their distribution",
}
_COLOURS: dict[Method, str] = {
    "naive": "#b2182b",
    "batched": "#ef8a62",
    "packed": "#7b6ba8",
    "engine": "#2166ac",
    "engine-forced": "#1b9e77",
}
_MEGABYTE = 1e6


@dataclass(frozen=True)
class CostRow:
    """Cost of a frame with a number of questions, asked with one method.

    Attributes:
        ms_per_frame: median of the repeats; None if memory ran out.
        ratio_to_naive: time of the naive method for as many questions, divided by this time.
        peak_memory_mb: peak while asking, of the process or, on a GPU, of its tensors.
        added_memory_mb: the part of the peak that asking adds to the loaded model.
        roofline_ms: least time of the frame if the device reaches its measured speeds.
        compared: number of answers that were compared with those of the naive method.
        equal_answers: share of compared answers that are equal; None if none was compared.
    """

    method: Method
    questions: int
    ms_per_frame: float | None
    questions_per_second: float | None
    ratio_to_naive: float | None
    peak_memory_mb: float
    added_memory_mb: float
    roofline_ms: float
    compared: int
    equal_answers: float | None


def cost_rows(
    setting: Setting, calls: WorkloadCalls, measurements: Sequence[Measurement]
) -> list[CostRow]:
    """Rows of a table; one of the measurements must be of the naive method."""
    naive = next(m for m in measurements if m.method == "naive")
    naive_ms = _milliseconds(naive)
    naive_ms = None if naive_ms is None else naive_ms / naive.questions
    return [_row(setting, calls, measured, naive, naive_ms) for measured in measurements]


def roofline_ms(setting: Setting, calls: WorkloadCalls, method: Method, questions: int) -> float:
    """Least time of a frame in milliseconds.

    Every pass through the model takes the longer of two times: that of its multiplications, and
    that of reading its weights.
    """
    call = (calls.forced if method == "engine-forced" else calls.free).part(0, questions)
    together = {"naive": 1, "batched": questions, "packed": PACK}.get(method)
    if together is None:
        passes = call_passes(setting.work, call).all
    else:
        images = questions if method == "batched" else 1
        groups = [call.part(start, start + together) for start in range(0, questions, together)]
        passes = [one for group in groups for one in _stock_passes(setting.work, group, images)]
    return sum(one.seconds(setting.speed) for one in passes) * 1e3


def cost_json(name: str, setting: Setting, rows: Sequence[CostRow]) -> dict[str, Any]:
    """Rows and setting as JSON."""
    return {
        "model": name,
        **asdict(setting),
        "methods": DESCRIPTIONS,
        "rows": [asdict(row) for row in rows],
    }


def draw_cost(
    name: str,
    setting: Setting,
    calls: WorkloadCalls,
    rows: Sequence[CostRow],
    path: Path | str,
) -> None:
    """Draw time and memory over the number of questions, as a PNG."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10.5, 4.6), dpi=110, facecolor="white", layout="constrained")
    FigureCanvasAgg(figure)
    time_axes, memory_axes = figure.subplots(1, 2)
    figure.suptitle(
        f"{name} ({setting.dtype}) with {setting.visual_tokens} visual tokens on "
        f"{setting.hardware}, {setting.threads} thread(s)",
        fontsize=10,
    )
    most = max(row.questions for row in rows)
    for method, colour in _COLOURS.items():
        measured = [row for row in rows if row.method == method and row.ms_per_frame is not None]
        if not measured:
            continue
        counts = [row.questions for row in measured]
        times = [row.ms_per_frame or 0.0 for row in measured]
        time_axes.plot(counts, times, "o-", color=colour, label=method, markersize=4)
        memory = [row.peak_memory_mb for row in measured]
        memory_axes.plot(counts, memory, "o-", color=colour, label=method, markersize=4)
        if method in ("naive", "packed"):  # the cost is proportional to the questions
            line = [n * times[-1] / counts[-1] for n in (1, most)]
            time_axes.plot((1, most), line, "--", color=colour, linewidth=0.8)
    engine = sorted({row.questions for row in rows if row.method == "engine-forced"})
    floors = [roofline_ms(setting, calls, "engine-forced", n) for n in engine]
    time_axes.plot(engine, floors, ":", color="black", label="roofline of engine-forced")
    for axes, title in ((time_axes, "ms per frame"), (memory_axes, "peak memory in MB")):
        axes.set_xscale("log", base=2)
        axes.set_xlabel("questions about one image")
        axes.set_title(title, fontsize=10)
        axes.xaxis.set_major_formatter("{x:.0f}")
        axes.grid(alpha=0.3)
        axes.spines[["top", "right"]].set_visible(False)
    time_axes.set_yscale("log")
    memory_axes.set_ylim(bottom=0)
    time_axes.legend(fontsize=8, frameon=False)
    figure.savefig(path)


def _row(
    setting: Setting,
    calls: WorkloadCalls,
    measured: Measurement,
    naive: Measurement,
    naive_ms: float | None,
) -> CostRow:
    count, ms = measured.questions, _milliseconds(measured)
    compared = min(len(measured.texts), len(naive.texts)) if measured is not naive else 0
    pairs = zip(measured.texts[:compared], naive.texts[:compared], strict=True)
    return CostRow(
        method=measured.method,
        questions=count,
        ms_per_frame=ms,
        questions_per_second=None if ms is None else count / ms * 1e3,
        ratio_to_naive=None if ms is None or naive_ms is None else count * naive_ms / ms,
        peak_memory_mb=measured.peak_bytes / _MEGABYTE,
        added_memory_mb=(measured.peak_bytes - measured.idle_bytes) / _MEGABYTE,
        roofline_ms=roofline_ms(setting, calls, measured.method, count),
        compared=compared,
        equal_answers=sum(a == b for a, b in pairs) / compared if compared else None,
    )


def _stock_passes(work: ModelWork, call: Call, images: int) -> list[Pass]:
    """Return the passes of questions in one batch or sequence, prefix and questions in one pass.

    Args:
        images: how many times the images and the prefix are computed.
    """
    passes = call_passes(work, call, len(call.own), as_tree=False)
    (image,), (prefix,), (own,) = passes.images, passes.prefix, passes.own
    return [
        Pass(images * image.flops, image.weight_bytes),
        Pass(images * prefix.flops + own.flops, own.weight_bytes),
        *passes.decoding,
    ]


def _milliseconds(measured: Measurement) -> float | None:
    return median(measured.seconds) * 1e3 if measured.seconds else None
