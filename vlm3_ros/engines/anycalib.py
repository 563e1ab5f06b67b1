# SPDX-License-Identifier: Apache-2.0
"""Intrinsics of an uncalibrated camera from one of its images, by AnyCalib if installed.

AnyCalib (Tirado-Garín and Civera, ICCV 2025; Apache-2.0, code and weights) is the single-image
calibrator that the paper names for images without intrinsics.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from vlm3_ros.engines.base import EngineError
from vlm3_ros.geometry.camera import PinholeCamera

INSTALL = "pip install git+https://github.com/javrtg/AnyCalib"
"""AnyCalib is not on a package index."""

_MODEL = "anycalib_pinhole"

Calibrator = Callable[[NDArray[np.uint8]], PinholeCamera]
"""Estimates the camera of an RGB image, shape (height, width, 3), uint8; raises GeometryError."""


def is_installed() -> bool:
    """Return whether the package anycalib is installed, without importing it."""
    return importlib.util.find_spec("anycalib") is not None


def load_anycalib(device: str = "auto", offline: bool = False) -> Calibrator:
    """Load AnyCalib for images without distortion, with square pixels.

    Its weights (1.3 GB) are downloaded at the first use, into torch's hub folder.

    Args:
        device: "auto" (CUDA if torch can use it), "cpu", "cuda" or "cuda:N".
        offline: whether to forbid the download.

    Raises:
        EngineError: if the package or its weights are missing.
    """
    if not is_installed():
        raise EngineError(f"the package anycalib is not installed: {INSTALL}")
    import torch
    from anycalib import AnyCalib

    weights = Path(torch.hub.get_dir()) / "anycalib" / f"{_MODEL}.pt"
    if offline and not weights.is_file():
        raise EngineError(f"{weights}: the weights of AnyCalib are missing, and offline is set")
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        model = AnyCalib(model_id=_MODEL).to(device)
    except (OSError, RuntimeError) as error:
        raise EngineError(f"AnyCalib cannot be loaded: {error}") from error

    def camera(image: NDArray[np.uint8]) -> PinholeCamera:
        pixels = torch.from_numpy(np.ascontiguousarray(image)).to(device)
        result = model.predict(pixels.permute(2, 0, 1).float() / 255, cam_id="simple_pinhole")
        focal, cx, cy = map(float, result["intrinsics"])
        height, width = image.shape[:2]
        # AnyCalib's pixel centres lie at half-integers.
        return PinholeCamera(width, height, focal, focal, cx - 0.5, cy - 0.5)

    return camera
