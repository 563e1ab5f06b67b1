# SPDX-License-Identifier: Apache-2.0
"""The curve of a training run as a picture."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

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


def draw_curves(log: Sequence[Mapping[str, float]], path: Path | str) -> None:
    """Draw loss, and scores on unseen views and pairs, over the steps.

    Args:
        log: entries as transformers' Trainer keeps them, each with `step` and some of `loss` and
            `SCORES`.
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
        # The first steps, at several times the loss of all others, would flatten the rest.
        loss_axes.set_ylim(losses[0] - 0.02, losses[int(0.97 * (len(losses) - 1))] + 0.02)
    figure.savefig(path, dpi=120)
