# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import numpy as np

from vlm3_lab.datasets.report import plot_distributions


def test_values_that_differ_by_rounding_are_plotted() -> None:
    """The baselines of a camera at constant speed."""
    values = {
        "depth in m": [2.0, 2.0 + 1e-15],
        "covisibility": [0.9],
        "baseline in m": [0.2, 0.2 - 3e-17, 0.2 + 6e-17],
        "rotation in degrees": [0.0, 0.0],
    }
    measured = {name: {"train": np.array(part)} for name, part in values.items()}
    assert all(axes.patches for axes in plot_distributions(measured).axes)
