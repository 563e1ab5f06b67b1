# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from drives import CAMERA, START_NS, write_drive

from vlm3_ros.evaluation.bag.answers import Click
from vlm3_ros.evaluation.bag.clicks import clicks_json, clicks_table, plot_clicks, score_clicks
from vlm3_ros.evaluation.bag.evaluate import bag_source

LAST = (CAMERA.width - 1, CAMERA.height - 1)


@pytest.mark.parametrize(
    "pixel",
    [
        (20.0, 100.0),
        (30.4, 90.6),
        # All of the outermost pixels belong to the image.
        (CAMERA.width - 0.5, CAMERA.height - 0.5),
        (-0.5 - 1e-9, CAMERA.height - 1.0),
    ],
)
def test_a_click_is_off_by_its_depth(tmp_path: Path, pixel: tuple[float, float]) -> None:
    write_drive(tmp_path / "drive")
    with bag_source(tmp_path / "drive") as source:
        frame = next(iter(source.frames))
        u, v = np.clip(np.rint(pixel).astype(int), 0, LAST)
        depth = float(frame.depth[v, u])
        assert np.isfinite(depth)
        click = Click(pixel, START_NS, CAMERA.unproject(pixel, depth + 0.5), None, "")
        refused = Click(pixel, None, np.full(3, np.nan), None, "no image has come yet")
        elsewhere = Click(pixel, START_NS + 1, click.point, None, "")
        (scored,) = score_clicks(source.frames, [refused, click, elsewhere])
    np.testing.assert_allclose(scored.pixel, pixel, atol=1e-6)
    np.testing.assert_allclose(scored.true_point, CAMERA.unproject(pixel, depth), rtol=1e-6)
    assert scored.error == pytest.approx(0.5 * np.linalg.norm(CAMERA.rays(pixel)), rel=1e-6)
    assert clicks_json([scored])[0]["error_m"] == scored.error
    assert clicks_table([scored]).rows[0][3] == f"{scored.error:.2f}"
    assert plot_clicks([scored]).axes[0].texts


def test_without_true_depth_the_error_is_unknown(tmp_path: Path) -> None:
    write_drive(tmp_path / "drive", with_depth=False)
    with bag_source(tmp_path / "drive") as source:
        click = Click((10.0, 10.0), START_NS, CAMERA.unproject((10.0, 10.0), 2.0), 0.1, "")
        (scored,) = score_clicks(source.frames, [click])
    (told,) = clicks_json([scored])
    assert (told["true_point_m"], told["error_m"], told["uncertainty_m"]) == (None, None, 0.1)
    assert clicks_table([scored]).rows[0][2:4] == ("unknown", "")
