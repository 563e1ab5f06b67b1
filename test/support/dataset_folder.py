# SPDX-License-Identifier: Apache-2.0
"""A dataset folder of exact views, in the format that `vlm3_ros.datasets.own` reads."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from vlm3_lab.datasets.storage import depth_png, jpeg, write_lines, write_whole
from vlm3_ros.datasets.own import DESCRIPTION, FRAMES, PAIRS, VERSION
from vlm3_ros.datasets.views import View


def write_dataset(
    folder: Path,
    views: Sequence[View],
    pairs: Sequence[tuple[int, int]] = (),
    held_out: Sequence[int] = (),
    has_poses: bool = True,
) -> None:
    """Write views as frames; `pairs` and `held_out` are places in them."""
    splits = ["held_out" if i in held_out else "train" for i in range(len(views))]
    frames = []
    for place, (view, split) in enumerate(zip(views, splits, strict=True)):
        image, depth = f"images/{place}.jpg", f"depth/{place}.png"
        write_whole(folder / image, jpeg(view.image, 95))
        write_whole(folder / depth, depth_png(view.depth))
        camera = view.camera
        boxes = [
            {
                "kind": box.kind,
                "centre": np.asarray(box.centre).tolist(),
                "size": np.asarray(box.size).tolist(),
                "yaw": box.yaw,
            }
            for box in view.objects
        ]
        frames.append(
            {
                "image": image,
                "depth_image": depth,
                "intrinsics": [
                    *(camera.fx, camera.fy, camera.cx, camera.cy),
                    *(camera.width, camera.height),
                ],
                "pixel_coords": [],
                "depth": [],
                "bag": "walk",
                "stamp_ns": place * 100_000_000,
                "T_world_camera": view.T_world_camera.tolist() if has_poses else None,
                "objects": boxes,
                "split": split,
            }
        )
    write_lines(folder / FRAMES, frames)
    measured = {"covisibility": 0.5, "baseline_m": 0.3, "rotation_deg": 5.0}
    write_lines(
        folder / PAIRS,
        [{"first": a, "second": b, "split": splits[a], **measured} for a, b in pairs],
    )
    write_whole(folder / DESCRIPTION, json.dumps({"version": VERSION}).encode())
