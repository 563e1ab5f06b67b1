"""Recordings become a training set: see `vlm3_ros.datasets.reading` for what lies in its folder.

Each bag is made by itself. While that goes on, `bags/NAME.jsonl` holds the plan and the frames that
are done, so that an interrupted run goes on; `bags/NAME.json` is a finished bag. The files of the
whole are put together from the finished ones.
"""

from __future__ import annotations

import errno
import json
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from itertools import accumulate
from pathlib import Path
from typing import Any

import numpy as np

from vlm3_ros.bags.messages import millimetres
from vlm3_ros.datasets.files import depth_png, jpeg, json_line, write_lines, write_whole
from vlm3_ros.datasets.pairs import find_pairs, place
from vlm3_ros.datasets.reading import (
    DESCRIPTION,
    FRAMES,
    HELD_OUT,
    PAIRS,
    VERSION,
    Split,
    frame_from_json,
    read_depth,
)
from vlm3_ros.datasets.recordings import Recording, TopicOptions, TrainingFrame, open_recording
from vlm3_ros.datasets.selection import Selection, choose_frames, evenly_spread
from vlm3_ros.evaluation.depthlm import DatasetError

LABELS = 10
"""Labelled pixels of a frame, as the paper packs questions into a sample (appendix A)."""

MAX_MEDIAN_DEPTH, MIN_MEDIAN_DEPTH = 200.0, 0.01
"""Metres: a median beyond these has another unit than REP-118 says."""

_LABELS_STREAM = 0xDA7A
"""First word of the seeds of labelled pixels."""

_PROBES = 5
"""Frames, evenly taken, that tell the unit of depth and how large frames are on disk."""

Progress = Callable[[int, int], None]
"""Told how many frames of a bag are stored, then how many are compared with later ones, of all."""


@dataclass(frozen=True)
class MakingOptions:
    """What is made of a bag.

    `depth_scale`: depth is multiplied by it, after REP-118's units; None for 1, where that is
    plausible. `max_bytes`: of all images and depth images of the folder.
    """

    topics: TopicOptions = field(default_factory=TopicOptions)
    selection: Selection = field(default_factory=Selection)
    depth_scale: float | None = None
    jpeg_quality: int = 90
    max_bytes: int = 4_000_000_000


def make_dataset(
    folder: Path,
    bags: Sequence[Path],
    options: MakingOptions,
    progress: Progress = lambda done, total: None,
) -> dict[str, Any]:
    """Add bags to a training set, which may be new or begun. A bag that is finished is not redone.

    Returns:
        The content of dataset.json.

    Raises:
        BagError: when a bag has not what is needed.
        DatasetError: when two bags have one name, or a bag was made with other options before,
            when no frame of a bag can be used, or the disk is full.
    """
    names = [bag_name(path) for path in bags]
    if repeated := [name for name, count in Counter(names).items() if count > 1]:
        raise DatasetError(f"two bags have the name '{repeated[0]}': rename one")
    with _full_disk_told(folder):
        for index, path in enumerate(bags):
            used = sum(part["stored_bytes"] for part in _finished(folder))
            budget = max(0, options.max_bytes - used) // (len(bags) - index)
            _make_bag(folder, path, options, budget, progress)
        return _put_together(folder)


def bag_name(path: Path) -> str:
    """The name of a bag in a data set: of its folder or file, without the suffix."""
    path = path.resolve()
    return path.name if path.is_dir() else path.stem


