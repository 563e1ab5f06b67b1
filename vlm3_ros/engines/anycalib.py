# SPDX-License-Identifier: Apache-2.0
"""The intrinsics of a camera from its images, where nobody calibrated it: AnyCalib, if installed.

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
"""It is on no package index."""

_MODEL = "anycalib_pinhole"

Calibrator = Callable[[NDArray[np.uint8]], PinholeCamera]
"""The camera that took an RGB image of shape (height, width, 3), uint8; GeometryError if none."""


def is_installed() -> bool:
    """Whether the package anycalib can be found; does not import it."""
    return importlib.util.find_spec("anycalib") is not None


def load_anycalib(device: str = "auto", offline: bool = False) -> Calibrator:
    """AnyCalib for images without distortion, with square pixels.

    Its weights (1.3 GB) are downloaded at the first use, into torch's hub folder.

    Args:
        device: "auto" (CUDA where torch can use it), "cpu", "cuda" or "cuda:<index>".
        offline: whether the weights must be there already.

    Raises:
        EngineError: when the package or its weights are missing.
    """
    if not is_installed():
        raise EngineError(f"the package anycalib is not installed: {INSTALL}")
    import torch
    from anycalib import AnyCalib

    weights = Path(torch.hub.get_dir()) / "anycalib" / f"{_MODEL}.pt"
    if offline and not weights.is_file():
        raise EngineError(f"{weights}: the weights of AnyCalib are not there, and offline is set")
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        model = AnyCalib(model_id=_MODEL).to(device)
    except (OSError, RuntimeError) as error:
        raise EngineError(f"AnyCalib cannot be loaded: {error}") from error

    def camera(image: NDArray[np.uint8]) -> PinholeCamera:
        pixels = torch.from_numpy(np.ascontiguousarray(image)).to(device)
        found = model.predict(pixels.permute(2, 0, 1).float() / 255, cam_id="simple_pinhole")
        focal, cx, cy = map(float, found["intrinsics"])
        height, width = image.shape[:2]
        # AnyCalib's pixels have their centres at halves.
        return PinholeCamera(width, height, focal, focal, cx - 0.5, cy - 0.5)

    return camera
