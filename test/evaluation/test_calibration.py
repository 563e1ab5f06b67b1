# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from vlm3_ros.evaluation.metrics.calibration import LEVELS, calibrate, draw_reliability


def normal_errors(count: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """True depths, answered depths, and the standard deviation of the error."""
    rng = np.random.default_rng(seed)
    truth = rng.uniform(1, 10, count)
    std = truth * rng.uniform(0.05, 0.2, count)
    return truth, truth + std * rng.normal(size=count), std


def test_normal_errors_of_the_stated_size_are_calibrated() -> None:
    truth, predicted, std = normal_errors(50_000)
    calibration = calibrate(predicted, truth, std)
    assert calibration is not None
    assert calibration.pixels == 50_000
    assert calibration.within_std == pytest.approx(0.6827, abs=0.01)
    assert calibration.coverage == pytest.approx(LEVELS, abs=0.01)
    assert calibration.scale == pytest.approx(1, abs=0.02)


@given(factor=st.floats(0.2, 5), seed=st.integers(0, 99))
def test_the_scale_corrects_wrong_standard_deviations_of_other_answers(
    factor: float, seed: int
) -> None:
    truth, predicted, std = normal_errors(2_000, seed)
    fitted = calibrate(predicted, truth, std * factor)
    assert fitted is not None
    assert fitted.scale == pytest.approx(1 / factor, rel=0.12)
    truth, predicted, std = normal_errors(2_000, seed + 1000)
    corrected = calibrate(predicted, truth, std * factor * fitted.scale)
    assert corrected is not None
    assert corrected.deviation < 0.06


def test_unknown_values_are_not_compared() -> None:
    nan = np.nan
    calibration = calibrate([1.0, nan, 1.0, 1.0], [1.1, 1.0, nan, 1.0], [0.2, 0.1, 0.1, nan])
    assert calibration is not None
    assert (calibration.pixels, calibration.within_std) == (1, 1.0)
    assert calibrate([1.0], [1.0], [nan]) is None


def test_no_spread_covers_only_the_truth() -> None:
    calibration = calibrate([1.0, 2.0, 3.0, 4.0], [1.0, 2.5, 3.0, 4.0], np.zeros(4))
    assert calibration is not None
    assert set(calibration.coverage) == {0.75}
    assert calibration.scale == 0


def test_the_plot_is_drawn(tmp_path: Path) -> None:
    truth, predicted, std = normal_errors(200)
    curves = {}
    for name, factor in (("as is", 0.5), ("scaled", 1.0)):
        calibration = calibrate(predicted, truth, std * factor)
        assert calibration is not None
        curves[name] = calibration
    draw_reliability(curves, tmp_path / "one.png", "a model")
    draw_reliability({"as is": curves["as is"]}, tmp_path / "other.png", "a model")
    one, other = (cv2.imread(str(tmp_path / name)) for name in ("one.png", "other.png"))
    assert one.shape == other.shape
    assert (one != other).any()
