# SPDX-License-Identifier: Apache-2.0
"""Measure what the wording of depth questions costs: the authors' and vlm3-last, side by side.

    python benchmarks/wordings.py [--shape tiny] [--visual-tokens 825]
    python benchmarks/wordings.py --models FOLDER FOLDER   # trained with vlm3-depth and vlm3-last

Each round asks a grid of forced questions about one image in both wordings, in turn. With one
thread on a CPU, times are CPU times, which other load on the machine hardly changes. The benchmark
prints a Markdown table of medians, and the ratio to the authors' wording, for the whole frame and
for its questions alone: the time of the frame less that of one question. Random weights end their
numbers at random, not after two decimals.
"""

from __future__ import annotations

import argparse
import math
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from transformers import (
    GenerationConfig,
    Qwen2Tokenizer,
    Qwen3VLConfig,
    Qwen3VLForConditionalGeneration,
)

from vlm3_lab.studies.bench.architectures import SHAPES
from vlm3_lab.training.checkpoint import (
    TinyShape,
    build_processor,
    model_config,
    save_processor,
    word_tokenizer,
)
from vlm3_ros.engines.load import load_engine
from vlm3_ros.engines.processor import encode_questions, load_processor
from vlm3_ros.engines.profiles import shipped_profile, write_profile
from vlm3_ros.engines.settings import EngineSettings
from vlm3_ros.geometry.camera import PinholeCamera
from vlm3_ros.geometry.text_coordinates import text_coordinates
from vlm3_ros.language.prompts import load_prompt_set
from vlm3_ros.language.wordings.depth import DepthWording, depth_question
from vlm3_ros.tasks.depth import uniform_grid

WORDINGS = ("vlm3-depth", "vlm3-last")
TINY = TinyShape(vision_hidden=128, deepstack=(1, 2), position_grid=24)
"""As in config/training/tiny_views.yaml."""


