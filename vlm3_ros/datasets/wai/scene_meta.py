# SPDX-License-Identifier: Apache-2.0
"""A scene's `scene_meta.json`: its frames as arrays, and what of them cannot be used."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from vlm3_ros.datasets.files import read_json
from vlm3_ros.errors import DatasetError

SCENE_META, DISTORTED_META = "scene_meta.json", "scene_meta_distorted.json"

VERSIONS = ("0.1", "0.2")
"""Versions of the format that map-anything's programs write, as text or as a number."""

CAMERA_MODELS: Mapping[str, tuple[str, ...]] = {
    "PINHOLE": (),
    "OPENCV": ("k1", "k2", "p1", "p2", "k3"),
    "OPENCV_FISHEYE": ("k1", "k2", "k3", "k4"),
    "FULL_OPENCV": ("k1", "k2", "p1", "p2", "k3", "k4", "k5", "k6"),
}
"""Camera models that are read, with their coefficients in the order of OpenCV."""

FRAME = np.dtype(
    [
        ("scene", np.int32),
        ("place", np.int32),
        ("camera_model", np.uint8),
        ("size", np.int32, (2,)),
        ("intrinsics", np.float64, (4,)),
        ("distortion", np.float64, (8,)),
        ("T_world_camera", np.float64, (3, 4)),
        ("has_depth", np.bool_),
    ]
)
"""A frame without its files. `scene`: its number. `place`: among the frames of scene_meta.json,
also of those that are left out. `camera_model`: index in `CAMERA_MODELS`. `size`: width and height
in px, 0 if unknown. `intrinsics`: fx, fy, cx, cy in px. `distortion`: coefficients and further
zeros. `T_world_camera`: upper rows, NaN if unknown. `has_depth`: whether it has a depth file."""

_RIGID = 1e-3
"""Largest difference of a rotation matrix times its transpose from the identity."""

_INTRINSICS = ("fl_x", "fl_y", "cx", "cy")


class FrameFiles(NamedTuple):
    """The files of a frame, relative to the folder of its scene; "" if there is none.

    `confidence` belongs to predicted depth. `mask` is white where depth is known, `sky_mask` in
    the sky, `predicted_mask` where MoGe sees a surface.
    """

    name: str
    image: str
    depth: str
    confidence: str
    mask: str
    sky_mask: str
    predicted_mask: str


class Scene(NamedTuple):
    """A scene.

    Attributes:
        folder: relative to that of the data set.
        name, dataset: as scene_meta.json says.
        is_metric: whether depth and poses are metres; otherwise their scale is unknown.
        is_predicted: whether its depth was predicted by MVSAnywhere.
        covisibility: file of the matrix, relative to the scene's folder; "" if not named.
        frames: number of its frames, also of those that are left out.
    """

    folder: str
    name: str
    dataset: str
    is_metric: bool
    is_predicted: bool
    covisibility: str
    frames: int


@dataclass(frozen=True)
class SceneFrames:
    """The usable frames of a scene.

    Attributes:
        scene: of the frames.
        frames: of dtype `FRAME`, in the order of scene_meta.json.
        files: of each frame.
        faults: kinds of fault, without values of single frames, and the names of the frames that
            have them.
    """

    scene: Scene
    frames: NDArray[np.void]
    files: list[FrameFiles]
    faults: dict[str, list[str]]


