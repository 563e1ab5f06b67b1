# SPDX-License-Identifier: Apache-2.0
"""`vlm3 bench --estimate`: compute what a frame costs; load no weights and measure nothing."""

from __future__ import annotations

import argparse
import json
from argparse import ArgumentTypeError
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vlm3_lab.studies.bench.hardware import HARDWARE
from vlm3_lab.studies.bench.work import DeviceSpeed
from vlm3_ros.cli.arguments import grid_size, positive_integer, positive_number
from vlm3_ros.cli.model_options import add_focal_option
from vlm3_ros.engines.settings import EngineSettings, model_name
from vlm3_ros.errors import CommandError
from vlm3_ros.geometry.camera import PinholeCamera

if TYPE_CHECKING:
    from vlm3_lab.studies.bench.estimate import TaskEstimate
    from vlm3_lab.studies.bench.work import ModelWork
    from vlm3_ros.engines.base import Profile
    from vlm3_ros.evaluation.tables import TextTable

AUTHORS_WORDINGS = ("vlm3-depth", "vlm3-pose", "vlm3-corr", "vlm3-object")

QWEN_PIXELS = 65_536, 16_777_216
"""Smallest and largest image area of Qwen3-VL's own checkpoints, px."""

LABEL_WIDTH, COLUMN_WIDTH = 26, 15

DEFAULT_CAMERA = PinholeCamera(640, 480, 600.0, 600.0, 319.5, 239.5)


@dataclass(frozen=True)
class _Subject:
    """The model whose cost is computed.

    `folder`: of its files; None for a shape. `work`: in bfloat16. `parameters`: number of them.
    """

    name: str
    folder: Path | None
    work: ModelWork
    parameters: int


def add_estimate_options(parser: argparse.ArgumentParser) -> None:
    """Add --estimate and the options that it takes."""
    group = parser.add_argument_group(
        "estimate", "Compute the cost of a frame. Loads no weights, measures and writes nothing."
    )
    group.add_argument(
        "--estimate",
        action="store_true",
        help="print by task: tokens, FLOPs, weights read, and the least time on several devices. "
        "The model is --shape, or that of --model, of which only config.json is needed",
    )
    group.add_argument(
        "--wording",
        nargs="+",
        metavar="NAME",
        help="how the model is asked: shipped profiles, prompt sets, or .json files (default: the "
        f"model's own, or with --shape {', '.join(AUTHORS_WORDINGS)})",
    )
    group.add_argument(
        "--grid",
        type=grid_size,
        metavar="CxR",
        help="pixels whose depth is asked (default: 16x12)",
    )
    group.add_argument(
        "--match-grid",
        type=grid_size,
        metavar="CxR",
        help="pixels whose matches are asked (default: 8x6)",
    )
    group.add_argument(
        "--image-size",
        type=_image_size,
        metavar="WxH",
        help="of the camera, px (default: 640x480); or give --visual-tokens",
    )
    group.add_argument(
        "--fx", type=positive_number, metavar="PX", help="its focal length (default: 600)"
    )
    add_focal_option(parser)
    group.add_argument(
        "--answer-tokens",
        type=positive_integer,
        metavar="N",
        help="length of answers in free text; models that think write more than the wording says",
    )
    group.add_argument(
        "--hardware",
        nargs="+",
        type=_hardware,
        metavar="DEVICE",
        help="devices with published speeds, in quotes if they have spaces (default: "
        f"{', '.join(HARDWARE)})",
    )
    group.add_argument(
        "--flops",
        type=positive_number,
        metavar="TFLOP/S",
        help="speed of a device of your own in dense bfloat16 products, with --bandwidth",
    )
    group.add_argument(
        "--bandwidth", type=positive_number, metavar="GB/S", help="of its memory, with --flops"
    )
    group.add_argument(
        "--tokenizer",
        type=Path,
        metavar="FOLDER",
        help="of a Qwen3-VL checkpoint, to count its very tokens (default: the one in the folder "
        "of --model, or our own, which counts a few percent more or less)",
    )


ESTIMATE_OPTIONS = (
    *("wording", "grid", "match_grid", "image_size", "fx", "focal", "answer_tokens"),
    *("hardware", "flops", "bandwidth", "tokenizer"),
)
"""Options that only --estimate takes; None if not given."""


