# SPDX-License-Identifier: Apache-2.0
"""Options that describe cameras: of photos, of recordings, and of the depth in recordings."""

from __future__ import annotations

import argparse
from argparse import ArgumentTypeError
from typing import TYPE_CHECKING

from vlm3_ros.cli.arguments import number_from_zero
from vlm3_ros.errors import CommandError
from vlm3_ros.evaluation.bag.depth_options import DEPTH_CAMERAS, DepthOptions

if TYPE_CHECKING:
    from vlm3_ros.geometry.calibration_files import GivenCamera


def add_camera_options(
    parser: argparse.ArgumentParser | argparse._ArgumentGroup, without: str, of: str = "photo"
) -> list[argparse.Action]:
    """Add --hfov and --camera-info.

    Args:
        parser: or a group of it.
        without: what is done without them.
        of: what the camera took.
    """
    several = "; give one per photo if their cameras differ" if of == "photo" else ""
    return [
        parser.add_argument(
            "--hfov",
            dest="cameras",
            type=_field_of_view,
            action="append",
            metavar="DEG",
            help=f"horizontal field of view of the {of}, in degrees{several} (default: {without})",
        ),
        parser.add_argument(
            "--camera-info",
            dest="cameras",
            type=_calibration,
            action="append",
            metavar="FILE",
            help="calibration of the camera: camera_calibration's YAML or ost.txt, the output of "
            "`ros2 topic echo --once` of a CameraInfo, OpenCV's FileStorage (YAML, XML), or a "
            f"camchain of Kalibr (FILE:cam1 for one of several cameras); the {of} is "
            f"rectified{several}",
        ),
    ]


def given_cameras(options: argparse.Namespace, photos: int) -> list[GivenCamera | None]:
    """The camera of each photo; None where the options name none.

    Raises:
        CommandError: if there are several cameras, but not one per photo.
    """
    cameras: list[GivenCamera | None] = options.cameras or [None]
    if len(cameras) == 1:
        return cameras * photos
    if len(cameras) != photos:
        raise CommandError(
            f"{len(cameras)} cameras are given for {photos} photo{'s' * (photos > 1)}: give "
            "--hfov or --camera-info once, or once per photo"
        )
    return cameras


def given_camera(options: argparse.Namespace) -> GivenCamera | None:
    """The camera of a recording; None if the options name none.

    Raises:
        CommandError: if they name several.
    """
    cameras: list[GivenCamera] = options.cameras or []
    if len(cameras) > 1:
        raise CommandError("a recording has one camera: give --hfov or --camera-info once")
    return cameras[0] if cameras else None


def add_depth_options(group: argparse._ArgumentGroup) -> list[argparse.Action]:
    """Add the options on true depth in recordings."""
    return [
        group.add_argument(
            "--depth-camera",
            choices=DEPTH_CAMERAS,
            help="whose camera true depth belongs to: image (the images as they were taken; it is "
            "rectified like them), rectified (the rectified images) or own (that of its CameraInfo "
            "where TF puts it; it is registered) (default: what its CameraInfo and TF say)",
        ),
        group.add_argument(
            "--max-offset",
            type=number_from_zero,
            metavar="SECONDS",
            help="largest time between an image and its depth (default: half a period of the "
            "slower topic, 0.01 to 0.1 s)",
        ),
    ]


def depth_options(options: argparse.Namespace) -> DepthOptions:
    """Options on true depth from the command line."""
    return DepthOptions(options.depth_camera, options.max_offset)


def _field_of_view(text: str) -> GivenCamera:
    from vlm3_ros.geometry.calibration_files import GivenCamera

    try:
        return GivenCamera(hfov=float(text))
    except ValueError:
        raise ArgumentTypeError(f"'{text}' is not a number of degrees") from None


def _calibration(text: str) -> GivenCamera:
    from vlm3_ros.geometry.calibration_files import GivenCamera

    return GivenCamera(file=text)
