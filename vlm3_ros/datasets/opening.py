# SPDX-License-Identifier: Apache-2.0
"""Which reader reads which format."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

from vlm3_ros.datasets.depthlm import read_depthlm
from vlm3_ros.datasets.own import load_dataset
from vlm3_ros.datasets.source import FrameSource

FORMATS: Mapping[str, Callable[[Path, Path | None], FrameSource]] = {
    "dataset": lambda path, images: load_dataset(path),
    "depthlm": read_depthlm,
}
"""By name, as in `wai:DIR` and in a training configuration; readers take the path of the data set
and, where it does not lie beside it, the folder of its images."""

WITH_IMAGES = ("depthlm",)
"""Formats whose images may lie in another folder."""


def open_source(name: str, path: Path, images: Path | None = None) -> FrameSource:
    """Open a data set.

    Args:
        name: of its format, one of `FORMATS`.
        path: its file or folder.
        images: folder of its images; None for that of the data set.

    Raises:
        DatasetError: naming the file that cannot be read.
    """
    return FORMATS[name](path, images)
