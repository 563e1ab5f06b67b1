# SPDX-License-Identifier: Apache-2.0
"""`vlm3 bench`: measure the cost of asking on this machine, or compute it for another."""

from __future__ import annotations

import argparse
import logging
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from vlm3_lab.cli.estimate import (
    ESTIMATE_OPTIONS,
    add_estimate_options,
    image_size_of,
    run_estimate,
)
from vlm3_ros.cli.arguments import positive_integer
from vlm3_ros.cli.model_options import add_model_options
from vlm3_ros.engines.settings import EngineSettings, given_settings, model_name, task_settings
from vlm3_ros.errors import CommandError

if TYPE_CHECKING:
    from vlm3_lab.studies.bench.cost import CostRow
    from vlm3_lab.studies.bench.measuring import (
        Measurement,
        Method,
        Setting,
        Workload,
        WorkloadCalls,
    )
    from vlm3_ros.engines.model import LoadedModel
    from vlm3_ros.evaluation.tables import TextTable

T = TypeVar("T")

SHAPES = ("4b",)

MEASURING = {
    "questions": (1, 16, 64, 256, 1024),
    "naive_questions": 64,
    "batched_questions": 16,
    "repeats": 3,
}
"""Options that --estimate does not take, with their defaults."""


@dataclass(frozen=True)
class Subject:
    """What is measured: a checkpoint or random weights of a shape, and the size of the image."""

    settings: EngineSettings
    shape: str | None
    visual_tokens: int


