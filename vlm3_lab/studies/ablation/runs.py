# SPDX-License-Identifier: Apache-2.0
"""The paper's findings (sections 3.1 and 4.2) as training runs that differ in one thing each.

An arm defines how a view becomes images and questions, and how scenes are drawn. All arms start
from the same weights and see the same scenes, pixels and number of labels.
"""

from __future__ import annotations

import json
import logging
import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from typing_extensions import override

from vlm3_lab.studies.ablation.markers import QUESTION, ask_marked_depth, draw_marker
from vlm3_lab.studies.ablation.results import ArmScore, Finding, read_score, write_score
from vlm3_lab.studies.tasks.depth import AskView, score_view
from vlm3_lab.training.checkpoint import extend_checkpoint, has_own_words, word_tokenizer
from vlm3_lab.training.config import ConfigError, DataConfig, TrainConfig, WarmupConfig, check
from vlm3_lab.training.packing import Packer, QuestionAnswer
from vlm3_lab.training.samples import ModelInput, ViewSamples, sample_pixels
from vlm3_lab.training.sft import train, warm_up
from vlm3_lab.training.streams import stream_of
from vlm3_lab.training.tasks.depth import depth_pairs
from vlm3_lab.training.trainer import Lesson
from vlm3_lab.training.warmups.dense_depth import DenseDepth
from vlm3_lab.training.warmups.run import WARMUPS, dense_depth_warmup
from vlm3_ros.datasets.views import View
from vlm3_ros.engines.base import Engine
from vlm3_ros.engines.load import load_engine
from vlm3_ros.engines.profiles import PROFILE_FILE, authors_profile, read_profile
from vlm3_ros.engines.settings import EngineSettings
from vlm3_ros.geometry.camera import PinholeCamera
from vlm3_ros.language.prompts import load_prompt_set
from vlm3_ros.language.wordings.depth import DepthWording
from vlm3_ros.tasks.depth import DepthAnswers, ask_depth

logger = logging.getLogger(__name__)

MEAN_AREA = 2.4
"""Mean of width / fx * height / fy over the cameras of procedural views (`sample_camera`)."""

EVALUATION_SEED = 1_000_033
"""Seed of the views that all arms are scored on."""

PIXELS_PER_VIEW = 5
"""Few, because errors within one image are correlated: more images say more than more pixels."""

MAX_NEW_TOKENS = 48
"""Limit for answers that do not keep to their form; longer than an answer in any wording."""

_SEED_STRIDE = 1000


@dataclass(frozen=True)
class Arm:
    """A training run: the paper's method except for these choices.

    Attributes:
        words: description for tables.
        images: "unified" to one focal length, or "as_they_are": all resized to the same area for
            any lens. Answers are metres.
        pixels: named by coordinates in "text", or by an "arrow" on a copy of the image per pixel.
        weights: of the sources, as in `DataConfig`.
        prompts: name of a shipped prompt set, whose wording replaces the recipe's. Its words and
            digits are one token each; the arms that have one share a tokenizer.
    """

    name: str
    words: str
    images: Literal["unified", "as_they_are"] = "unified"
    pixels: Literal["text", "arrow"] = "text"
    weights: Literal["given", "uniform", "size"] = "given"
    prompts: str = ""


ARMS = (
    Arm("vlm3", "unified focal length, pixels in text, tuned weights"),
    Arm("as_they_are", "images as they are", images="as_they_are"),
    Arm("size", "weights by size", weights="size"),
    Arm("uniform", "uniform weights", weights="uniform"),
    Arm("authors", "the authors' wording (vlm3-depth)", prompts="vlm3-depth"),
    Arm("last", "coordinates last, short answer (vlm3-last)", prompts="vlm3-last"),
    # Last, because it takes longest: a run that is cut off then has the others.
    Arm("arrow", "pixels by drawn arrows", pixels="arrow"),
)

FINDINGS = (
    Finding("cameras", "Images of mixed cameras", ("vlm3", "as_they_are"), {}),
    Finding("pixels", "How a pixel is named", ("vlm3", "arrow"), {"vlm3": 0.853, "arrow": 0.849}),
    Finding(
        "mixture",
        "How sources of different size are mixed",
        ("vlm3", "size", "uniform"),
        {"vlm3": 0.904, "size": 0.884, "uniform": 0.842},
    ),
    Finding("wording", "How a question is worded", ("authors", "last"), {}),
)
"""With delta1 from the paper's table 3, which has no number for cameras and wordings."""


