# SPDX-License-Identifier: Apache-2.0
"""Making a training set from recordings; `vlm3_ros.datasets.own` describes its folder."""

from __future__ import annotations

import errno
import json
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from vlm3_lab.datasets.frame_pairs import find_pairs
from vlm3_lab.datasets.recordings import Recording, TopicOptions, TrainingFrame, open_recording
from vlm3_lab.datasets.selection import Selection, choose_frames, evenly_spread, reason_text
from vlm3_lab.datasets.storage import (
    check_origin,
    check_same,
    depth_png,
    finished_parts,
    journal_file,
    journal_lines,
    jpeg,
    json_line,
    part_file,
    put_together,
    write_lines,
    write_whole,
)
from vlm3_ros.datasets.covisibility import ReducedFrame, reduced_frame
from vlm3_ros.datasets.files import read_png_depth
from vlm3_ros.datasets.own import Pair, Split, frame_from_json
from vlm3_ros.errors import DatasetError
from vlm3_ros.messages.depth_images import millimetres

LABELS = 10
"""Labelled pixels per frame: the paper packs as many questions into a sample (appendix A)."""

MAX_MEDIAN_DEPTH, MIN_MEDIAN_DEPTH = 200.0, 0.01
"""Metres: a median beyond these means that the unit is not that of REP-118."""

_LABELS_STREAM = 0xDA7A
"""First word of the seeds of labelled pixels."""

_PROBES = 5
"""Frames, taken evenly, that serve to check the unit of depth and the size of frames on disk."""

Progress = Callable[[int, int], None]
"""Called with the number of frames of a bag that are stored, later of those compared with later
ones, and the number of all."""


