# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import numpy as np

from vlm3_lab.datasets.report import plot_distributions


def test_values_that_differ_by_rounding_are_plotted() -> None:
    """The baselines of a camera at constant speed."""
    baselines = np.array([0.2, 0.2 - 3e-17, 0.2 + 6e-17])
    depths, none = np.array([2.0, 2.0 + 1e-15]), np.array([])
    figure = plot_distributions(
        {
            name: {"train": values, "held_out": none}
            for name, values in {"a": depths, "b": baselines, "c": baselines, "d": depths}.items()
        }
    )
    assert all(axes.patches for axes in figure.axes)
