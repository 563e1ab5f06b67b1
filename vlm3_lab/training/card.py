# SPDX-License-Identifier: Apache-2.0
"""The card of a trained checkpoint: origin, recipe, scores and use."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path

from vlm3_lab.training.config import TrainConfig
from vlm3_lab.training.run_folder import flat
from vlm3_lab.training.scores import SCORES
from vlm3_ros.engines.base import Profile
from vlm3_ros.engines.profiles import conventions

LINES = 20
"""Largest number of score rows on a card: a long run has hundreds."""

Log = Sequence[Mapping[str, float]]


def write_card(
    folder: Path, config: TrainConfig, profile: Profile, log: Log, hardware: str
) -> None:
    """Write README.md to a final checkpoint's folder.

    Args:
        folder: of the checkpoint; it already holds `curves.png`.
        config: of the run.
        profile: of the checkpoint.
        log: content of `log.json`.
        hardware: that the run used, in words.
    """
    optimiser = config.optimiser
    losses = [entry["loss"] for entry in log if "loss" in entry]
    facts = {
        "base model": config.model or f"random weights (seed {config.seed})",
        "trained": f"adapters of rank {config.lora.rank}, merged"
        if config.lora.rank
        else "all weights",
        "steps": f"{optimiser.steps}, each with {optimiser.batch_size * optimiser.accumulate} "
        "samples per process",
        "hardware": hardware,
        "time": f"{spent(log)[0] / 60:.1f} min on questions, without warm-ups; "
        f"{wait_share(log):.1%} of it waiting for data",
        "loss": f"{losses[0]:.3f} at the start, {losses[-1]:.3f} at the end",
        "weights": "safetensors, bfloat16",
    }
    recipe = {
        key: value
        for section in ("data", "optimiser", "lora", *config.warmups)
        for key, value in flat(asdict(config)[section], f"{section}.").items()
        if _counts(config, section)
    }
    texts = [
        f"# {folder.resolve().parent.parent.name}",
        "A vision language model for metric 3D, trained with `vlm3 train` of vlm3_ros. The "
        "training program wrote this card; it describes the run, not what the model is good for. "
        "**Do not drive a robot by it** before you have measured it on your own data (`vlm3 "
        "evaluate`).",
        _table(("", ""), list(facts.items())),
        "## Use",
        "```\nros2 launch vlm3_ros depth.launch.py model:=PATH/TO/THIS/FOLDER\n"
        "vlm3 ask PHOTO --model PATH/TO/THIS/FOLDER\n```",
        f"`vlm3.json` next to the weights defines how every node and command asks it: "
        f"{conventions(profile)}.",
        "## Scores during training",
        score_table(log) or "It was not scored.",
        "On unseen procedural scenes; `held_out_`: on frames that the run's datasets hold out.",
        "![loss and scores over the steps](curves.png)",
        "## Recipe",
        _table(("key", "value"), [(f"`{key}`", _text(value)) for key, value in recipe.items()]),
        "## Licence",
        f"That of the base model, see `{config.model}`, and that of the data."
        if config.model
        else "The weights started at random: the licence is that of the data.",
    ]
    (folder / "README.md").write_text("\n\n".join(texts) + "\n", encoding="utf-8")


def score_table(log: Log) -> str:
    """Scores at checkpoints as a Markdown table; empty if there are none."""
    scored = [entry for entry in log if any(name in entry for name in SCORES)]
    names = [name for name in SCORES if any(name in entry for entry in scored)]
    if not scored:
        return ""
    # Counted from the end, so that the last one is always shown.
    shown = scored[:: -(-len(scored) // LINES) * -1][::-1]
    rows = [
        (str(entry["step"]), *(f"{entry[name]:.3f}" if name in entry else "" for name in names))
        for entry in shown
    ]
    return _table(("step", *names), rows)


def spent(log: Log) -> tuple[float, float]:
    """Seconds of training without scoring and saving, and those spent waiting for data."""
    last = next((entry for entry in reversed(log) if "seconds" in entry), {})
    return last.get("seconds", 0.0), last.get("waited_seconds", 0.0)


def wait_share(log: Log) -> float:
    """Share of the training time spent waiting for data."""
    seconds, waited = spent(log)
    return waited / seconds if seconds else 0.0


def _counts(config: TrainConfig, section: str) -> bool:
    """Whether a section of a configuration affected its run."""
    if section == "lora":
        return bool(config.lora.rank)
    if section in config.warmups:
        return bool(getattr(config, section).optimiser.steps)
    return True


def _text(value: object) -> str:
    if isinstance(value, (list, tuple)):
        return ", ".join(map(str, value)) or "all"
    if value == {}:
        return "always new procedural scenes"  # the only mapping that may be empty: `data.sources`
    return str(value)


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)