@dataclass(frozen=True)
class MakingOptions:
    """How a training set is made.

    `depth_scale`: factor on depth, after REP-118's units; None for 1 if that is plausible.
    `max_bytes`: limit on all images and depth images of the folder.
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
    """Add bags to a new or existing training set; finished bags are not made again.

    Returns:
        The content of dataset.json.

    Raises:
        BagError: if a bag lacks what is needed.
        DatasetError: if two bags have the same name, a bag was made with other options before, no
            frame of a bag can be used, the disk is full, or the folder holds files of another
            origin.
    """
    names = [bag_name(path) for path in bags]
    if repeated := [name for name, count in Counter(names).items() if count > 1]:
        raise DatasetError(f"two bags have the name '{repeated[0]}': rename one")
    check_origin(folder)
    with _full_disk_explained(folder):
        free = options.max_bytes - sum(part["stored_bytes"] for part in finished_parts(folder))
        unmade = sum(not part_file(folder, name).exists() for name in names)
        for path in bags:
            if stored := _make_bag(folder, path, options, max(0, free) // max(1, unmade), progress):
                free, unmade = free - stored, unmade - 1
        return put_together(folder)


def bag_name(path: Path) -> str:
    """Name of a bag in a training set: of its folder, or of its file without the suffix."""
    path = path.resolve()
    return path.name if path.is_dir() else path.stem


def _make_bag(
    folder: Path, path: Path, options: MakingOptions, budget: int, progress: Progress
) -> int:
    """Make one bag; return the bytes of its files, 0 if it was finished before."""
    name = bag_name(path)
    made = {"bag_bytes": _size(path), **json.loads(json.dumps(asdict(options)))}
    finished, journal = part_file(folder, name), journal_file(folder, name)
    if finished.exists():
        check_same(finished, json.loads(finished.read_text(encoding="utf-8"))["made"], made)
        return 0
    with open_recording(path, options.topics) as recording:
        lines = journal_lines(journal)
        if lines:
            check_same(journal, lines[0]["made"], made)
        else:
            plan, left_out = _plan(recording, options, budget)
            lines = [{"made": made, "plan": plan, "left_out": left_out}]
        # Drops a line that an interruption left incomplete.
        write_lines(journal, lines)
        left_out = Counter(lines[0]["left_out"])
        frames, stored = _store_frames(
            folder, name, recording, lines, options, budget, left_out, progress
        )
        left_out += recording.frames.failed + recording.frames.without_depth
        if not frames:
            journal.unlink()  # nothing is lost, and other options may work
            raise DatasetError(f"{path}: no frame can be used: {reason_text(left_out)}")
        pairs: list[Pair] = []
        no_pairs: Counter[str] = Counter()
        if recording.poses is not None:
            pairs, no_pairs = find_pairs(
                _reduced(folder, frames), [line["split"] for line in frames], progress
            )
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
            "no_poses": _by_name(recording, recording.no_poses),
            "images": len(recording.stamps_ns),
            "left_out": left_out,
            "left_out_pairs": no_pairs,
            "left_out_boxes": recording.left_out_boxes,
            "notes": [
                *recording.notes,
                *(_by_name(recording, damage) for damage in recording.frames.damage),
                *(_by_name(recording, text) for text in recording.frames.assumptions),
            ],
            "frames": frames,
            "pairs": [asdict(pair) for pair in pairs],
        }
    write_whole(finished, json.dumps(part).encode())
    journal.unlink()
    return stored


def _store_frames(
    folder: Path,
    name: str,
    recording: Recording,
    lines: Sequence[dict[str, Any]],
    options: MakingOptions,
    budget: int,
    left_out: Counter[str],
    progress: Progress,
) -> tuple[list[dict[str, Any]], int]:
    """Store the frames of the plan that are not in the journal yet.

    Args:
        lines: of the journal: the plan, then the frames that are stored.
        left_out: counts frames that could not be stored, by reason.

    Returns:
        The lines of all frames, by time, and the bytes of their files.
    """
    plan = {int(stamp): split for stamp, split in lines[0]["plan"].items()}
    frames = {line["stamp_ns"]: line for line in lines[1:]}
    stored = sum(_stored(folder, line) for line in frames.values())
    missing = [stamp for stamp in plan if stamp not in frames]
    with journal_file(folder, name).open("a", encoding="utf-8") as journal:
        for frame in recording.read(missing, options.depth_scale or 1.0) if missing else ():
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
            journal.write(json_line(line))
            journal.flush()
            progress(len(frames), len(plan))
    return [frames[stamp] for stamp in sorted(frames)], stored


def _plan(
    recording: Recording, options: MakingOptions, budget: int
) -> tuple[dict[int, Split], Counter[str]]:
    """Choose the frames with their split; count the others by reason."""
    stamps, left_out = recording.with_depth()
    plan, not_kept = choose_frames(stamps, recording.poses_at(stamps), options.selection)
    left_out += not_kept
    probes = evenly_spread(sorted(plan), _PROBES)
    frames = list(recording.read(probes, options.depth_scale or 1.0))
    if not frames:
        reasons = recording.frames.failed + recording.frames.without_depth
        damage = "; ".join(recording.frames.damage)
        raise DatasetError(
            f"{recording.path}: no frame can be used: {reason_text(reasons + left_out) or damage}"
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
    """Refuse depth that is hardly in metres."""
    known = np.concatenate([frame.depth[np.isfinite(frame.depth)] for frame in frames])
    if not known.size or MIN_MEDIAN_DEPTH <= (median := float(np.median(known))) <= (
        MAX_MEDIAN_DEPTH
    ):
        return
    factor = 0.001 if median > MAX_MEDIAN_DEPTH else 1000
    raise DatasetError(
        f"{recording.path}: the median depth on '{recording.depth.topic}' is {median:g} m: the "
        "unit is probably another one (REP-118: 32FC1 holds metres, 16UC1 millimetres); use "
        f"--depth-scale {factor:g} to convert it, or --depth-scale 1 to keep it"
    )


def _store(
    folder: Path, name: str, frame: TrainingFrame, split: Split, quality: int
) -> dict[str, Any] | None:
    """Write a frame; return its line of frames.jsonl, None if too little depth is known."""
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


def _reduced(folder: Path, lines: Sequence[dict[str, Any]]) -> list[ReducedFrame]:
    frames = [frame_from_json(line) for line in lines]
    return [
        reduced_frame(
            frame.camera, read_png_depth(folder / frame.depth_image), frame.T_world_camera
        )
        for frame in frames
    ]


def _stored(folder: Path, line: Mapping[str, Any]) -> int:
    return sum((folder / line[key]).stat().st_size for key in ("image", "depth_image"))


def _size(path: Path) -> int:
    files = path.rglob("*") if path.is_dir() else [path]
    return sum(file.stat().st_size for file in files if file.is_file())


def _by_name(recording: Recording, text: str) -> str:
    """A message without the folder of the bag, because training sets are shared."""
    for path in (recording.path, recording.frames.path):
        text = text.replace(str(path), path.name)
    return text


@contextmanager
def _full_disk_explained(folder: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        raise DatasetError(
            f"{folder}: the disk is full ({error.filename or 'bags'}); make room, then the same "
            "command continues where it stopped"
        ) from error