def add_parser(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command."""
    parser = commands.add_parser(
        "bench",
        help="measure or compute the cost of asking",
        description="Measure time and memory of asking for the depth of many pixels of one image, "
        "with several methods side by side. naive: one `generate` per question, the image encoded "
        "each time. batched: one `generate`, the image repeated for each question. packed: ten "
        "questions in one sequence after one image, kept apart by a mask. engine: ours, which "
        "reads image and shared text once and never copies their keys and values. engine-forced: "
        "ours with answers forced into their form, which gives standard deviations. Each row is "
        "measured in its own process, after one question to warm up. Peak memory is that of the "
        "process or, on a GPU, of its tensors. The roofline is the time of the frame if the device "
        "reached the bandwidth of a copy and the speed of a matrix product, both measured here. "
        "Writes bench.json, bench.txt and bench.png.",
        epilog="examples: vlm3 bench --out out/bench; vlm3 bench --shape 4b --device cuda --out "
        "out/bench-4b; vlm3 bench --estimate --shape 4b --image-size 1280x720 --fx 900",
    )
    parser.add_argument(
        "--questions",
        type=_counts,
        default=MEASURING["questions"],
        metavar="N,N,...",
        help="numbers of questions for the engine (default: 1,16,64,256,1024)",
    )
    parser.add_argument(
        "--naive-questions",
        type=positive_integer,
        default=MEASURING["naive_questions"],
        metavar="N",
        help="questions for the naive and packed methods, whose cost per question is constant; the "
        "answers of all methods are compared on them (default: 64)",
    )
    parser.add_argument(
        "--batched-questions",
        type=positive_integer,
        default=MEASURING["batched_questions"],
        metavar="N",
        help="questions for the batched method (default: 16)",
    )
    parser.add_argument(
        "--visual-tokens",
        type=positive_integer,
        metavar="N",
        help="approximate size of the image, 1024 px per token (default: 1000; with --estimate, "
        "from the camera)",
    )
    parser.add_argument(
        "--repeats",
        type=positive_integer,
        default=MEASURING["repeats"],
        metavar="N",
        help="measurements of the engine; the median counts (default: 3)",
    )
    parser.add_argument(
        "--shape",
        choices=SHAPES,
        help="instead of a checkpoint, use random weights of this public architecture: 4b is "
        "Qwen3-VL-4B. Its answers are noise as long as real answers; forced numbers are as long "
        "as the grammar allows",
    )
    parser.add_argument(
        "--out", type=Path, metavar="DIR", help="folder for the results; needed without --estimate"
    )
    add_estimate_options(parser)
    add_model_options(parser, EngineSettings)
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Run the command."""
    from rich.console import Console

    from vlm3_lab.studies.bench.cost import cost_json, cost_rows, draw_cost
    from vlm3_ros.cli.progress import progress_bar
    from vlm3_ros.evaluation.json_file import write_json
    from vlm3_ros.evaluation.tables import rich_table

    if options.shape and options.model:
        raise CommandError("--shape replaces --model: give only one of them")
    settings = task_settings(given_settings(vars(options)), "depth")
    if options.estimate:
        if options.out:
            raise CommandError("--estimate prints a table and writes no files: leave out --out")
        for name, default in MEASURING.items():
            if getattr(options, name) != default:
                flag = name.replace("_", "-")
                raise CommandError(f"--{flag} is for measurements: leave it out with --estimate")
        return run_estimate(options, settings)
    for name in ESTIMATE_OPTIONS:
        if getattr(options, name) is not None:
            raise CommandError(f"--{name.replace('_', '-')} needs --estimate")
    if not options.out:
        raise CommandError("--out is missing: the folder for the results; or give --estimate")
    subject = Subject(settings, options.shape, options.visual_tokens or 1000)
    most = max(*options.questions, options.naive_questions, options.batched_questions)
    cases: list[tuple[Method, int, int]] = [
        ("naive", options.naive_questions, 1),
        ("batched", options.batched_questions, 1),
        ("packed", options.naive_questions, 1),
    ]
    cases += [("engine", count, options.repeats) for count in options.questions]
    cases += [("engine-forced", count, options.repeats) for count in options.questions]
    options.out.mkdir(parents=True, exist_ok=True)
    measurements = []
    with progress_bar("measurements") as progress:
        progress(0, len(cases) + 1)
        setting, calls = _in_own_process(_describe, subject, most)
        for done, case in enumerate(cases, start=1):
            progress(done, len(cases) + 1)
            measurements.append(_in_own_process(_measure, subject, *case))
        progress(len(cases) + 1, len(cases) + 1)
    name = f"{options.shape}, random" if options.shape else model_name(subject.settings.model)
    rows = cost_rows(setting, calls, measurements)
    write_json(options.out / "bench.json", cost_json(name, setting, rows))
    draw_cost(name, setting, calls, rows, options.out / "bench.png")
    table = rich_table(_table(name, setting, calls, rows))
    with (options.out / "bench.txt").open("w", encoding="utf-8") as file:
        Console(file=file, width=120).print(table)
    Console().print(table)
    print(f"wrote bench.json, bench.txt and bench.png to {options.out}")
    return 0


def _counts(text: str) -> tuple[int, ...]:
    return tuple(sorted({positive_integer(part) for part in text.split(",")}))


def _in_own_process(function: Callable[..., T], *arguments: object) -> T:
    """Call the function in a new process that does nothing else."""
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        try:
            return pool.submit(function, *arguments).result()
        except BrokenProcessPool as error:
            raise CommandError(
                "a measurement was killed, probably because memory ran out: ask fewer questions, "
                "or choose a smaller image or another dtype"
            ) from error


def _describe(subject: Subject, count: int) -> tuple[Setting, WorkloadCalls]:
    from vlm3_lab.studies.bench.measuring import describe

    loaded = _load(subject)
    return describe(loaded, _workload(subject, loaded, count))


def _measure(subject: Subject, method: Method, count: int, repeats: int) -> Measurement:
    from vlm3_lab.studies.bench.measuring import measure

    loaded = _load(subject)
    workload = _workload(subject, loaded, count)
    return measure(loaded, method, workload, subject.settings, repeats)


def _load(subject: Subject) -> LoadedModel:
    logging.getLogger("transformers").setLevel(logging.ERROR)
    if subject.shape:
        from vlm3_lab.studies.bench.architectures import random_model

        return random_model(subject.shape, subject.settings)
    from vlm3_ros.engines.checkpoint import preflight
    from vlm3_ros.engines.model import load_model

    return load_model(subject.settings, preflight(subject.settings))


def _workload(subject: Subject, loaded: LoadedModel, count: int) -> Workload:
    """A procedural view in the wanted size and questions about it, the same in every process."""
    import cv2
    import numpy as np

    from vlm3_lab.scenes import sample_view
    from vlm3_lab.studies.bench.measuring import Workload
    from vlm3_ros.engines.processor import image_limits
    from vlm3_ros.language.wordings.depth import DepthWording, depth_question

    view = sample_view(np.random.default_rng(0), "room")
    size = image_size_of(subject.visual_tokens, image_limits(loaded.processor).multiple)
    image = cv2.resize(view.image, size, interpolation=cv2.INTER_AREA).astype(np.uint8, copy=False)
    rng = np.random.default_rng(0)
    prompts = loaded.profile.prompts
    wording = prompts[DepthWording]
    questions = [
        depth_question(wording, rng.integers(0, prompts.text_range, 2), prompts.text_range)
        for _ in range(count)
    ]
    return Workload(image, questions)


def _table(name: str, setting: Setting, calls: WorkloadCalls, rows: Sequence[CostRow]) -> TextTable:
    from vlm3_lab.studies.bench.calls import call_passes
    from vlm3_ros.evaluation.tables import TextTable

    speed, work = setting.speed, setting.work
    passes = call_passes(work, calls.free)
    shared_flops = sum(one.flops for one in (*passes.images, *passes.prefix))
    return TextTable(
        f"{name}: {setting.parameters / 1e6:,.1f} M parameters as {setting.dtype} on "
        f"{setting.hardware}, {setting.threads} thread(s); {setting.visual_tokens} visual tokens, "
        f"{setting.question_tokens:.0f} own tokens per question",
        ("method", "asked", "ms/frame", "per s", "x naive", "floor ms", "peak MB", "same"),
        tuple(
            (
                row.method,
                f"{row.questions:,}",
                "no memory" if row.ms_per_frame is None else f"{row.ms_per_frame:,.0f}",
                "" if row.questions_per_second is None else f"{row.questions_per_second:,.1f}",
                "" if row.ratio_to_naive is None else f"{row.ratio_to_naive:,.1f}",
                f"{row.roofline_ms:,.0f}",
                f"{row.peak_memory_mb:,.0f}",
                ""
                if row.equal_answers is None
                else f"{row.equal_answers * row.compared:.0f}/{row.compared}",
            )
            for row in rows
        ),
        "same: answers equal to those of the naive method; forced ones differ if the model does "
        f"not keep to its form by itself. device: {speed.bytes_per_second / 1e9:.1f} GB/s in a "
        f"copy, {speed.flops_per_second / 1e9:,.0f} GFLOP/s in a matrix product; model: "
        f"{(work.language_bytes + work.output_bytes) / 1e6:,.1f} MB of weights per step, "
        f"{shared_flops / 1e9:,.1f} GFLOP for image and shared text",
        has_baselines=False,
    )