def _make_bag(
    folder: Path, path: Path, options: MakingOptions, budget: int, progress: Progress
) -> None:
    name = bag_name(path)
    made = {"bag_bytes": _size(path), **json.loads(json.dumps(asdict(options)))}
    finished, journal = (folder / "bags" / f"{name}{suffix}" for suffix in (".json", ".jsonl"))
    if finished.exists():
        _check_same(finished, json.loads(finished.read_text(encoding="utf-8"))["made"], made)
        return
    scale = options.depth_scale or 1.0
    with open_recording(path, options.topics) as recording:
        lines = _journal_lines(journal)
        if lines:
            _check_same(journal, lines[0]["made"], made)
        else:
            plan, left_out = _plan(recording, options, budget)
            lines = [{"made": made, "plan": plan, "left_out": left_out}]
        # Without what an interruption left half.
        write_lines(journal, lines)
        plan = {int(stamp): split for stamp, split in lines[0]["plan"].items()}
        left_out = Counter(lines[0]["left_out"])
        frames = {line["stamp_ns"]: line for line in lines[1:]}
        stored = sum(_stored(folder, line) for line in frames.values())
        missing = [stamp for stamp in plan if stamp not in frames]
        with journal.open("a", encoding="utf-8") as log:
            for frame in recording.read(missing, scale) if missing else ():
                if frame.stamp_ns in frames:
                    continue
                if stored > budget:
                    left_out["no room for them (--max-bytes)"] += len(plan) - len(frames)
                    break
                line = _store(folder, name, frame, plan[frame.stamp_ns], options.jpeg_quality)
                if line is None:
                    left_out[f"fewer than {LABELS} pixels with depth"] += 1
                    continue
                frames[frame.stamp_ns] = line
                stored += _stored(folder, line)
                log.write(json_line(line))
                log.flush()
                progress(len(frames), len(plan))
        left_out += recording.frames.failed + recording.frames.without_depth
        ordered = [frames[stamp] for stamp in sorted(frames)]
        if not ordered:
            raise DatasetError(f"{path}: no frame can be used: {told(left_out)}")
        pairs, left_out_pairs = _pairs(folder, ordered, progress)
        if recording.no_poses:
            left_out_pairs = {recording.no_poses: len(ordered)}
        part = {
            "name": name,
            "made": made,
            "stored_bytes": stored,
            "topics": {
                "image": recording.frames.topics.image,
                "camera_info": recording.frames.topics.camera_info,
                "depth": recording.depth.topic,
                "boxes": recording.boxes,
            },
            "poses": None if recording.poses is None else recording.poses.source,
            "images": len(recording.stamps_ns),
            "left_out": dict(left_out),
            "left_out_pairs": left_out_pairs,
            "left_out_boxes": dict(recording.left_out_boxes),
            "notes": [*recording.notes, *recording.frames.damage],
            "frames": ordered,
            "pairs": pairs,
        }
    write_whole(finished, json.dumps(part).encode())
    journal.unlink()


def _plan(
    recording: Recording, options: MakingOptions, budget: int
) -> tuple[dict[int, Split], Counter[str]]:
    """Which frames are made, with their split; what is not, and why."""
    stamps, left_out = recording.with_depth()
    plan, not_kept = choose_frames(stamps, recording.poses_at(stamps), options.selection)
    left_out += not_kept
    probes = evenly_spread(sorted(plan), _PROBES)
    frames = list(recording.read(probes, options.depth_scale or 1.0))
    if not frames:
        reasons = recording.frames.failed + recording.frames.without_depth
        damage = "; ".join(recording.frames.damage)
        raise DatasetError(
            f"{recording.path}: no frame can be used: {told(reasons + left_out) or damage}"
        )
    if options.depth_scale is None:
        _check_unit(recording, frames)
    sizes = [
        len(jpeg(frame.image, options.jpeg_quality)) + len(depth_png(frame.depth))
        for frame in frames
    ]
    room = int(budget / float(np.mean(sizes)))
    if not room:
        raise DatasetError(
            f"{recording.path}: a frame takes {np.mean(sizes):,.0f} bytes, and --max-bytes leaves "
            f"{budget:,} for this bag"
        )
    kept = evenly_spread(sorted(plan), room)
    if len(kept) < len(plan):
        left_out["no room for them (--max-bytes)"] += len(plan) - len(kept)
    return {stamp: plan[stamp] for stamp in kept}, left_out


def _check_unit(recording: Recording, frames: Sequence[TrainingFrame]) -> None:
    """Refuse depth that can hardly be metres."""
    known = np.concatenate([frame.depth[np.isfinite(frame.depth)] for frame in frames])
    if not known.size or MIN_MEDIAN_DEPTH <= (median := float(np.median(known))) <= (
        MAX_MEDIAN_DEPTH
    ):
        return
    factor = 0.001 if median > MAX_MEDIAN_DEPTH else 1000
    raise DatasetError(
        f"{recording.path}: the median depth on '{recording.depth.topic}' is {median:g} m: the "
        "unit is probably another one (REP-118: 32FC1 holds metres, 16UC1 millimetres); "
        f"--depth-scale {factor:g} multiplies by that, --depth-scale 1 takes it as it is"
    )


