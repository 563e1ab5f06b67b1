# SPDX-License-Identifier: Apache-2.0
"""A data set in the WAI format of exact views, as map-anything's programs write it.

The layout follows its converters (scene_meta.json, images, depth as EXR files of half precision),
`run_moge.py` (masks of one bit, nested modalities) and `covisibility.py` (the matrix of pairs).
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import OpenEXR
from PIL import Image
from rgbd_folders import write_image

from vlm3_lab.scenes.view_pairs import GRID_STEP, true_matches
from vlm3_ros.datasets.views import View


def write_scene(
    folder: Path,
    views: Sequence[View],
    *,
    dataset: str = "made",
    scale_type: str | None = "metric",
    depth_key: str = "depth",
    matrix: str = "",
    scene_keys: Mapping[str, Any] | None = None,
    frame_keys: Mapping[str, Any] | None = None,
    image_format: str = "png",
) -> dict[str, Any]:
    """Write a scene folder.

    Args:
        folder: of the scene; its name is the scene's.
        views: its frames.
        dataset: the data set's name.
        scale_type: "metric" or "colmap"; None for none.
        depth_key: of the depth's modality; "" for no depth.
        matrix: version of the matrix of covisibility, such as "v0"; "" for none.
        scene_keys: further keys of scene_meta.json, such as those of another camera.
        frame_keys: further keys of each frame.
        image_format: ending of the images.

    Returns:
        The content of scene_meta.json.
    """
    frames = []
    for place, view in enumerate(views):
        name = f"{place:08d}"
        image, depth = f"images/{name}.{image_format}", f"{depth_key}/{name}.exr"
        (folder / image).parent.mkdir(parents=True, exist_ok=True)
        write_image(folder / image, view.image)
        camera, height, width = view.camera, *view.image.shape[:2]
        frame = {
            "frame_name": name,
            "image": image,
            "file_path": image,
            "transform_matrix": view.T_world_camera.tolist(),
            **{"h": height, "w": width, "fl_x": camera.fx, "fl_y": camera.fy},
            **{"cx": camera.cx, "cy": camera.cy, **(frame_keys or {})},
        }
        if depth_key:
            write_exr(folder / depth, np.where(np.isfinite(view.depth), view.depth, 0))
            frame[depth_key] = depth
        frames.append(frame)
    modalities = {"image": {"frame_key": "image", "format": "image"}}
    if depth_key:
        modalities[depth_key] = {"frame_key": depth_key, "format": "depth"}
    meta = {
        "scene_name": folder.name,
        "dataset_name": dataset,
        "version": 0.1,
        "shared_intrinsics": False,
        "camera_model": "PINHOLE",
        "camera_convention": "opencv",
        **({} if scale_type is None else {"scale_type": scale_type}),
        "scene_modalities": {},
        "frames": frames,
        "frame_modalities": modalities,
        "last_modified": "2025-02-10 09:43:48",
        **(scene_keys or {}),
    }
    if matrix:
        path = write_matrix(folder / "covisibility" / matrix, covisibility_matrix(views))
        meta["scene_modalities"]["pairwise_covisibility"] = {
            "scene_key": str(path.relative_to(folder)),
            "format": "mmap",
        }
    write_meta(folder, meta)
    return meta


def write_meta(folder: Path, meta: Mapping[str, Any]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "scene_meta.json").write_text(json.dumps(meta, indent=2))


def add_masks(
    folder: Path,
    meta: dict[str, Any],
    modality: str,
    masks: Sequence[np.ndarray],
    model: str = "",
) -> None:
    """Add a mask to each frame; with a `model` nested under it, as `run_moge.py` does."""
    key = f"{model}_mask" if model else modality
    for frame, mask in zip(meta["frames"], masks, strict=True):
        path = f"{modality}s/{frame['frame_name']}.png"
        (folder / path).parent.mkdir(exist_ok=True)
        Image.fromarray(np.asarray(mask, bool)).convert("1").save(folder / path)
        frame[key] = path
    entry = {"frame_key": key, "format": "binary"}
    meta["frame_modalities"][modality] = {model: entry} if model else entry
    write_meta(folder, meta)


def write_exr(path: Path, values: np.ndarray, dtype: type = np.float16, name: str = "Y") -> None:
    """Write one channel, by default as OpenCV writes map-anything's depth."""
    path.parent.mkdir(parents=True, exist_ok=True)
    header = {"compression": OpenEXR.ZIP_COMPRESSION, "type": OpenEXR.scanlineimage}
    with np.errstate(over="ignore"), OpenEXR.File(header, {name: values.astype(dtype)}) as file:
        file.write(str(path))


def covisibility_matrix(views: Sequence[View]) -> np.ndarray:
    """Share of all pixels of a frame (row) that another one (column) shows, shape (n, n)."""
    matrix = np.zeros((len(views), len(views)), np.float32)
    for i, first in enumerate(views):
        grid = first.depth[::GRID_STEP, ::GRID_STEP]
        rows, columns = np.nonzero(np.isfinite(grid))
        pixels = GRID_STEP * np.stack([columns, rows], -1)
        for j, second in enumerate(views):
            shown = np.isfinite(true_matches(first, second, pixels)[:, 0])
            matrix[i, j] = (len(pixels) if i == j else shown.sum()) / grid.size
    return matrix


def write_matrix(folder: Path, matrix: np.ndarray) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    size = "x".join(map(str, matrix.shape))
    path = folder / f"pairwise_covisibility--{size}.npy"
    np.save(path, matrix.astype(np.float32))
    return path
