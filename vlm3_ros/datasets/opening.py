# SPDX-License-Identifier: Apache-2.0
"""Which reader reads which format."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from pathlib import Path

from vlm3_ros.datasets.authors import read_authors
from vlm3_ros.datasets.depthlm import read_depthlm
from vlm3_ros.datasets.folder import read_folder
from vlm3_ros.datasets.own import load_dataset
from vlm3_ros.datasets.photo_cameras import PhotoCameras
from vlm3_ros.datasets.source import FrameSource
from vlm3_ros.datasets.spatialrgpt import read_spatialrgpt
from vlm3_ros.datasets.tum import read_tum
from vlm3_ros.datasets.wai.source import read_wai
from vlm3_ros.engines.anycalib import Calibrator
from vlm3_ros.errors import DatasetError
from vlm3_ros.geometry.calibration_files import GivenCamera


@dataclass(frozen=True)
class SourceOptions:
    """What some formats need besides a path.

    Attributes:
        images: folder of the images; None if they lie beside the file that names them.
        camera: of all images; None if the data set says it.
        scene_list: file with the names of the scenes to use; None for all.
        calibrator: loads what estimates the camera of an image that has none; None for no estimate.
    """

    images: Path | None = None
    camera: GivenCamera | None = None
    scene_list: Path | None = None
    calibrator: Callable[[], Calibrator] | None = None


@dataclass(frozen=True)
class Format:
    """A format of data sets.

    Attributes:
        open: takes the file or folder of the data set; raises DatasetError.
        options: fields of `SourceOptions` that it takes.
    """

    open: Callable[[Path, SourceOptions], FrameSource]
    options: tuple[str, ...] = ()


FORMATS: Mapping[str, Format] = {
    "dataset": Format(lambda path, options: load_dataset(path)),
    "depthlm": Format(lambda path, options: read_depthlm(path, options.images), ("images",)),
    "wai": Format(lambda path, options: read_wai(path, options.scene_list), ("scene_list",)),
    "spatialrgpt": Format(
        lambda path, options: read_spatialrgpt(
            path, options.images, PhotoCameras(options.camera, options.calibrator)
        ),
        ("images", "camera", "calibrator"),
    ),
    "tum": Format(lambda path, options: read_tum(path, options.camera), ("camera",)),
    "folder": Format(lambda path, options: read_folder(path)),
    "authors": Format(lambda path, options: read_authors(path)),
}
"""By name, as in `tum:DIR` and, but for the authors' sample, in a training configuration."""


def open_source(text: str, options: SourceOptions) -> FrameSource:
    """Open a data set that is given as `FORMAT:PATH`, such as `tum:rgbd_dataset_freiburg1_desk`.

    Raises:
        DatasetError: if the format is unknown or does not take an option, or naming the file that
            cannot be read.
    """
    name, colon, path = text.partition(":")
    if not colon or name not in FORMATS:
        near = difflib.get_close_matches(name, FORMATS, 1)
        advice = f"; did you mean {near[0]}:{path}?" if colon and near else ""
        raise DatasetError(
            f"{text}: expected FORMAT:PATH, where FORMAT is one of {', '.join(FORMATS)}{advice}"
        )
    for field in fields(options):
        if getattr(options, field.name) is not None and field.name not in FORMATS[name].options:
            takers = [other for other, known in FORMATS.items() if field.name in known.options]
            raise DatasetError(
                f"{text}: {name} takes no {field.name}, which is for {', '.join(takers)}"
            )
    return FORMATS[name].open(Path(path), options)
