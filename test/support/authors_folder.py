# SPDX-License-Identifier: Apache-2.0
"""A folder like the authors' sample_data, of exact views."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from vlm3_ros.datasets.views import View, ViewPair
from vlm3_ros.geometry.motion import motion_parts


def write_sample(folder: Path, view: View, pair: ViewPair, points: int = 6) -> None:
    """Write label files with the keys of the authors' own, and the images that they name."""
    folder.mkdir(parents=True)
    rng = np.random.default_rng(0)
    known = rng.permutation(np.argwhere(np.isfinite(view.depth)))[:points].tolist()
    _image(folder / "depth.png", view)
    _write(
        folder / "depth_labels.json",
        {
            "image": "depth.png",
            "image_size": {"width": view.camera.width, "height": view.camera.height},
            "intrinsics_after_focal_normalization_to_1000": _intrinsics(view),
            "num_points": points,
            "samples": [
                {"pixel_coord_resized": [u, v], "depth_meters": float(view.depth[v, u])}
                for v, u in known
            ],
        },
    )
    views = (pair.first, pair.second)
    parts = motion_parts(pair.T_cam1_cam2)
    yaw, pitch, roll = parts.yaw_pitch_roll_deg.tolist()
    images = {f"image_{n}": f"img{n}.png" for n in (1, 2)}
    for name, one in zip(images.values(), views, strict=True):
        _image(folder / name, one)
    _write(
        folder / "pose_labels.json",
        {
            **images,
            **{f"intrinsics_{n}_resized": _intrinsics(one) for n, one in enumerate(views, 1)},
            "scale_type": "metric",
            "ground_truth_pose": {
                "yaw_deg": yaw,
                "pitch_deg": pitch,
                "roll_deg": roll,
                "translation_unit_vector": "({:+.2f}, {:+.2f}, {:+.2f})".format(*parts.direction),
                "translation_distance_m": parts.distance,
            },
        },
    )
    grid = pair.first.camera.pixel_grid().reshape(-1, 2)
    found = pair.matches(grid)
    shown = rng.permutation(np.flatnonzero(np.isfinite(found[:, 0])))[:points]
    _write(
        folder / "pixel_corr_labels.json",
        {
            **images,
            "correspondences": [
                {
                    "img1_pixel_in_resized": grid[index].tolist(),
                    "img2_pixel_in_resized": found[index].tolist(),
                }
                for index in shown
            ],
        },
    )


def _intrinsics(view: View) -> dict[str, float]:
    camera = view.camera
    return {"fx": camera.fx, "fy": camera.fy, "cx": camera.cx, "cy": camera.cy}


def _image(path: Path, view: View) -> None:
    Image.fromarray(view.image).save(path)


def _write(path: Path, content: dict[str, Any]) -> None:
    path.write_text(json.dumps(content))
