# SPDX-License-Identifier: Apache-2.0
"""`vlm3 ablate`: repeat the paper's findings."""

from __future__ import annotations

import argparse
import logging
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from vlm3_lab.cli.train import check_accelerate
from vlm3_ros.cli.arguments import positive_integer
from vlm3_ros.errors import CommandError
from vlm3_ros.paths import share_folder

if TYPE_CHECKING:
    from vlm3_lab.studies.ablation.results import ArmScore, Finding
    from vlm3_lab.studies.ablation.runs import Arm
    from vlm3_lab.training.config import TrainConfig

FINDINGS = ("cameras", "pixels", "mixture", "wording")


def add_parser(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command."""
    parser = commands.add_parser(
        "ablate",
        help="repeat the paper's findings by training small models",
        description="Train the paper's method and variants that lack one of its findings: cameras "
        "(no focal unification), pixels (drawn arrows instead of coordinates in text), mixture "
        "(sources weighted by size or equally). The finding wording is ours: it compares the "
        "authors' wording of questions with one that needs fewer tokens. Score all on the same "
        "unseen procedural views. The tables are written as ablation.md, ablation.json and "
        "ablation.png, and updated after each training. To continue a run that was cut "
        "off, give the same command again; finished trainings are not repeated.",
        epilog="example: vlm3 ablate --out out/ablation",
    )
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="folder of results")
    parser.add_argument(
        "--config",
        type=Path,
        metavar="YAML",
        help="recipe of every training, as for `vlm3 train`; the weights of its sources are the "
        "tuned ones (default: config/training/ablation.yaml)",
    )
    parser.add_argument(
        "--model",
        metavar="PATH_OR_ID",
        help="checkpoint to start from, without warm-up, instead of random weights",
    )
    parser.add_argument(
        "--steps",
        type=positive_integer,
        metavar="N",
        help="steps of each training; scales the warm-up as well (default: from the recipe)",
    )
    parser.add_argument(
        "--seeds",
        type=positive_integer,
        default=1,
        metavar="K",
        help="repeat everything with K seeds (default: 1)",
    )
    parser.add_argument(
        "--views",
        type=positive_integer,
        default=400,
        metavar="M",
        help="unseen views to score on, at least 2 (default: 400)",
    )
    parser.add_argument(
        "--only",
        type=_findings,
        default=FINDINGS,
        metavar="FINDING,...",
        help=f"findings to repeat: {', '.join(FINDINGS)} (default: all)",
    )
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Run the command."""
    from vlm3_lab.training.config import load_config
    from vlm3_lab.training.sources import check_sources

    if options.views < 2:
        raise CommandError("--views must be at least 2: intervals need two")
    path = options.config or share_folder() / "config" / "training" / "ablation.yaml"
    config = _changed(load_config(path), options.model, options.steps)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", datefmt="%H:%M:%S")
    check_sources(config, str(path))
    check_accelerate()
    # After the configuration is checked: importing torch takes seconds.
    from vlm3_lab.studies.ablation.runs import ARMS, run_ablation
    from vlm3_lab.studies.ablation.runs import FINDINGS as ALL_FINDINGS

    findings = [finding for finding in ALL_FINDINGS if finding.name in options.only]
    names = {name for finding in findings for name in finding.arms}
    arms = [arm for arm in ARMS if arm.name in names]

    def write(scores: list[ArmScore]) -> None:
        _write(findings, scores, arms, options.out)

    run_ablation(config, arms, options.out, options.seeds, options.views, write)
    print((options.out / "ablation.md").read_text(encoding="utf-8"))
    print(f"wrote ablation.md, ablation.json and ablation.png to {options.out}")
    return 0


def _findings(text: str) -> tuple[str, ...]:
    names = tuple(text.split(","))
    if unknown := [name for name in names if name not in FINDINGS]:
        raise argparse.ArgumentTypeError(f"{unknown[0]!r} is not one of {', '.join(FINDINGS)}")
    return names


def _changed(config: TrainConfig, model: str | None, steps: int | None) -> TrainConfig:
    """The recipe with another start or another length."""
    if steps is not None:
        ratio = steps / config.optimiser.steps
        warm = config.warmup.optimiser
        if warm.steps:
            warm = replace(warm, steps=max(1, round(warm.steps * ratio)))
        config = replace(
            config,
            optimiser=replace(config.optimiser, steps=steps),
            warmup=replace(config.warmup, optimiser=warm),
        )
    if model is not None:
        none = replace(config.warmup, optimiser=replace(config.warmup.optimiser, steps=0))
        config = replace(config, model=model, warmup=none)
    return config


def _write(findings: list[Finding], scores: list[ArmScore], arms: list[Arm], folder: Path) -> None:
    from vlm3_lab.studies.ablation.results import ablation_json, ablation_markdown, draw_ablation
    from vlm3_ros.evaluation.json_file import write_json

    words = {arm.name: arm.words for arm in arms}
    (folder / "ablation.md").write_text(
        ablation_markdown(findings, scores, words), encoding="utf-8"
    )
    write_json(folder / "ablation.json", ablation_json(findings, scores, words))
    draw_ablation(findings, scores, words, folder / "ablation.png")
