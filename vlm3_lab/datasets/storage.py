# SPDX-License-Identifier: Apache-2.0
"""The files of a training set, written so that an interruption leaves no half-written file.

`bags/NAME.json` is a finished bag: how it was made, and its lines of frames.jsonl and pairs.jsonl.
While a bag is being made, `bags/NAME.jsonl` is its journal: the plan, then a line per frame.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from itertools import accumulate
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from vlm3_ros.datasets.own import DESCRIPTION, FRAMES, HELD_OUT, PAIRS, VERSION
from vlm3_ros.errors import DatasetError
from vlm3_ros.messages.depth_images import millimetres


def part_file(folder: Path, name: str) -> Path:
    """File of a finished bag."""
    return folder / "bags" / f"{name}.json"


def journal_file(folder: Path, name: str) -> Path:
    """File of a bag that is being made."""
    return folder / "bags" / f"{name}.jsonl"


def finished_parts(folder: Path) -> list[dict[str, Any]]:
    """All finished bags, sorted by name.

    Raises:
        DatasetError: naming a file that is not one.
    """
    return [_part(path) for path in sorted((folder / "bags").glob("*.json"))]


def check_origin(folder: Path) -> None:
    """Refuse a folder with files of another origin, which would be overwritten.

    Raises:
        DatasetError: naming such a file.
    """
    if any((folder / "bags").glob("*.json*")):
        return
    for name in (FRAMES, HELD_OUT, PAIRS, DESCRIPTION):
        if (folder / name).exists():
            raise DatasetError(
                f"{folder / name}: it does not belong to a set made by `vlm3 dataset` and would be "
                "overwritten; choose another folder"
            )


def journal_lines(journal: Path) -> list[dict[str, Any]]:
    """The complete lines of a journal; none if there is no journal."""
    if not journal.exists():
        return []
    lines = []
    for line in journal.read_text(encoding="utf-8").splitlines():
        try:
            lines.append(json.loads(line))
        except ValueError:
            break
    return lines


def check_same(file: Path, before: Mapping[str, Any], now: Mapping[str, Any]) -> None:
    """Refuse to continue a bag that was made with other options.

    Raises:
        DatasetError: naming what differs.
    """
    old, new = dict(_leaves(before)), dict(_leaves(now))
    if differing := [key for key in new if new[key] != old.get(key)]:
        changes = "; ".join(f"{key} was {old.get(key)}, is {new[key]}" for key in differing)
        raise DatasetError(
            f"{file}: this bag was made with other options, or is another bag ({changes}); choose "
            "another folder, or remove this file"
        )


def put_together(folder: Path) -> dict[str, Any]:
    """Write the files of the set from its finished bags; return the content of dataset.json.

    dataset.json is written last: without it, a set is unfinished.
    """
    parts = finished_parts(folder)
    starts = [0, *accumulate(len(part["frames"]) for part in parts)]
    frames = [line for part in parts for line in part["frames"]]
    pairs = [
        {**pair, "first": pair["first"] + start, "second": pair["second"] + start}
        for part, start in zip(parts, starts, strict=False)
        for pair in part["pairs"]
    ]
    description = {
        "version": VERSION,
        "counts": {
            split: {
                "frames": sum(line["split"] == split for line in frames),
                "depth_labels": sum(len(x["depth"]) for x in frames if x["split"] == split),
                "pairs": sum(pair["split"] == split for pair in pairs),
                "frames_with_objects": sum(
                    bool(line["objects"]) for line in frames if line["split"] == split
                ),
            }
            for split in ("train", "held_out")
        },
        "stored_bytes": sum(part["stored_bytes"] for part in parts),
        "bags": [
            {
                **{key: value for key, value in part.items() if key not in ("frames", "pairs")},
                "frames": len(part["frames"]),
                "pairs": len(part["pairs"]),
            }
            for part in parts
        ],
    }
    (folder / DESCRIPTION).unlink(missing_ok=True)
    write_lines(folder / FRAMES, frames)
    write_lines(folder / HELD_OUT, (line for line in frames if line["split"] == "held_out"))
    write_lines(folder / PAIRS, pairs)
    write_whole(folder / DESCRIPTION, (json.dumps(description, indent=2) + "\n").encode())
    return description


def write_whole(path: Path, content: bytes) -> None:
    """Write a file and its folder; the file appears only when it is complete.

    Raises:
        OSError: if it cannot be written; names the file, leaves nothing behind.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(path.name + ".part")
    try:
        part.write_bytes(content)
        part.replace(path)
    except OSError as error:
        part.unlink(missing_ok=True)
        raise OSError(error.errno, error.strerror, str(path)) from error


def write_lines(path: Path, contents: Iterable[Any]) -> None:
    """Write one line of JSON per content."""
    write_whole(path, "".join(json_line(content) for content in contents).encode())


def json_line(content: Any) -> str:
    """One line of JSON, with the line break."""
    return json.dumps(content, allow_nan=False) + "\n"


def jpeg(image: NDArray[np.uint8], quality: int) -> bytes:
    """Encode an RGB image, shape (height, width, 3), uint8, as JPEG."""
    return cv2.imencode(".jpg", image[..., ::-1], (cv2.IMWRITE_JPEG_QUALITY, quality))[1].tobytes()


def depth_png(depth: NDArray[np.floating]) -> bytes:
    """Encode metres as a 16-bit PNG of millimetres; 0 where unknown or above 65.534 m."""
    return cv2.imencode(".png", millimetres(depth))[1].tobytes()


def _part(path: Path) -> dict[str, Any]:
    try:
        part: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        if {"name", "made", "stored_bytes", "frames", "pairs"} <= part.keys():
            return part
    except (ValueError, AttributeError):
        pass
    raise DatasetError(
        f"{path}: it is not a bag of a training set, or it is damaged; choose another folder, or "
        "remove this file to make the bag again"
    )


def _leaves(options: Mapping[str, Any], within: str = "") -> Iterator[tuple[str, Any]]:
    """All options with dotted names."""
    for key, value in options.items():
        if isinstance(value, Mapping):
            yield from _leaves(value, f"{within}{key}.")
        else:
            yield within + key, value
