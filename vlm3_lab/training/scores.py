# SPDX-License-Identifier: Apache-2.0
"""The scores of a run at its checkpoints: the log, and the curves as a picture."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments
from typing_extensions import override

from vlm3_lab.training.models import whole_checkpoint
from vlm3_lab.training.run_folder import replace_text, writing

SCORES = (
    "delta1",
    "abs_rel",
    "auc30",
    "auc5",
    "epe_share",
    "relations",
    "quantities",
    "held_out_delta1",
    "held_out_abs_rel",
)

Score = Callable[[Path], dict[str, float]]
"""Scores a checkpoint folder; names and values go into the log and the curves."""

logger = logging.getLogger(__name__)


class Scoring(TrainerCallback):
    """Scores every checkpoint and writes the log; without `score` it only writes the log."""

    def __init__(self, folder: Path, score: Score | None = None):
        self._folder, self._score = folder, score

    @override
    def on_save(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        if state.is_world_process_zero:
            self._note(self._folder / f"checkpoint-{state.global_step}", state)

    def catch_up(self, checkpoint: Path) -> None:
        """Score a whole checkpoint whose run was cut off before it was scored."""
        state = TrainerState.load_from_json(str(checkpoint / "trainer_state.json"))
        scored = {entry["step"] for entry in state.log_history if "loss" not in entry}
        if self._score is not None and state.global_step not in scored:
            self._note(checkpoint, state)

    def _note(self, checkpoint: Path, state: TrainerState) -> None:
        if self._score is not None:
            scores = self._score(whole_checkpoint(checkpoint))
            state.log_history.append({"step": state.global_step, **scores})
            text = ", ".join(f"{name} {value:.3f}" for name, value in scores.items())
            logger.info("step %d: %s", state.global_step, text)
        with writing(self._folder, "the log"):
            # Rewritten with the scores, which a run that resumes here would lack otherwise.
            state_json = json.dumps(asdict(state), indent=2, sort_keys=True) + "\n"
            replace_text(checkpoint / "trainer_state.json", state_json)
            write_log(self._folder, state.log_history)


def write_log(folder: Path, log: Sequence[Mapping[str, float]]) -> None:
    """Write the log of a run as `log.json` and `curves.png`."""
    replace_text(folder / "log.json", json.dumps(log, indent=1))
    draw_curves(log, folder / "curves.png")


def draw_curves(log: Sequence[Mapping[str, float]], path: Path | str) -> None:
    """Draw the loss, and the scores on unseen views and pairs, over the steps.

    Args:
        log: entries of transformers' Trainer, each with `step` and any of `loss` and `SCORES`.
        path: of the PNG file.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 3.6), layout="constrained")
    loss_axes, score_axes = figure.subplots(1, 2)
    for axes, names, title in (
        (loss_axes, ("loss",), "loss on answer tokens"),
        (score_axes, SCORES, "unseen scenes"),
    ):
        for name in names:
            points = [(entry["step"], entry[name]) for entry in log if name in entry]
            if points:
                axes.plot(
                    *zip(*points, strict=True),
                    label=name,
                    marker="." if axes is score_axes else None,
                )
        axes.set(xlabel="step", title=title)
        axes.grid(alpha=0.3)
        axes.spines[["top", "right"]].set_visible(False)
    score_axes.set_ylim(0, 1)
    if score_axes.lines:
        score_axes.legend(frameon=False)
    losses = sorted(entry["loss"] for entry in log if "loss" in entry)
    if losses:
        # The first steps have several times the loss of all others and would flatten the rest.
        loss_axes.set_ylim(losses[0] - 0.02, losses[int(0.97 * (len(losses) - 1))] + 0.02)
    figure.savefig(path, dpi=120)
