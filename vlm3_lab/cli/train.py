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
    from vlm3_ros.datasets.source import FrameSource
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

    held_out = held_out_frames(config)

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
    checkpoint: Path,
    config: TrainConfig,
    held_out: Sequence[tuple[FrameSource, list[int]]] = (),
) -> dict[str, float]:
    """Score a checkpoint on unseen views, in the tasks that the run teaches.

    Returns:
        `delta1` and `abs_rel` on procedural views, `held_out_delta1` and `held_out_abs_rel` on the
        frames of `held_out_frames`; on procedural pairs `auc30`, `auc5` and `epe_share`, the error
        of matches as a share of the image's width; for objects `relations`, the share of right
        answers about two objects, and `quantities`, the share of close lengths and directions.
    """
    from vlm3_lab.studies.tasks.depth import evaluate_depth
    from vlm3_lab.studies.tasks.objects import evaluate_objects
    from vlm3_lab.studies.tasks.pairs import evaluate_pairs
    from vlm3_ros.engines.load import load_engine
    from vlm3_ros.engines.settings import EngineSettings
    from vlm3_ros.evaluation.dataset.depth import score_frames
    from vlm3_ros.evaluation.dataset.reading import FrameReader
    from vlm3_ros.evaluation.dataset.settings import DataSettings
    from vlm3_ros.evaluation.parts.depth import scores_of_views
    from vlm3_ros.tasks.correspondence import CORRESPONDENCE
    from vlm3_ros.tasks.pose import POSE

    scores: dict[str, float] = {}
    engine = load_engine(EngineSettings(model=str(checkpoint), offline=True))
    try:
        if config.data.share("depth"):
            model = evaluate_depth(engine, config.evaluation_views, VALIDATION_SEED)
            scores |= _depth_scores(model.overall.model, "")
            if held_out:
                views = [
                    view
                    for source, frames in held_out
                    for view in score_frames(engine, FrameReader(source), frames, DataSettings())
                ]
                scores |= _depth_scores(scores_of_views(views).overall.model, "held_out_")
        if config.learns("pairs"):
            pairs = evaluate_pairs(engine, config.evaluation_views, VALIDATION_SEED)
            learned = engine.profile.prompts.wordings
            if pairs.motion and POSE.name in learned:
                auc = pairs.motion.overall.model.auc
                scores |= {"auc30": auc[30], "auc5": auc[5]}
            if pairs.matches and CORRESPONDENCE.name in learned:
                scores["epe_share"] = pairs.matches.overall.model.epe_share
        if config.learns("objects"):
            objects = evaluate_objects(engine, config.evaluation_views, VALIDATION_SEED).overall
            scores |= {
                "relations": objects.model.accuracy,
                "quantities": objects.model.success,
            }
    finally:
        engine.close()
    return scores


def held_out_frames(config: TrainConfig) -> list[tuple[FrameSource, list[int]]]:
    """Choose frames to score a run on, which it does not learn from, evenly from its data sets.

    Returns:
        The data sets that have any, with the numbers of their frames.

    Raises:
        DatasetError: naming the file of a data set that cannot be read.
    """
    import numpy as np

    from vlm3_ros.datasets.opening import FORMATS

    if not config.evaluation_views:
        return []
    warmups = [part.data for part in config.warmups.values() if part.optimiser.steps]
    # Data sets whose held-out frames are used in training by any part of the run.
    seen = {
        (source.format, source.path)
        for data in (config.data, *warmups)
        for source in data.sources.values()
        if source.format and source.weight and source.frames != "train"
    }
    own = {(s.format, s.path): s for s in config.data.sources.values() if s.format and s.weight}
    opened = [
        FORMATS[source.format].open(source.path, source.options)
        for key, source in own.items()
        if key not in seen
    ]
    held_out = [
        (source, int(frame))
        for source in opened
        for frame in np.flatnonzero(source.contents.is_held_out & source.contents.has_depth)
    ]
    chosen = held_out[:: -(-len(held_out) // config.evaluation_views) or 1]
    frames = [(source, [frame for one, frame in chosen if one is source]) for source in opened]
    return [(source, numbers) for source, numbers in frames if numbers]


def _depth_scores(metrics: DepthMetrics, prefix: str) -> dict[str, float]:
    return {f"{prefix}delta1": metrics.delta1, f"{prefix}abs_rel": metrics.abs_rel}
