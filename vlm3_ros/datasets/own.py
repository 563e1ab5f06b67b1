# SPDX-License-Identifier: Apache-2.0
"""Reading a training set made by `vlm3 dataset`.

Its folder holds:

- `frames.jsonl`: a line per frame, in DepthLM's format (`vlm3_ros.datasets.depthlm`:
  `image`, `intrinsics`, `pixel_coords`, `depth`) with more keys: `bag`, `stamp_ns`, `depth_image`
  (16-bit PNG of millimetres along Z, 0 where unknown), `T_world_camera` (4 x 4, null where
  unknown), `objects` (`kind`, `centre`, `size`, `yaw` in the world) and `split` ("train" or
  "held_out"). `held_out.jsonl` repeats the lines of the held-out frames.
- `pairs.jsonl`: a line per pair of frames with enough covisibility: `first` and `second` (lines of
  frames.jsonl, from 0), `covisibility`, `baseline_m`, `rotation_deg` and `split`.
- `dataset.json`: the bags, the options, counts, and what was skipped and why.
- `images`, `depth`, `pictures`, `report.html`.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import ArrayLike, NDArray
from typing_extensions import override

from vlm3_ros.datasets.files import read_image, read_png_depth
from vlm3_ros.datasets.source import Contents, FrameSource, Pairs, listed_pairs
from vlm3_ros.datasets.views import Labels, SceneObject, View
from vlm3_ros.errors import DatasetError
from vlm3_ros.geometry.camera import PinholeCamera
from vlm3_ros.geometry.motion import Transform

FRAMES, HELD_OUT, PAIRS, DESCRIPTION = (
    "frames.jsonl",
    "held_out.jsonl",
    "pairs.jsonl",
    "dataset.json",
)

VERSION = 1
"""Version of the format; others are refused."""

Split = Literal["train", "held_out"]


@dataclass(frozen=True)
class Frame:
    """A rectified image of a recording with its ground truth.

    `image`, `depth_image`: paths within the folder. `pixels`: (u, v) of labelled pixels, shape
    (n, 2), and their `depths`, metres along Z, shape (n,). `T_world_camera`: shape (4, 4), takes
    points of the optical frame to the world of the bag's poses; None if unknown. `objects`:
    boxes in that world.
    """

    bag: str
    stamp_ns: int
    image: str
    depth_image: str
    camera: PinholeCamera
    pixels: NDArray[np.float64]
    depths: NDArray[np.float64]
    T_world_camera: Transform | None
    objects: tuple[SceneObject, ...]
    split: Split


@dataclass(frozen=True)
class Pair:
    """Two frames of one bag and one split, by index in `Dataset.frames`.

    `covisibility`: share of each image that the other one shows, the smaller of both directions.
    `baseline_m`, `rotation_deg`: motion of the camera between them.
    """

    first: int
    second: int
    covisibility: float
    baseline_m: float
    rotation_deg: float
    split: Split


class Dataset(FrameSource):
    """A training set.

    Attributes:
        folder: that it lies in.
        frames, listed: its frames and pairs.
        description: the content of dataset.json.
    """

    def __init__(
        self,
        folder: Path,
        frames: Sequence[Frame],
        listed: Sequence[Pair],
        description: dict[str, Any],
    ):
        self.folder, self.frames, self.listed = folder, frames, listed
        self.description = description
        self.name, self.notes = str(folder), []
        self.contents = Contents(
            has_depth=np.ones(len(frames), bool),
            has_pose=np.array([frame.T_world_camera is not None for frame in frames]),
            has_objects=np.array(
                [bool(frame.objects) and frame.T_world_camera is not None for frame in frames]
            ),
            is_held_out=np.array([frame.split == "held_out" for frame in frames]),
        )

    @override
    def pairs(self, min_covisibility: float | None = None) -> Pairs:
        enough = [pair for pair in self.listed if pair.covisibility >= (min_covisibility or 0)]
        return listed_pairs([(pair.first, pair.second) for pair in enough])

    @override
    def frame_name(self, index: int) -> str:
        return self.frames[index].image

    @override
    def read(self, index: int) -> View:
        frame = self.frames[index]
        image = read_image(self.folder / frame.image)
        depth = read_png_depth(self.folder / frame.depth_image)
        for name, shape in ((frame.image, image.shape), (frame.depth_image, depth.shape)):
            if shape[:2] != (frame.camera.height, frame.camera.width):
                raise DatasetError(
                    f"{self.folder / name}: {shape[1]}x{shape[0]} px, {FRAMES} says "
                    f"{frame.camera.width}x{frame.camera.height}"
                )
        return View(
            image=image,
            depth=depth,
            camera=frame.camera,
            T_world_camera=np.full((4, 4), np.nan)
            if frame.T_world_camera is None
            else frame.T_world_camera,
            kind=frame.bag,
            objects=frame.objects,
            labels=Labels(frame.pixels, frame.depths) if len(frame.pixels) else None,
        )


def load_dataset(folder: Path | str) -> Dataset:
    """Read a training set, without its images.

    Raises:
        DatasetError: naming the file, and the line if one is wrong.
    """
    folder = Path(folder)
    if not (folder / DESCRIPTION).is_file():
        raise DatasetError(
            f"{folder}: there is no {DESCRIPTION}: make the folder with `vlm3 dataset`, which also "
            "finishes one that it has begun"
        )
    try:
        description = json.loads((folder / DESCRIPTION).read_text(encoding="utf-8"))
        version = description["version"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DatasetError(f"{folder / DESCRIPTION}: it cannot be read: {error!r}") from error
    if version != VERSION:
        raise DatasetError(
            f"{folder / DESCRIPTION}: the format has version {version!r}; this program reads "
            f"version {VERSION}"
        )
    frames = []
    for source, content in _lines(folder / FRAMES):
        try:
            frames.append(frame_from_json(content))
        except (ValueError, TypeError, KeyError) as error:
            raise DatasetError(f"{source}: {error!r}") from error
    pairs = []
    for source, content in _lines(folder / PAIRS):
        try:
            pairs.append(_pair(content, frames))
        except (ValueError, TypeError, KeyError) as error:
            raise DatasetError(f"{source}: {error!r}") from error
    if not frames:
        raise DatasetError(f"{folder / FRAMES}: there is no frame in it")
    return Dataset(folder, tuple(frames), tuple(pairs), description)


def frame_from_json(content: dict[str, Any]) -> Frame:
    """Read a frame from a line of frames.jsonl.

    Raises:
        KeyError, TypeError, ValueError: if a key is missing or a value is wrong.
    """
    fx, fy, cx, cy, width, height = content["intrinsics"]
    pixels = np.asarray(content["pixel_coords"], dtype=float).reshape(-1, 2)
    depths = np.asarray(content["depth"], dtype=float)
    if depths.shape != (len(pixels),) or not (np.isfinite(depths) & (depths > 0)).all():
        raise ValueError(f"'depth' must hold a positive number for each of {len(pixels)} pixels")
    return Frame(
        bag=content["bag"],
        stamp_ns=int(content["stamp_ns"]),
        image=_inside(content["image"]),
        depth_image=_inside(content["depth_image"]),
        camera=PinholeCamera(int(width), int(height), fx, fy, cx, cy),
        pixels=pixels,
        depths=depths,
        T_world_camera=None
        if content["T_world_camera"] is None
        else _finite("T_world_camera", content["T_world_camera"], (4, 4)),
        objects=tuple(
            SceneObject(
                str(box["kind"]),
                _finite("centre", box["centre"], (3,)),
                _finite("size", box["size"], (3,)),
                float(box["yaw"]),
            )
            for box in content["objects"]
        ),
        split=_split(content["split"]),
    )


def _pair(content: dict[str, Any], frames: list[Frame]) -> Pair:
    pair = Pair(
        int(content["first"]),
        int(content["second"]),
        float(content["covisibility"]),
        float(content["baseline_m"]),
        float(content["rotation_deg"]),
        _split(content["split"]),
    )
    for index in (pair.first, pair.second):
        if not 0 <= index < len(frames):
            raise ValueError(f"there is no frame {index}: {FRAMES} has {len(frames)}")
        if frames[index].T_world_camera is None:
            raise ValueError(f"frame {index} has no pose")
        if frames[index].split != pair.split:
            raise ValueError(f"frame {index} is of split {frames[index].split}")
    return pair


def _lines(path: Path) -> Iterator[tuple[str, Any]]:
    """The contents of a file of JSON lines, each with its file and line number."""
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise DatasetError(f"{path}: it cannot be read as text: {error}") from error
    for number, line in enumerate(lines, 1):
        source = f"{path}:{number}"
        try:
            content = json.loads(line)
        except ValueError as error:
            raise DatasetError(f"{source}: {error}") from error
        yield source, content


def _inside(path: Any) -> str:
    if not isinstance(path, str) or Path(path).is_absolute() or ".." in Path(path).parts:
        raise ValueError(f"{path!r} is not a path within the folder")
    return path


def _finite(name: str, values: ArrayLike, shape: tuple[int, ...]) -> NDArray[np.float64]:
    array = np.asarray(values, dtype=float)
    if array.shape != shape or not np.isfinite(array).all():
        raise ValueError(f"'{name}' is not an array of {'x'.join(map(str, shape))} finite numbers")
    return array


def _split(value: Any) -> Split:
    if value not in get_args(Split):
        raise ValueError(f"'split' is {value!r}; it is one of {', '.join(get_args(Split))}")
    split: Split = value
    return split