def main() -> None:
    """Measure both wordings and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--shape", choices=["tiny", "4b"], default="tiny", help="random weights")
    parser.add_argument("--layers", type=int, default=2, help="of both halves of shape 4b")
    parser.add_argument("--models", nargs=2, metavar="FOLDER", help="instead of random weights")
    parser.add_argument("--tokenizer", metavar="FOLDER", help="of Qwen3; default: a token per word")
    parser.add_argument("--visual-tokens", type=int, default=825)
    parser.add_argument("--grid", type=int, nargs=2, default=(16, 12), metavar=("COLUMNS", "ROWS"))
    parser.add_argument("--repeats", type=int, default=5)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        if not options.models:
            write_random_checkpoint(Path(folder), options.shape, options.layers, options.tokenizer)
        measure(options.models or [folder] * 2, options)


def write_random_checkpoint(folder: Path, shape: str, layers: int, tokenizer: str | None) -> None:
    """Write a checkpoint with random weights whose answers are decided, as trained ones are."""
    wordings = [load_prompt_set(name)[DepthWording] for name in WORDINGS]
    words = (
        Qwen2Tokenizer.from_pretrained(tokenizer)
        if tokenizer
        else word_tokenizer([text for wording in wordings for text in wording.templates()])
    )
    torch.manual_seed(0)
    config = model_config(TINY, words) if shape == "tiny" else wide_config(layers, words)
    model: Any = Qwen3VLForConditionalGeneration(config)
    with torch.no_grad():
        scale = 25 * math.sqrt(2560 / config.text_config.hidden_size)
        model.get_input_embeddings().weight.mul_(scale)
    model.generation_config = GenerationConfig(
        do_sample=False, pad_token_id=words.pad_token_id, eos_token_id=words.eos_token_id
    )
    model.save_pretrained(folder)
    save_processor(build_processor(words), folder)
    write_profile(folder, shipped_profile("vlm3-depth"))


def wide_config(layers: int, tokenizer: Any) -> Qwen3VLConfig:
    """Configuration with the widths of Qwen3-VL-4B and fewer layers."""
    sizes, vocabulary = SHAPES["4b"], tokenizer.get_vocab()
    return Qwen3VLConfig(
        text_config={**sizes["text_config"], "num_hidden_layers": layers},
        vision_config={
            **sizes["vision_config"],
            "depth": layers,
            "deepstack_visual_indexes": [0],
        },
        image_token_id=vocabulary["<|image_pad|>"],
        video_token_id=vocabulary["<|video_pad|>"],
        vision_start_token_id=vocabulary["<|vision_start|>"],
        vision_end_token_id=vocabulary["<|vision_end|>"],
        tie_word_embeddings=True,
    )


def measure(models: list[str], options: argparse.Namespace) -> None:
    """Ask in both wordings by turns and print the table."""
    image = picture(options.visual_tokens)
    rows: list[list[str]] = []
    asks: dict[str, Callable[[int | None], float]] = {}
    engines: dict[str, Any] = {
        model: load_engine(EngineSettings(model=model, dtype="float32", offline=True))
        for model in set(models)
    }
    is_cpu_time = torch.get_num_threads() == 1 and not torch.cuda.is_available()
    clock = time.process_time if is_cpu_time else time.perf_counter
    for name, model in zip(WORDINGS, models, strict=True):
        wording = load_prompt_set(name)[DepthWording]
        asked = questions(name, wording, image, options.grid)
        engines[model].force(wording.answer)

        def ask(
            count: int | None,
            engine: Any = engines[model],
            asked: list[str] = asked,
            template: str = wording.answer,
        ) -> float:
            start = clock()
            engine.ask([image], asked[:count], template)
            return (clock() - start) * 1e3

        ask(1)
        asks[name] = ask
        encoded = encode_questions(load_processor(model), [image], asked)
        own = np.mean([len(suffix) for suffix in encoded.suffixes])
        rows.append([name, str(len(encoded.prefix)), f"{own:.1f}"])
    frames: dict[str, list[float]] = {name: [] for name in WORDINGS}
    alone: dict[str, list[float]] = {name: [] for name in WORDINGS}
    for _ in range(options.repeats):
        for name, ask in asks.items():
            alone[name].append(ask(1))
            frames[name].append(ask(None))
    columns, lines = options.grid
    print(
        f"{columns * lines} forced questions, {options.visual_tokens} visual tokens, "
        f"{torch.get_num_threads()} thread(s), median of {options.repeats}, "
        f"{'CPU' if is_cpu_time else 'wall'} time\n"
    )
    print(
        "| wording | shared tokens | own tokens | ms per frame | ratio | ms of questions | ratio |"
    )
    print("|---|---:|---:|---:|---:|---:|---:|")
    whole = {name: median(times) for name, times in frames.items()}
    only = {name: whole[name] - median(alone[name]) for name in WORDINGS}
    for row in rows:
        name = row[0]
        ratios = [times[WORDINGS[0]] / times[name] for times in (whole, only)]
        row += [f"{whole[name]:.0f}", f"{ratios[0]:.2f}", f"{only[name]:.0f}", f"{ratios[1]:.2f}"]
        print(f"| {' | '.join(row)} |")


def picture(visual_tokens: int) -> NDArray[np.uint8]:
    """A noisy picture of about 4:3 that enters with about this number of tokens."""
    rows = max(1, round(math.sqrt(visual_tokens * 3 / 4)))
    columns = max(1, round(visual_tokens / rows))
    size = (rows * 32, columns * 32, 3)
    return np.random.default_rng(0).integers(0, 256, size).astype(np.uint8)


def questions(
    name: str, wording: DepthWording, image: NDArray[np.uint8], grid: tuple[int, int]
) -> list[str]:
    """Depth questions about a grid of pixels of an image."""
    prompts = load_prompt_set(name)
    height, width = image.shape[:2]
    camera = PinholeCamera.from_hfov(width, height, 60)
    pixels = uniform_grid(camera, *grid)
    points = text_coordinates(pixels, width, height, prompts.text_range, prompts.text_rounding)
    return [depth_question(wording, point, prompts.text_range) for point in points]


if __name__ == "__main__":
    main()
