# SPDX-License-Identifier: Apache-2.0
"""The card of a trained checkpoint: what it is, how it was made, how good it was, how to use it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path

from vlm3_lab.training.config import TrainConfig
from vlm3_lab.training.run_folder import flat
from vlm3_lab.training.scores import SCORES

LINES = 20
"""Scores that a card shows at most: a long run has hundreds."""

Log = Sequence[Mapping[str, float]]


def write_card(folder: Path, config: TrainConfig, log: Log, hardware: str) -> None:
    """Write README.md to a final checkpoint's folder.

    Args:
        folder: of the checkpoint, in which `curves.png` lies.
        config: of the run.
        log: of the run, as `log.json` holds it.
        hardware: that it ran on, in words.
    """
    optimiser = config.optimiser
    losses = [entry["loss"] for entry in log if "loss" in entry]
    facts = {
        "base model": config.model or f"random weights (seed {config.seed})",
        "trained": f"adapters of rank {config.lora.rank}, merged"
        if config.lora.rank
        else "all weights",
        "steps": f"{optimiser.steps}, of {optimiser.batch_size * optimiser.accumulate} samples in "
        "each process",
        "hardware": hardware,
        "time": f"{spent(log)[0] / 60:.1f} min on questions, warm-ups apart, {wait_share(log):.1%} "
        "of them waiting for data",
        "loss": f"{losses[0]:.3f} at first, {losses[-1]:.3f} at last",
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
        "A vision language model that was trained with `vlm3 train` of vlm3_ros to answer about "
        "metric 3D. This card was written by the program that trained it; it knows the run, not "
        "what the model is good for. **Not to drive by** before you have measured it on your own "
        "data (`vlm3 evaluate`).",
        _table(("", ""), list(facts.items())),
        "## Use",
        "```\nros2 launch vlm3_ros depth.launch.py model:=PATH/TO/THIS/FOLDER\n"
        "vlm3 ask PHOTO --model PATH/TO/THIS/FOLDER\n```",
        "`vlm3.json` beside the weights tells every node and command how it is to be asked.",
        "## Scores during training",
        score_table(log) or "It was not scored.",
        "Of unseen procedural scenes; `held_out_` of frames that the run's own datasets hold back.",
        "![loss and scores over the steps](curves.png)",
        "## Recipe",
        _table(("key", "value"), [(f"`{key}`", _text(value)) for key, value in recipe.items()]),
        "## Licence",
        f"That of the base model, see `{config.model}`, and of the data."
        if config.model
        else "These weights started from random ones: they are under the licence of the data.",
    ]
    (folder / "README.md").write_text("\n\n".join(texts) + "\n", encoding="utf-8")


def score_table(log: Log) -> str:
    """Scores at checkpoints, as a Markdown table; empty where there are none."""
    scored = [entry for entry in log if any(name in entry for name in SCORES)]
    names = [name for name in SCORES if any(name in entry for entry in scored)]
    if not scored:
        return ""
    # The last one always.
    shown = scored[:: -(-len(scored) // LINES) * -1][::-1]
    rows = [
        (str(entry["step"]), *(f"{entry[name]:.3f}" if name in entry else "" for name in names))
        for entry in shown
    ]
    return _table(("step", *names), rows)


def spent(log: Log) -> tuple[float, float]:
    """Seconds of training, scoring and saving apart, and those of them that waited for data."""
    last = next((entry for entry in reversed(log) if "seconds" in entry), {})
    return last.get("seconds", 0.0), last.get("waited_seconds", 0.0)


def wait_share(log: Log) -> float:
    """Share of the training time in which there was no data."""
    seconds, waited = spent(log)
    return waited / seconds if seconds else 0.0


def _counts(config: TrainConfig, section: str) -> bool:
    """Whether a section of a configuration had a part in its run."""
    if section == "lora":
        return bool(config.lora.rank)
    if section in config.warmups:
        return bool(getattr(config, section).optimiser.steps)
    return True


def _text(value: object) -> str:
    if isinstance(value, (list, tuple)):
        return ", ".join(map(str, value)) or "all"
    if value == {}:
        return "ever new procedural scenes"  # the only mapping that may be empty: `data.sources`
    return str(value)


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)
