# SPDX-License-Identifier: Apache-2.0
"""`vlm3 train`: train a checkpoint."""

from __future__ import annotations

import argparse
import importlib.util
import json
import logging
import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from vlm3_ros.errors import CommandError

if TYPE_CHECKING:
    from vlm3_lab.training.config import TrainConfig
    from vlm3_ros.datasets.depthlm import LabelledImage
    from vlm3_ros.evaluation.metrics.depth import DepthMetrics

VALIDATION_SEED = 1_000_003
"""Seed of the views that score a run; later evaluations use others."""


def add_parser(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command."""
    parser = commands.add_parser(
        "train",
        help="train a checkpoint",
        description="Train a checkpoint by the recipe in a YAML file (config/training/*.yaml). To "
        "continue a run that was cut off, give the same command again.",
        epilog="example: vlm3 train config/training/tiny_views.yaml --out out/training",
    )
    parser.add_argument("config", type=Path, help="recipe of the run")
    parser.add_argument(
        "--out",
        type=Path,
        required=True,
        metavar="DIR",
        help="folder for checkpoints, log.json and, at the end, final/",
    )
    parser.add_argument(
        "--model",
        metavar="ID|DIR",
        help="checkpoint to start from instead of the recipe's: a folder, or an id on the hub",
    )
    parser.add_argument(
        "--set",
        nargs="+",
        action="extend",
        default=[],
        metavar="KEY=VALUE",
        help="override single values of the recipe, for example optimiser.steps=200",
    )
    parser.set_defaults(run=run)


def check_accelerate() -> None:
    """Raise CommandError if accelerate is missing: transformers' Trainer needs it."""
    if importlib.util.find_spec("accelerate") is None:
        raise CommandError("training needs accelerate: pip install 'accelerate>=1.10,<2'")


def run(options: argparse.Namespace) -> int:
    """Run the command."""
    from vlm3_lab.training.config import load_config
    from vlm3_lab.training.sources import check_sources

    config = load_config(options.config, options.set)
    if options.model:
        config = replace(config, model=options.model)
    # If several processes train, only the first one logs.
    first = os.environ.get("RANK", "0") == "0"
    level = logging.INFO if first else logging.ERROR
    logging.basicConfig(level=level, format="%(asctime)s %(message)s", datefmt="%H:%M:%S")
    check_sources(config, str(options.config))
    check_accelerate()
    # After the configuration is checked: importing torch takes seconds.
    from vlm3_lab.training.card import score_table, spent, wait_share
    from vlm3_lab.training.sft import train

    held_out = held_out_images(config)

    def score(checkpoint: Path) -> dict[str, float]:
        return score_checkpoint(checkpoint, config, held_out)

    final = train(config, options.out, score if config.evaluation_views else None)
    if first:
        log = json.loads((options.out / "log.json").read_text())
        print(score_table(log) or "not scored")
        print(f"trained for {spent(log)[0] / 60:.1f} min, {wait_share(log):.1%} waiting for data")
        print(f"wrote {final}")
    return 0


def score_checkpoint(
    checkpoint: Path, config: TrainConfig, held_out: Sequence[LabelledImage] = ()
) -> dict[str, float]:
    """Score a checkpoint on unseen views, in the tasks that the run teaches.

    Returns:
        `delta1` and `abs_rel` on procedural views, `held_out_delta1` and `held_out_abs_rel` on the
        frames of `held_out_images`; on procedural pairs `auc30`, `auc5` and `epe_share`, the error
        of matches as a share of the image's width; for objects `relations`, the share of right
        answers about two objects, and `quantities`, the share of close lengths and directions.
    """
    from vlm3_lab.studies.tasks.depth import evaluate_depth
    from vlm3_lab.studies.tasks.objects import evaluate_objects
    from vlm3_lab.studies.tasks.pairs import evaluate_pairs
    from vlm3_ros.datasets.depthlm import DepthLmFile
    from vlm3_ros.engines.load import load_engine
    from vlm3_ros.engines.settings import EngineSettings
    from vlm3_ros.evaluation.depthlm import evaluate_dataset
    from vlm3_ros.tasks.correspondence import CORRESPONDENCE
    from vlm3_ros.tasks.pose import POSE

    scores: dict[str, float] = {}
    engine = load_engine(EngineSettings(model=str(checkpoint), offline=True))
    try:
        if config.data.share("depth"):
            model = evaluate_depth(engine, config.evaluation_views, VALIDATION_SEED)
            scores |= _depth_scores(model.overall.model, "")
            if held_out:
                own = evaluate_dataset(engine, DepthLmFile("held-out frames", held_out))
                scores |= _depth_scores(own.model, "held_out_")
        if config.learns("pairs"):
            pairs = evaluate_pairs(engine, config.evaluation_views, VALIDATION_SEED)
            motion, matches = pairs.motion.overall.model, pairs.matches.overall.model
            learned = engine.profile.prompts.wordings
            if POSE.name in learned:
                scores |= {"auc30": motion.auc[30], "auc5": motion.auc[5]}
            if CORRESPONDENCE.name in learned:
                scores["epe_share"] = matches.epe_share
        if config.learns("objects"):
            objects = evaluate_objects(engine, config.evaluation_views, VALIDATION_SEED).overall
            scores |= {
                "relations": objects.model.accuracy,
                "quantities": objects.model.success,
            }
    finally:
        engine.close()
    return scores


def held_out_images(config: TrainConfig) -> list[LabelledImage]:
    """Frames to score a run on, which it does not learn from, evenly from its datasets.

    Raises:
        DatasetError: naming a line that cannot be read.
    """
    from vlm3_ros.datasets.depthlm import read_depthlm
    from vlm3_ros.datasets.own import HELD_OUT

    if not config.evaluation_views:
        return []
    warmups = [part.data for part in config.warmups.values() if part.optimiser.steps]
    # Datasets whose held-out frames are used in training by any part of the run.
    seen = {
        Path(source.dataset)
        for data in (config.data, *warmups)
        for source in data.sources.values()
        if source.weight and source.frames != "train"
    }
    own = {Path(s.dataset): None for s in config.data.sources.values() if s.dataset and s.weight}
    files = [folder / HELD_OUT for folder in own if folder not in seen]
    # The file exists and is empty if no frame is held out.
    images = [
        image
        for file in files
        if file.is_file() and file.stat().st_size
        for image in read_depthlm(file).lines
    ]
    return images[:: -(-len(images) // config.evaluation_views) or 1]


def _depth_scores(metrics: DepthMetrics, prefix: str) -> dict[str, float]:
    return {f"{prefix}delta1": metrics.delta1, f"{prefix}abs_rel": metrics.abs_rel}