def run_estimate(options: argparse.Namespace, settings: EngineSettings) -> int:
    """Print the cost of a frame.

    Args:
        options: of the command.
        settings: of the model.
    """
    from rich.console import Console

    from vlm3_ros.evaluation.tables import rich_table

    if settings.engine != "transformers":
        raise CommandError(
            f"--estimate is about a model in process: leave out --engine {settings.engine}"
        )
    if settings.dtype not in ("auto", "bfloat16"):
        raise CommandError(f"--estimate computes in bfloat16: leave out --dtype {settings.dtype}")
    if settings.device != "auto":
        raise CommandError(
            f"--estimate runs on no device: instead of --device {settings.device} give --hardware "
            "or --flops and --bandwidth"
        )
    speeds = _speeds(options)
    subject = _subject(options.shape, settings)
    profiles = _profiles(options.wording or (), settings, subject.folder)
    counted, estimates = _estimates(options, settings, subject, profiles)
    console = Console(highlight=False)
    columns = max(1, (console.width - LABEL_WIDTH) // COLUMN_WIDTH)
    for start in range(0, len(estimates), columns):
        part = estimates[start : start + columns]
        console.print(rich_table(_table(options, subject, part, speeds)))
    console.print(_notes(counted, speeds), markup=False)
    return 0


def _speeds(options: argparse.Namespace) -> dict[str, DeviceSpeed]:
    """Return the speeds of the devices by their names."""
    if (options.flops is None) != (options.bandwidth is None):
        raise CommandError("--flops and --bandwidth belong together: give both")
    own = {}
    if options.flops is not None:
        name = f"{options.flops:g} TFLOP/s, {options.bandwidth:g} GB/s"
        own[name] = DeviceSpeed(options.bandwidth * 1e9, options.flops * 1e12)
    chosen = options.hardware or ([] if own else HARDWARE)
    return {**{name: HARDWARE[name].speed for name in chosen}, **own}


def _subject(shape: str | None, settings: EngineSettings) -> _Subject:
    import torch
    from transformers import Qwen3VLConfig

    from vlm3_lab.studies.bench.architectures import SHAPES, model_without_weights
    from vlm3_lab.studies.bench.roofline import model_work

    folder = None if shape else Path(settings.model).expanduser()
    if shape:
        sizes: dict[str, Any] = SHAPES[shape]
        name, config = shape, Qwen3VLConfig(**sizes, tie_word_embeddings=True)
    else:
        assert folder is not None
        name, config = model_name(settings.model), _config(folder)
    try:
        model = model_without_weights(config, torch.bfloat16)
        work = model_work(model)
    except (ArithmeticError, LookupError, RuntimeError, TypeError, ValueError) as error:
        reason = " ".join(str(error).split())
        source = f"{folder}/config.json" if folder else name
        raise CommandError(f"no model has the sizes in {source}: {reason}") from error
    parameters = sum(weights.numel() for weights in model.parameters())
    return _Subject(name, folder, work, parameters)


def _config(folder: Path) -> Any:
    """Read a checkpoint's config.json."""
    from huggingface_hub.errors import StrictDataclassError
    from transformers import Qwen3VLConfig

    if not folder.is_dir():
        raise CommandError(
            f"--model {folder} is no folder: --estimate reads the config.json of a checkpoint on "
            "this machine; or give --shape"
        )
    path = folder / "config.json"
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
        kind = config.get("model_type") if isinstance(config, dict) else None
        if kind != "qwen3_vl":
            raise CommandError(
                f"{path} is not that of a dense Qwen3-VL model: its model_type is {kind!r}"
            )
        return Qwen3VLConfig.from_dict(config)
    except OSError as error:
        raise CommandError(f"{path} cannot be read: {error.strerror}") from error
    except (AttributeError, KeyError, TypeError, ValueError, StrictDataclassError) as error:
        reason = " ".join(str(error).split())
        raise CommandError(f"{path} cannot be read: {reason}") from error


def _profiles(
    wordings: Sequence[str], settings: EngineSettings, folder: Path | None
) -> list[Profile]:
    """Return the ways in which the model is asked."""
    from vlm3_ros.engines.profiles import shipped_profile

    if wordings:
        return [_named(name, settings, folder) for name in wordings]
    if folder is None and not settings.profile:
        return [shipped_profile(name) for name in AUTHORS_WORDINGS]
    return [_own_profile(settings, folder)]


def _named(name: str, settings: EngineSettings, folder: Path | None) -> Profile:
    """Return a profile by its name or file, or the model's with another prompt set."""
    from vlm3_ros.engines.base import EngineError
    from vlm3_ros.engines.profiles import read_profile, shipped_profile
    from vlm3_ros.language.prompts import load_prompt_set
    from vlm3_ros.language.templates import PromptError
    from vlm3_ros.paths import shipped_profiles

    if name in shipped_profiles():
        return shipped_profile(name)
    try:
        prompts = load_prompt_set(name)
    except PromptError as error:
        try:
            if name.endswith(".json"):
                return read_profile(name)
        except EngineError:
            pass
        raise CommandError(f"--wording: {error}") from error
    return replace(_own_profile(settings, folder), prompts=prompts)


def _own_profile(settings: EngineSettings, folder: Path | None) -> Profile:
    """Return the profile of a checkpoint; of a shape, that of the setting or the paper's."""
    from vlm3_ros.engines.profiles import PAPER_PROFILE, choose_profile, named_profile

    if folder is not None:
        return choose_profile(settings.profile, settings.model, folder)[0]
    return named_profile(settings.profile or PAPER_PROFILE)


def _estimates(
    options: argparse.Namespace,
    settings: EngineSettings,
    subject: _Subject,
    profiles: Sequence[Profile],
) -> tuple[str, list[TaskEstimate]]:
    """Return how tokens were counted, and the estimates of each task of each profile."""
    from vlm3_lab.studies.bench.estimate import estimate_task, examples
    from vlm3_ros.engines.chunking import MAX_CHUNK

    counted, processor_for = _processors(options.tokenizer, subject.folder)
    asked = examples(options.grid or (16, 12), options.match_grid or (8, 6))
    estimates = []
    for profile in profiles:
        processor = processor_for(profile)
        estimates += [
            estimate_task(
                subject.work,
                processor,
                profile,
                _camera(options, profile),
                example,
                view_focal=options.focal,
                chunk=settings.chunk or MAX_CHUNK,
                force_answers=settings.force_answers,
                answer_tokens=options.answer_tokens,
            )
            for task, example in asked.items()
            if task in profile.prompts.wordings
        ]
    return counted, estimates


def _camera(options: argparse.Namespace, profile: Profile) -> PinholeCamera:
    """Return the camera of the options; for --visual-tokens one whose image enters unchanged."""
    width, height = options.image_size or (DEFAULT_CAMERA.width, DEFAULT_CAMERA.height)
    focal = options.fx or DEFAULT_CAMERA.fx
    if options.visual_tokens is not None:
        if options.image_size or options.fx or options.focal:
            raise CommandError(
                "--visual-tokens is the size of the image in the model: leave out --image-size, "
                "--fx and --focal, or --visual-tokens"
            )
        width, height = image_size_of(options.visual_tokens)
        focal = profile.focal or DEFAULT_CAMERA.fx
    return PinholeCamera(width, height, focal, focal, (width - 1) / 2, (height - 1) / 2)


def image_size_of(visual_tokens: int, side: int = 32) -> tuple[int, int]:
    """Return width and height in px of a 4:3 image of about so many tokens, `side` px each."""
    rows = max(1, round((visual_tokens * 3 / 4) ** 0.5))
    return max(1, round(visual_tokens / rows)) * side, rows * side


def _processors(
    tokenizer: Path | None, folder: Path | None
) -> tuple[str, Callable[[Profile], Any]]:
    """Return how tokens are counted, and what makes the processor for a profile's questions."""
    from vlm3_lab.training.checkpoint import build_processor, build_tokenizer
    from vlm3_ros.engines.processor import load_processor

    loaded = None if tokenizer is None else _load_tokenizer(tokenizer)
    if folder is not None and (folder / "tokenizer_config.json").is_file():
        try:
            processor = load_processor(folder)
        except (OSError, ValueError) as error:
            reason = " ".join(str(error).split())
            raise CommandError(f"the processor in {folder} cannot be loaded: {reason}") from error
        if loaded is not None:
            processor.tokenizer = loaded
        return f"the tokenizer in {tokenizer or folder}", lambda profile: processor

    def build(profile: Profile) -> Any:
        made = loaded or build_tokenizer(profile.prompts, constants_are_tokens=False)
        processor = build_processor(made)
        smallest, largest = QWEN_PIXELS
        processor.image_processor.size = {"shortest_edge": smallest, "longest_edge": largest}
        return processor

    if tokenizer is not None:
        return f"the tokenizer in {tokenizer}", build
    return "our own tokenizer of words and digits, not Qwen's (--tokenizer)", build


def _load_tokenizer(folder: Path) -> Any:
    from transformers import AutoTokenizer

    if not folder.is_dir():
        raise CommandError(f"--tokenizer {folder} is no folder: give that of a Qwen3-VL checkpoint")
    try:
        tokenizer = AutoTokenizer.from_pretrained(
            folder, local_files_only=True, trust_remote_code=False
        )
    except (OSError, ValueError, KeyError) as error:
        reason = " ".join(str(error).split())
        raise CommandError(f"--tokenizer {folder} cannot be loaded: {reason}") from error
    if "<|image_pad|>" not in tokenizer.get_vocab():
        raise CommandError(f"--tokenizer {folder} knows no image: it is not that of Qwen3-VL")
    return tokenizer


def _table(
    options: argparse.Namespace,
    subject: _Subject,
    estimates: Sequence[TaskEstimate],
    speeds: Mapping[str, DeviceSpeed],
) -> TextTable:
    from vlm3_ros.evaluation.tables import TextTable

    def tera(flops: float) -> str:
        return _digits(flops / 1e12)

    rows: list[tuple[str, Callable[[TaskEstimate], str]]] = [
        ("task", lambda one: one.task),
        ("image, px", lambda one: _sizes(one.sizes)),
        ("questions", lambda one: f"{one.questions:,}"),
        ("visual tokens", lambda one: f"{one.calls[0].visual_tokens:,}"),
        ("shared tokens", lambda one: " + ".join(f"{call.prefix:,}" for call in one.calls)),
        ("own tokens per question", lambda one: f"{one.own_tokens:.1f}"),
        ("  equal beginnings once", lambda one: f"{one.tree_tokens:.1f}"),
        ("decoding steps", lambda one: f"{one.steps:,}"),
        ("image encoder, TFLOP", lambda one: tera(one.part_flops("images"))),
        ("shared tokens, TFLOP", lambda one: tera(one.part_flops("prefix"))),
        ("own tokens, TFLOP", lambda one: tera(one.apart_flops)),
        ("  equal beginnings once", lambda one: tera(one.part_flops("own"))),
        ("decoding, TFLOP", lambda one: tera(one.part_flops("decoding"))),
        ("sum, TFLOP", lambda one: tera(one.flops)),
        ("weights read, GB", lambda one: _digits(one.weight_bytes / 1e9)),
    ]
    floors = [
        (f"{name}, s", *(_digits(one.seconds(speed)) for one in estimates))
        for name, speed in speeds.items()
    ]
    return TextTable(
        f"{subject.name}: {subject.parameters / 1e6:,.1f} M parameters, {_image_words(options)}",
        ("", *(one.wording for one in estimates)),
        (*((label, *map(cell, estimates)) for label, cell in rows), *floors),
        has_baselines=False,
    )


def _notes(counted: str, speeds: Mapping[str, DeviceSpeed]) -> str:
    """Say how the table is computed."""
    from vlm3_lab.studies.bench.estimate import FOLLOWED

    steps = ", ".join(f"{count:g}" for count in FOLLOWED)
    lines = [
        "Seconds are a floor: the sum over passes of max(FLOP / speed, bytes of weights / "
        "bandwidth), at 100 % of the published speeds. Real times are longer. Passes: image "
        "encoder, shared tokens, own tokens, each decoding step. Equal beginnings of "
        "questions are read once.",
        "FLOP: 2 per weight and token; 4 x heads x head size x layers per token and token that it "
        "attends to.",
        f"Each forced number reads {steps}, then 1 tokens by step: alternatives are followed for "
        "its standard deviation, as many as measured with vlm3-tiny. Answers in free text are as "
        "long as the wording's, or --answer-tokens.",
        f"Tokens are counted by {counted}.",
    ]
    lines += [
        f"{name}: {speed.flops_per_second / 1e12:g} TFLOP/s in dense bfloat16, "
        f"{speed.bytes_per_second / 1e9:,.1f} GB/s ({HARDWARE[name].source})"
        for name, speed in speeds.items()
        if name in HARDWARE
    ]
    return "\n".join(lines)


def _image_words(options: argparse.Namespace) -> str:
    if options.visual_tokens is not None:
        return f"image for about {options.visual_tokens:,} visual tokens"
    width, height = options.image_size or (DEFAULT_CAMERA.width, DEFAULT_CAMERA.height)
    return f"image of {width}x{height} px, focal length {options.fx or DEFAULT_CAMERA.fx:g} px"


def _digits(value: float) -> str:
    """Write a number with three digits."""
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def _sizes(sizes: Sequence[tuple[int, int]]) -> str:
    width, height = sizes[0]
    return (f"{len(sizes)} x " if len(sizes) > 1 else "") + f"{width}x{height}"


def _image_size(text: str) -> tuple[int, int]:
    try:
        return grid_size(text)
    except ArgumentTypeError:
        raise ArgumentTypeError(f"'{text}' is not an image size such as 640x480") from None


def _hardware(text: str) -> str:
    names = {name.lower(): name for name in HARDWARE}
    if text.lower() not in names:
        raise ArgumentTypeError(
            f"'{text}' has no published speed here: use {', '.join(map(repr, HARDWARE))}, or "
            "--flops and --bandwidth"
        )
    return names[text.lower()]
