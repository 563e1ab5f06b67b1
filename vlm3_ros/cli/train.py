"""`vlm3 train`: train a checkpoint."""

from __future__ import annotations

import argparse
import json
import logging
import os
from dataclasses import replace
from pathlib import Path

VALIDATION_SEED = 1_000_003
"""Seed of the views that score a run while it goes on; evaluations afterwards take others."""


def add_parser(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command."""
    parser = commands.add_parser(
        "train",
        help="train a checkpoint",
        description="Train a checkpoint as a YAML file says (config/training/*.yaml). A run that "
        "was cut off goes on where it stopped when the same command is given again.",
        epilog="example: vlm3 train config/training/tiny_depth.yaml --out out/training",
    )
    parser.add_argument("config", type=Path, help="YAML file of the run")
    parser.add_argument(
        "--out",
        type=Path,
        required=True,
        metavar="DIR",
        help="folder of checkpoints, log.json and, at the end, final/",
    )
    parser.add_argument(
        "--model",
        metavar="ID|DIR",
        help="checkpoint to start from in place of the file's: a folder, or an id of the hub",
    )
    parser.add_argument(
        "--set",
        nargs="+",
        action="extend",
        default=[],
        metavar="KEY=VALUE",
        help="single values in place of the file's, such as optimiser.steps=200",
    )
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Run the command."""
    from vlm3_ros.training.config import load_config
    from vlm3_ros.training.sources import check_sources

    config = load_config(options.config, options.set)
    if options.model:
        config = replace(config, model=options.model)
    # Where several processes train, the first one speaks.
    first = os.environ.get("RANK", "0") == "0"
    level = logging.INFO if first else logging.ERROR
    logging.basicConfig(level=level, format="%(asctime)s %(message)s", datefmt="%H:%M:%S")
    check_sources(config, str(options.config))
    # After the configuration: torch takes seconds, an error in a file should not.
    from vlm3_ros.training.card import score_table, spent, wait_share
    from vlm3_ros.training.sft import train

    def score(checkpoint: Path) -> dict[str, float]:
        return score_checkpoint(checkpoint, config.evaluation_views)

    final = train(config, options.out, score if config.evaluation_views else None)
    if first:
        log = json.loads((options.out / "log.json").read_text())
        print(score_table(log) or "not scored")
        print(f"trained for {spent(log)[0] / 60:.1f} min, {wait_share(log):.1%} waiting for data")
        print(f"wrote {final}")
    return 0


def score_checkpoint(checkpoint: Path, views: int) -> dict[str, float]:
    """Scores of a checkpoint on that many unseen procedural views, and pairs of views.

    `delta1` and `abs_rel`; of a checkpoint that can be asked about pairs `auc30`, `auc5` and
    `epe_share`, the error of its matches as a share of the image's width.
    """
    from vlm3_ros.engines.load import load_engine
    from vlm3_ros.engines.settings import EngineSettings
    from vlm3_ros.evaluation.synthetic import evaluate_synthetic
    from vlm3_ros.evaluation.synthetic_pairs import evaluate_pairs, knows_pairs

    engine = load_engine(EngineSettings(model=str(checkpoint), offline=True))
    try:
        model = evaluate_synthetic(engine, views, VALIDATION_SEED).overall.model
        scores = {"delta1": model.delta1, "abs_rel": model.abs_rel}
        if knows_pairs(engine):
            pairs = evaluate_pairs(engine, views, VALIDATION_SEED).overall
            scores |= {
                "auc30": pairs.pose.auc[30],
                "auc5": pairs.pose.auc[5],
                "epe_share": pairs.matches.epe_share,
            }
    finally:
        engine.close()
    return scores