def run_ablation(
    config: TrainConfig,
    arms: Sequence[Arm],
    folder: Path | str,
    seeds: int,
    views: int,
    report: Callable[[list[ArmScore]], None] = lambda scores: None,
) -> list[ArmScore]:
    """Train and score all arms, or continue a run that was cut off in the same folder.

    Args:
        config: the recipe of every arm; the weights of its sources are the tuned ones.
        folder: gets `settings.json`, `warmups/` and `arms/`.
        seeds: number of repetitions, with other initial weights and another draw of scenes.
        views: number of unseen procedural views that every arm is scored on.
        report: called after each arm with all scores so far.

    Raises:
        ConfigError: if the folder holds a run of another recipe, a source has no size to weight it
            by, or the recipe teaches more than depth.
    """
    warm = [key for key, part in config.warmups.items() if part.optimiser.steps]
    if config.data.share("depth") < 1 or set(warm) - {"warmup"}:
        raise ConfigError(
            "data.tasks or a warm-up: all arms learn depth alone and are scored on it; remove the "
            "other tasks from the recipe"
        )
    for arm in arms:
        _check_weights(arm_config(config, arm, 0), arm)
    # Absolute, because an arm's configuration holds the path of the checkpoint it starts from.
    folder = Path(folder).resolve()
    folder.mkdir(parents=True, exist_ok=True)
    _check_settings(config, folder / "settings.json")
    scores: list[ArmScore] = []
    for seed in range(seeds):
        for arm in arms:
            logger.info("arm %s, seed %d: %s", arm.name, seed, arm.words)
            scores.append(_run_arm(arm_config(config, arm, seed), arm, folder, seed, views))
            report(scores)
    return scores


def arm_config(config: TrainConfig, arm: Arm, seed: int) -> TrainConfig:
    """The recipe of one arm."""
    data, warm = config.data, config.warmup.data
    offset = seed * _SEED_STRIDE
    return replace(
        config,
        seed=config.seed + offset,
        data=replace(data, weights=arm.weights, seed=data.seed + offset),
        warmup=replace(
            config.warmup, data=replace(warm, weights=arm.weights, seed=warm.seed + offset)
        ),
    )


def arm_camera(arm: Arm, camera: PinholeCamera) -> PinholeCamera:
    """The camera that an arm assumes for an image.

    "as_they_are" assumes the same field of view for all images, so that focal unification resizes
    them all to the same area, and answers are metres. The area is the mean area of unified images,
    so that both kinds enter with the same number of tokens.
    """
    if arm.images == "unified":
        return camera
    width, height = camera.width, camera.height
    focal = math.sqrt(width * height / MEAN_AREA)
    return PinholeCamera(width, height, focal, focal, (width - 1) / 2, (height - 1) / 2)


class ArmDense(DenseDepth):
    """Views with the depth of all their cells, as an arm sees them."""

    def __init__(self, arm: Arm, model: ModelInput, data: DataConfig):
        super().__init__(model, data)
        self._arm = arm

    @override
    def variant(self, scene: View, repeat: int) -> View:
        return _as_seen(self._arm, super().variant(scene, repeat))


AskedImages = tuple[tuple[NDArray[np.uint8], list[QuestionAnswer]], ...]
"""Images of one view, shape (height, width, 3), each with the questions about it."""


class ArmQuestions(ViewSamples[AskedImages]):
    """Depth questions about random pixels of views, as an arm sees and asks them.

    The pixels are the same for all arms.
    """

    def __init__(self, arm: Arm, model: ModelInput, data: DataConfig):
        super().__init__(model, data)
        self._arm = arm

    @override
    def variant(self, scene: View, repeat: int) -> View:
        return _as_seen(self._arm, super().variant(scene, repeat))

    @override
    def sample(self, scene: View, rng: np.random.Generator) -> AskedImages:
        pixels = sample_pixels(scene, self._data.questions, rng)
        image, pairs = depth_pairs(scene, pixels, self._model)
        if self._arm.pixels == "text":
            return ((image, pairs),)
        tips = self._model.unified(scene).to_view(pixels)
        return tuple(
            (draw_marker(image, tip), [(QUESTION, answer)])
            for tip, (_, answer) in zip(tips, pairs, strict=True)
        )

    @override
    def length(self, sample: AskedImages) -> int:
        return sample[0][0].size


def pack_copies(packer: Packer, samples: list[AskedImages]) -> dict[str, Any]:
    """A batch for `packed_loss` from samples of `ArmQuestions`."""
    return packer.collate(
        [packer.pack([image], pairs) for view in samples for image, pairs in view]
    )


def ask_as(arm: Arm, engine: Engine) -> AskView:
    """The function with which an arm asks for the depth of pixels of a view."""
    ask = ask_depth if arm.pixels == "text" else ask_marked_depth

    def ask_view(view: View, pixels: NDArray[np.float64]) -> DepthAnswers:
        return ask(engine, view.image, arm_camera(arm, view.camera), pixels)

    return ask_view


def _as_seen(arm: Arm, view: View) -> View:
    return replace(view, camera=arm_camera(arm, view.camera))


