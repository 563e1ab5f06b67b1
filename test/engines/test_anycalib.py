# SPDX-License-Identifier: Apache-2.0
"""AnyCalib itself, if installed, with random weights."""

from __future__ import annotations

from contextlib import suppress

import numpy as np
import pytest

from vlm3_ros.engines.anycalib import load_anycalib
from vlm3_ros.engines.base import EngineError
from vlm3_ros.geometry.camera import GeometryError

anycalib = pytest.importorskip("anycalib")


def test_camera_has_the_size_of_the_image(monkeypatch, tmp_path):
    import torch

    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    with pytest.raises(EngineError, match=r"anycalib_pinhole\.pt.*offline"):
        load_anycalib("cpu", offline=True)
    weights = tmp_path / "hub" / "anycalib" / "anycalib_pinhole.pt"
    weights.parent.mkdir(parents=True)
    torch.manual_seed(0)
    torch.save(anycalib.AnyCalib().state_dict(), weights)
    calibrator = load_anycalib("cpu", offline=True)
    image = np.random.default_rng(0).integers(0, 256, (240, 320, 3)).astype(np.uint8)
    with suppress(GeometryError):  # random weights may give an impossible camera
        camera = calibrator(image)
        assert (camera.width, camera.height) == (320, 240)
        assert camera.fx == camera.fy > 0
