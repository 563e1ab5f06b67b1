# SPDX-License-Identifier: Apache-2.0
"""Estimate the intrinsics of many images once, for `photo_cameras.read_intrinsics`."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path

from vlm3_ros.datasets.files import IMAGE_SUFFIXES, read_image
from vlm3_ros.engines.anycalib import Calibrator
from vlm3_ros.errors import DatasetError
from vlm3_ros.geometry.camera import GeometryError

Progress = Callable[[int, int], None]


def estimate_intrinsics(
    images: Path, out: Path, calibrate: Calibrator, progress: Progress
) -> tuple[int, list[str]]:
    """Estimate the camera of each image in a folder and in the folders below it.

    Every line is written when it is known. Images that the file names already are not estimated
    again, so that an interrupted run goes on.

    Args:
        images: the folder.
        out: file of JSON lines; lines are added at its end.
        calibrate: estimates a camera.
        progress: takes the number of images done, and of all.

    Returns:
        The number of images in the file, and why others are missing, a line each.

    Raises:
        DatasetError: if the folder holds no image, or the file cannot be read.
    """
    names = sorted(_images(images))
    if not names:
        raise DatasetError(f"{images}: there are no images ({', '.join(IMAGE_SUFFIXES)})")
    known = _known(out)
    faults = []
    with out.open("a", encoding="utf-8") as lines:
        for done, name in enumerate(names, 1):
            if name not in known:
                try:
                    camera = calibrate(read_image(images / name))
                except (DatasetError, GeometryError) as error:
                    faults.append(f"{name}: {error}")
                    continue
                values = (camera.fx, camera.fy, camera.cx, camera.cy)
                size = (camera.width, camera.height)
                rounded = [*(round(float(value), 3) for value in values), *size]
                lines.write(json.dumps({"image": name, "intrinsics": rounded}) + "\n")
                lines.flush()
            progress(done, len(names))
    return len(names) - len(faults), faults


def _images(folder: Path) -> Iterator[str]:
    for path, _, files in os.walk(folder):
        below = Path(path).relative_to(folder)
        yield from (
            (below / file).as_posix() for file in files if file.lower().endswith(IMAGE_SUFFIXES)
        )


def _known(out: Path) -> set[str]:
    """Names of the images in a file; a last line that was cut off is removed."""
    if not out.exists():
        return set()
    text = out.read_bytes()
    whole = text[: text.rfind(b"\n") + 1]
    if len(whole) < len(text):
        out.write_bytes(whole)
    try:
        return {json.loads(line)["image"] for line in whole.splitlines() if line.strip()}
    except (ValueError, KeyError, TypeError) as error:
        raise DatasetError(f"{out}: it holds other lines than intrinsics: {error}") from error
