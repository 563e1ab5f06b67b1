# SPDX-License-Identifier: Apache-2.0
"""The parts of a training set, one for each bag, and how they become its files.

`bags/NAME.json` is a finished bag: what was made of it, with its lines of frames.jsonl and
pairs.jsonl. While it is made, `bags/NAME.jsonl` holds the plan, then a line for each frame.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from itertools import accumulate
from pathlib import Path
from typing import Any

from vlm3_lab.datasets.files import write_lines, write_whole
from vlm3_lab.datasets.reading import DESCRIPTION, FRAMES, HELD_OUT, PAIRS, VERSION
from vlm3_ros.evaluation.depthlm import DatasetError


def part_file(folder: Path, name: str) -> Path:
    """Of a finished bag."""
    return folder / "bags" / f"{name}.json"


def journal_file(folder: Path, name: str) -> Path:
    """Of a bag that is begun."""
    return folder / "bags" / f"{name}.jsonl"


def finished_parts(folder: Path) -> list[dict[str, Any]]:
    """All finished bags, by name.

    Raises:
        DatasetError: naming a file that is none.
    """
    return [_part(path) for path in sorted((folder / "bags").glob("*.json"))]


def check_origin(folder: Path) -> None:
    """Refuse a folder whose files would be overwritten though they come from elsewhere.

    Raises:
        DatasetError: names such a file.
    """
    if any((folder / "bags").glob("*.json*")):
        return
    for name in (FRAMES, HELD_OUT, PAIRS, DESCRIPTION):
        if (folder / name).exists():
            raise DatasetError(
                f"{folder / name}: it is not of a set that `vlm3 dataset` makes, and would be "
                "overwritten; choose another folder"
            )


def journal_lines(journal: Path) -> list[dict[str, Any]]:
    """The whole lines of a begun bag; none where it is not begun."""
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
    """Refuse to go on with a bag that was made in another way.

    Raises:
        DatasetError: names what differs.
    """
    old, new = dict(_leaves(before)), dict(_leaves(now))
    if differing := [key for key in new if new[key] != old.get(key)]:
        changes = "; ".join(f"{key} was {old.get(key)}, is {new[key]}" for key in differing)
        raise DatasetError(
            f"{file}: this bag was made with other options, or is another bag ({changes}); choose "
            "another folder, or remove this file"
        )


def put_together(folder: Path) -> dict[str, Any]:
    """Write the files of the whole from the finished bags; returns what dataset.json says.

    It is written last: as long as it is missing, the set is unfinished.
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


def _part(path: Path) -> dict[str, Any]:
    try:
        part: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        if {"name", "made", "stored_bytes", "frames", "pairs"} <= part.keys():
            return part
    except (ValueError, AttributeError):
        pass
    raise DatasetError(
        f"{path}: it is no bag of a training set, or damaged; choose another folder, or remove "
        "this file, and the bag is made again"
    )


def _leaves(options: Mapping[str, Any], within: str = "") -> Iterator[tuple[str, Any]]:
    """Single options, those of nested ones named by their way."""
    for key, value in options.items():
        if isinstance(value, Mapping):
            yield from _leaves(value, f"{within}{key}.")
        else:
            yield within + key, value
