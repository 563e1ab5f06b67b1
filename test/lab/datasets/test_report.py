# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

from vlm3_lab.datasets.reading import Dataset
from vlm3_lab.datasets.report import plot_distributions


def test_values_that_differ_by_rounding_are_plotted() -> None:
    """The baselines of a camera at constant speed."""
    frames: Any = [SimpleNamespace(split="train", depths=[2.0, 2.0 + 1e-15])]
    pairs: Any = [
        SimpleNamespace(split="train", covisibility=0.9, baseline_m=metres, rotation_deg=0.0)
        for metres in (0.2, 0.2 - 3e-17, 0.2 + 6e-17)
    ]
    figure = plot_distributions(Dataset(Path(), tuple(frames), tuple(pairs), {}))
    assert all(axes.patches for axes in figure.axes)