def _arm_folder(folder: Path, arm: Arm, seed: int) -> Path:
    return folder / "arms" / f"{arm.name}-{seed}"


def _run_arm(config: TrainConfig, arm: Arm, folder: Path, seed: int, views: int) -> ArmScore:
    """Train and score one arm, unless that is already done."""
    result = _arm_folder(folder, arm, seed) / "score.json"
    if result.is_file() and len((score := read_score(result)).views) == views:
        return score
    warmup, trained = _train_arm(config, arm, folder, seed)
    settings = EngineSettings(str(trained / "final"), offline=True, max_new_tokens=MAX_NEW_TOKENS)
    logger.info("asking about %d unseen views", views)
    engine = load_engine(settings)
    try:
        ask = ask_as(arm, engine)
        scored = [score_view(ask, EVALUATION_SEED, i, PIXELS_PER_VIEW) for i in range(views)]
    finally:
        engine.close()
    optimiser = config.optimiser
    samples = optimiser.steps * optimiser.batch_size * optimiser.accumulate
    score = ArmScore(
        arm.name,
        seed,
        tuple(scored),
        labels=samples * config.data.questions,
        warmup_seconds=_seconds(warmup),
        seconds=_seconds(trained),
    )
    write_score(score, result)
    return score


def _train_arm(config: TrainConfig, arm: Arm, folder: Path, seed: int) -> tuple[Path, Path]:
    """Train one arm, unless that is already done; return the folders of its two parts."""
    # Arms that differ only in the questions share the warm-up, which has none.
    warmup = folder / "warmups" / f"{arm.images}-{arm.weights}-{seed}"
    warmups = {**WARMUPS, "warmup": dense_depth_warmup(partial(ArmDense, arm))}
    start = warm_up(config, warmup, warmups)
    arm_folder = _arm_folder(folder, arm, seed)
    lesson = Lesson(
        stream_of(partial(ArmQuestions, arm)), lambda packer: partial(pack_copies, packer)
    )
    train(_asked_as(arm, config, start, folder, seed), arm_folder, lesson=lesson)
    return warmup / "warmup", arm_folder


def _asked_as(arm: Arm, config: TrainConfig, start: Path, folder: Path, seed: int) -> TrainConfig:
    """The recipe of an arm's questions, from a checkpoint that is asked in the arm's wording.

    Raises:
        ConfigError: if the checkpoint has learned another wording, and its tokenizer is not ours.
    """
    config = replace(config, model=str(start), warmup=WarmupConfig())
    if not arm.prompts:
        return config
    is_ours = (start / PROFILE_FILE).is_file()
    if not is_ours and authors_profile(config.model) is None:
        return replace(config, profile=replace(config.profile, prompts=arm.prompts))
    if not is_ours or not has_own_words(start, known := read_profile(start)):
        raise ConfigError(
            f"arm {arm.name}: {start} has learned a wording already: start from random weights or "
            "from a model without vlm3.json, without a warm-up, or leave the finding out"
        )
    # Equal weights for all wordings: one tokenizer has the words of all of them.
    reworded = folder / "starts" / f"{arm.prompts}-{seed}"
    if not (reworded / PROFILE_FILE).is_file():
        wordings = [load_prompt_set(other.prompts) for other in ARMS if other.prompts]
        texts = [text for prompts in wordings for text in prompts[DepthWording].templates()]
        prompts = load_prompt_set(arm.prompts)
        extend_checkpoint(
            start,
            reworded,
            replace(known, prompts=replace(prompts, wordings={"depth": prompts[DepthWording]})),
            word_tokenizer(texts),
        )
    return replace(config, model=str(reworded))


def _seconds(folder: Path) -> float:
    """Seconds of a training over all sittings; 0 if there was none."""
    path = folder / "log.json"
    log = json.loads(path.read_text()) if path.is_file() else []
    return max((float(entry["seconds"]) for entry in log if "seconds" in entry), default=0.0)


def _check_settings(config: TrainConfig, path: Path) -> None:
    settings = json.dumps(asdict(config), indent=1, sort_keys=True)
    if not path.is_file():
        path.write_text(settings)
    elif path.read_text() != settings:
        raise ConfigError(
            f"{path} is of another recipe: choose another folder, or use the recipe and options "
            "that it started with"
        )


def _check_weights(config: TrainConfig, arm: Arm) -> None:
    parts = {"data": config.data}
    if config.warmup.optimiser.steps:
        parts["warmup.data"] = config.warmup.data
    for name, data in parts.items():
        where = f"arm {arm.name}: {name}"
        weighed = [source for source in data.sources.values() if source.weight]
        if arm.weights != "given" and len(weighed) < 2:
            raise ConfigError(f"{where}.sources must hold at least two sources to weight")
        check(data, f"{where}.")