def read_scene(root: Path, folder: str) -> SceneFrames:
    """Read a scene's metadata.

    Args:
        root: folder of the data set.
        folder: of the scene, relative to it.

    Raises:
        DatasetError: naming the file, if no frame of the scene can be used.
    """
    path = root / folder / SCENE_META
    if not path.is_file() and (root / folder / DISTORTED_META).is_file():
        raise DatasetError(
            f"{root / folder}: it has only {DISTORTED_META}: make {SCENE_META} with map-anything's "
            "wai_processing.scripts.undistort"
        )
    content = read_json(path)
    try:
        _check_format(content)
        keys = _file_keys(_mapping(content, "frame_modalities"))
        scene = Scene(
            folder=folder,
            name=str(content.get("scene_name", path.parent.resolve().name)),
            dataset=str(content.get("dataset_name", "")),
            is_metric=content.get("scale_type") == "metric",
            is_predicted=bool(keys.confidence),
            covisibility=_covisibility(_mapping(content, "scene_modalities")),
            frames=len(content["frames"]),
        )
        return _read_frames(scene, content, keys)
    except DatasetError as error:
        raise DatasetError(f"{path}: {error}") from error


def _check_format(content: Any) -> None:
    if not isinstance(content, dict) or not isinstance(content.get("frames"), list):
        raise DatasetError("it has no list 'frames'")
    version = content.get("version")
    known = " and ".join(VERSIONS)
    if str(version) not in VERSIONS:
        raise DatasetError(f"its version is {version!r}; this program reads {known}")
    convention = content.get("camera_convention")
    if convention != "opencv":
        raise DatasetError(f"its camera_convention is {convention!r}; it must be 'opencv'")