def _store(
    folder: Path, name: str, frame: TrainingFrame, split: Split, quality: int
) -> dict[str, Any] | None:
    """Write a frame; its line of frames.jsonl, None where too little depth is known."""
    whole = millimetres(frame.depth)
    rows, columns = np.nonzero(whole)
    if len(rows) < LABELS:
        return None
    rng = np.random.default_rng([_LABELS_STREAM, frame.stamp_ns])
    chosen = np.sort(rng.choice(len(rows), LABELS, replace=False))
    camera = frame.camera
    image, depth = (
        f"{kind}/{name}/{frame.stamp_ns}.{suffix}"
        for kind, suffix in (("images", "jpg"), ("depth", "png"))
    )
    write_whole(folder / depth, depth_png(frame.depth))
    write_whole(folder / image, jpeg(frame.image, quality))
    pose = frame.T_world_camera
    return {
        "image": image,
        "intrinsics": [camera.fx, camera.fy, camera.cx, camera.cy, camera.width, camera.height],
        "pixel_coords": np.stack([columns, rows], -1)[chosen].tolist(),
        "depth": (whole[rows, columns][chosen] / 1000).tolist(),
        "bag": name,
        "stamp_ns": frame.stamp_ns,
        "depth_image": depth,
        "T_world_camera": None if pose is None else pose.tolist(),
        "objects": [
            {
                "kind": box.kind,
                "centre": box.centre.tolist(),
                "size": box.size.tolist(),
                "yaw": box.yaw,
            }
            for box in frame.objects
        ],
        "split": split,
    }


def _pairs(
    folder: Path, lines: Sequence[dict[str, Any]], progress: Progress
) -> tuple[list[dict[str, Any]], dict[str, int]]:
    """Pairs by places in the lines, and how many candidates are none, by reason."""
    frames = [frame_from_json(line) for line in lines]
    if all(frame.T_world_camera is None for frame in frames):
        return [], {}
    places = [
        place(
            frame.camera, read_depth(folder / frame.depth_image), frame.T_world_camera, frame.split
        )
        for frame in frames
    ]
    pairs, left_out = find_pairs(places, progress)
    return [asdict(pair) for pair in pairs], dict(left_out)


def _put_together(folder: Path) -> dict[str, Any]:
    """Write the files of the whole from the finished bags; dataset.json last."""
    parts = _finished(folder)
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


def told(reasons: Mapping[str, int]) -> str:
    """Reasons and how often each, in words."""
    return "; ".join(f"{count} times: {reason}" for reason, count in reasons.items())


def _finished(folder: Path) -> list[dict[str, Any]]:
    return [
        json.loads(path.read_text(encoding="utf-8"))
        for path in sorted((folder / "bags").glob("*.json"))
    ]


def _journal_lines(journal: Path) -> list[dict[str, Any]]:
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


def _check_same(file: Path, before: Mapping[str, Any], now: Mapping[str, Any]) -> None:
    if differing := [key for key in now if now[key] != before.get(key)]:
        changes = "; ".join(f"{key} was {before.get(key)}, is {now[key]}" for key in differing)
        raise DatasetError(
            f"{file}: this bag was made with other options, or is another bag ({changes}); choose "
            "another folder, or remove this file"
        )


def _stored(folder: Path, line: Mapping[str, Any]) -> int:
    return sum((folder / line[key]).stat().st_size for key in ("image", "depth_image"))


def _size(path: Path) -> int:
    files = path.rglob("*") if path.is_dir() else [path]
    return sum(file.stat().st_size for file in files if file.is_file())


@contextmanager
def _full_disk_told(folder: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        raise DatasetError(
            f"{folder}: the disk is full ({error.filename or 'bags'}); make room, then the same "
            "command goes on where it stopped"
        ) from error