def _mapping(content: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    value = content.get(key) or {}
    if not isinstance(value, dict):
        raise DatasetError(f"{key} is not a mapping")
    return value


def _covisibility(modalities: Mapping[str, Any]) -> str:
    entry = modalities.get("pairwise_covisibility")
    path = entry.get("scene_key", "") if isinstance(entry, dict) else ""
    return _inside(path) if path else ""


def _file_keys(modalities: Mapping[str, Any]) -> FrameFiles:
    """The keys of frames that hold their files; the name of a frame is no file."""
    predicted = _key(modalities, "pred_depth", "mvsanywhere")
    confidence = _key(modalities, "depth_confidence", "mvsanywhere")
    measured = _key(modalities, "depth") or _key(modalities, "rendered_depth")
    return FrameFiles(
        name="frame_name",
        image=_key(modalities, "image") or "file_path",
        # Without its confidence, predicted depth is a guess.
        depth=measured or (predicted if confidence else ""),
        confidence="" if measured else confidence,
        mask=_key(modalities, "mask"),
        sky_mask=_key(modalities, "skymask"),
        predicted_mask=_key(modalities, "pred_mask", "moge2"),
    )


def _key(modalities: Mapping[str, Any], *names: str) -> str:
    entry: Any = modalities
    for name in names:
        entry = entry.get(name) if isinstance(entry, dict) else None
    key = entry.get("frame_key", "") if isinstance(entry, dict) else ""
    return key if isinstance(key, str) else ""


def _read_frames(scene: Scene, content: Mapping[str, Any], keys: FrameFiles) -> SceneFrames:
    kept: list[int] = []
    files: list[FrameFiles] = []
    models: list[int] = []
    numbers: list[list[float]] = []
    poses: list[Any] = []
    faults: dict[str, list[str]] = {}
    for place, frame in enumerate(content["frames"]):
        name = str(frame.get("frame_name", place)) if isinstance(frame, dict) else str(place)
        try:
            if not isinstance(frame, dict):
                raise DatasetError("no mapping")
            model, camera = _camera(content, frame)
            files.append(_files(frame, keys, name))
        except DatasetError as error:
            faults.setdefault(f"left out: {error}", []).append(f"{scene.name}/{name}")
            continue
        kept.append(place)
        models.append(model)
        numbers.append(camera)
        poses.append(frame.get("transform_matrix"))
    frames = np.zeros(len(kept), FRAME)
    frames["place"] = kept
    frames["camera_model"] = models
    cameras = np.array(numbers, dtype=float).reshape(-1, 14)
    frames["size"], frames["intrinsics"] = cameras[:, :2], cameras[:, 2:6]
    frames["distortion"] = cameras[:, 6:]
    frames["T_world_camera"], is_wrong = poses_of(poses)
    frames["has_depth"] = [bool(file.depth) for file in files]
    if is_wrong.any():
        names = [f"{scene.name}/{files[i].name}" for i in np.flatnonzero(is_wrong)]
        faults["used without their pose: transform_matrix is no finite rigid motion"] = names
    return SceneFrames(scene, frames, files, faults)


def _camera(content: Mapping[str, Any], frame: Mapping[str, Any]) -> tuple[int, list[float]]:
    """The number of the model, and width, height, 4 intrinsics and 8 coefficients."""
    model = frame.get("camera_model", content.get("camera_model"))
    if not isinstance(model, str) or model not in CAMERA_MODELS:
        known = ", ".join(CAMERA_MODELS)
        raise DatasetError(f"camera_model is {model!r}; this program reads {known}")

    def number(key: str, default: float | None = None) -> float:
        value = frame.get(key)
        value = content.get(key) if value is None else value
        value = default if value is None else value
        if value is None:
            raise DatasetError(f"no {key}")
        if isinstance(value, bool) or not isinstance(value, int | float) or not abs(value) < 1e9:
            raise DatasetError(f"{key} is no number, or not finite")
        return float(value)

    intrinsics = [number(key) for key in _INTRINSICS]
    if min(intrinsics[:2]) <= 0:
        raise DatasetError("a focal length is not positive")
    size = [number("w", 0), number("h", 0)]
    coefficients = [number(key, 0) for key in CAMERA_MODELS[model]]
    if model == "PINHOLE" and any(number(key, 0) for key in CAMERA_MODELS["FULL_OPENCV"]):
        raise DatasetError("camera_model is 'PINHOLE', but there are distortion coefficients")
    unused = [0.0] * (8 - len(coefficients))
    return list(CAMERA_MODELS).index(model), [*size, *intrinsics, *coefficients, *unused]


def _files(frame: Mapping[str, Any], keys: FrameFiles, name: str) -> FrameFiles:
    paths = [frame.get(key) if key else None for key in keys[1:]]
    paths[0] = paths[0] or frame.get("file_path")
    if not paths[0]:
        raise DatasetError("no image")
    return FrameFiles(name, *(_inside(path) if path else "" for path in paths))


def _inside(path: Any) -> str:
    """A path within the scene's folder.

    The converter of ParallelDomain4D writes absolute paths, of the machine that it ran on; their
    last folder and name are those within the scene.
    """
    if not isinstance(path, str) or ".." in path.split("/"):
        raise DatasetError("a file is not a path within the scene's folder")
    return "/".join(path.split("/")[-2:]) if path.startswith("/") else path


def poses_of(matrices: Sequence[Any]) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """Read poses.

    Args:
        matrices: 4 rows of 4 numbers, or 16 numbers; None for none.

    Returns:
        Their upper rows, shape (n, 3, 4), NaN unless they are rigid motions; and the mask of those
        that are given and are none, shape (n,).
    """
    poses = np.full((len(matrices), 4, 4), np.nan)
    is_given = np.array([matrix is not None for matrix in matrices], bool)
    for pose, matrix in zip(poses, matrices, strict=True):
        try:
            pose[:] = np.asarray(matrix, dtype=float).reshape(4, 4)
        except (TypeError, ValueError, OverflowError):
            continue
    rotations = poses[:, :3, :3]
    with np.errstate(all="ignore"):
        is_rigid = np.isfinite(poses).all(axis=(1, 2))
        products = rotations @ rotations.transpose(0, 2, 1)
        is_rigid &= (np.abs(products - np.eye(3)) < _RIGID).all(axis=(1, 2))
        is_rigid &= np.linalg.det(np.where(is_rigid[:, None, None], rotations, 0)) > 0
        is_rigid &= (np.abs(poses[:, 3] - (0, 0, 0, 1)) < _RIGID).all(axis=1)
    poses[~is_rigid] = np.nan
    return poses[:, :3], is_given & ~is_rigid
