# SPDX-License-Identifier: Apache-2.0
"""An evaluation as a recording for the viewer of rerun.io: `rerun FILE.rrd`.

    world                 metres; for a bag: the frame of its true poses, Z up (REP-103)
    world/camera          the optical frame at the true pose, or at the odometry's without truth
    world/camera/points   the answers, in the colours of the image
    world/camera/view     intrinsics and image
    world/camera/view/truth   true depth; the viewer unprojects it
    world/truth           the true trajectory of the base
    world/odom            the odometry's frame; its first pose is on the true one
    world/odom/path       the odometry's poses
    world/odom/base       the base along them
    errors/abs_rel, errors/delta1   headline metrics of depth, by frame

The timeline is `stamp` for a bag, and `rank` (0 is the smallest error) for procedural views.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from vlm3_ros.evaluation.bag.answers import GRID
from vlm3_ros.evaluation.bag.evaluate import BagEvaluation
from vlm3_ros.evaluation.bag.scene import odom_origins
from vlm3_ros.evaluation.metrics.declared import headlines
from vlm3_ros.evaluation.metrics.depth import DepthMetrics
from vlm3_ros.geometry.camera import PinholeCamera
from vlm3_ros.geometry.motion import Transform
from vlm3_ros.tasks.depth import uniform_grid

if TYPE_CHECKING:
    from rerun import RecordingStream

INSTALL = "pip install rerun-sdk"

_JPEG_QUALITY = 85
_POINT_RADIUS, _LINE_RADIUS = 0.02, 0.01  # metres
_TRUE, _ANSWERED = (42, 127, 63), (200, 64, 30)


def import_rerun() -> ModuleType:
    """Import the package rerun.

    Raises:
        ImportError: saying how to install it.
    """
    try:
        import rerun
    except ImportError as error:
        raise ImportError(f"rerun-sdk cannot be imported ({error}): {INSTALL}") from error
    return rerun


def log_bag(evaluation: BagEvaluation, path: Path) -> None:
    """Write the evaluation of a bag as a recording of all frames with depth or a pose.

    Args:
        evaluation: of the bag, which is read once more for its images.
        path: of the .rrd file.

    Raises:
        ImportError: without rerun.
    """
    rr, answers, poses = import_rerun(), evaluation.answers, evaluation.source.poses
    T_base_camera = evaluation.source.T_base_camera
    T_world_odom = odom_origins(evaluation)
    with recording(path, is_level=True) as log:
        if poses is not None:
            true = poses.base.at(np.array(evaluation.truth.stamps_ns, np.int64))
            log.log("world/truth", _line(true, _TRUE), static=True)
        chain: list[Transform] = []
        # In real time, each node answers different frames.
        for frame in evaluation.source.frames.at({*answers.depths, *answers.odom}):
            stamp = frame.stamp_ns
            log.set_time("stamp", timestamp=np.datetime64(stamp, "ns"))
            T_world_base = None if poses is None else _known(poses.base.at([stamp])[0])
            if stamp in answers.odom:
                if stamp in T_world_odom:
                    chain = []
                    log.log("world/odom", _transform(T_world_odom[stamp]))
                chain.append(answers.odom[stamp])
                log.log("world/odom/base", _transform(chain[-1]))
                log.log("world/odom/path", _line(np.stack(chain), _ANSWERED))
                if T_world_base is None:
                    T_world_base = chain[-1]
            if T_world_base is None:
                log.log("world/camera", rr.Clear(recursive=True))
                continue
            log.log("world/camera", _transform(T_world_base @ T_base_camera))
            depth = answers.depths.get(stamp, np.full(math.prod(GRID), np.nan))
            log_camera(log, frame.camera, frame.image, depth, frame.depth)
        if scores := evaluation.scores.depth:
            for view, metrics in zip(scores.views, scores.by_view, strict=True):
                log.set_time("stamp", timestamp=np.datetime64(view.index, "ns"))
                log_errors(log, metrics)


def log_errors(log: RecordingStream, metrics: DepthMetrics) -> None:
    """Log the headline metrics of one image at the current time."""
    for name, value in headlines(metrics).items():
        log.log(f"errors/{name}", import_rerun().Scalars(value))


@contextmanager
def recording(path: Path, is_level: bool) -> Iterator[RecordingStream]:
    """Open a stream into a file whose layout shows the world, the image and the errors.

    `is_level`: Z of the world points up; otherwise the world is an optical frame.
    """
    rr = import_rerun()
    import rerun.blueprint as blueprint

    log = rr.RecordingStream("vlm3 evaluate")
    layout = blueprint.Horizontal(
        blueprint.Spatial3DView(origin="world", name="world"),
        blueprint.Vertical(
            blueprint.Spatial2DView(origin="world/camera/view", name="image and true depth"),
            blueprint.TimeSeriesView(origin="errors", name="errors of depth"),
        ),
        column_shares=[2, 1],
    )
    log.save(path, blueprint.Blueprint(layout))
    axes = rr.ViewCoordinates.RIGHT_HAND_Z_UP if is_level else rr.ViewCoordinates.RDF
    log.log("world", axes, static=True)
    try:
        yield log
    finally:
        log.disconnect()


def log_camera(
    log: RecordingStream,
    camera: PinholeCamera,
    image: NDArray[np.uint8],
    depth: NDArray[np.floating[Any]],
    truth: NDArray[np.floating[Any]] | None,
) -> None:
    """Log image, answers on the grid and true depth at the current time."""
    rr = import_rerun()
    # In Rerun, whole numbers are corners of pixels; here they are centres.
    K = camera.K + np.array([[0, 0, 0.5], [0, 0, 0.5], [0, 0, 0]])
    size = (camera.width, camera.height)
    view = "world/camera/view"
    log.log(
        view, rr.Pinhole(image_from_camera=K, resolution=size, camera_xyz=rr.ViewCoordinates.RDF)
    )
    log.log(view, rr.Image(image).compress(_JPEG_QUALITY))
    if truth is None:
        log.log(f"{view}/truth", rr.Clear(recursive=False))
    else:
        # Rerun leaves out zeros.
        log.log(
            f"{view}/truth",
            rr.DepthImage(np.nan_to_num(truth, posinf=0).astype(np.float32), meter=1.0),
        )
    pixels = uniform_grid(camera, *GRID)
    answered = np.isfinite(depth)
    u, v = np.rint(pixels[answered]).astype(int).T
    points = camera.unproject(pixels[answered], depth[answered])
    log.log("world/camera/points", rr.Points3D(points, colors=image[v, u], radii=_POINT_RADIUS))


def _known(transform: Transform) -> Transform | None:
    return transform if np.isfinite(transform).all() else None


def _transform(T: Transform) -> Any:
    return import_rerun().Transform3D(translation=T[:3, 3], mat3x3=T[:3, :3])


def _line(poses: NDArray[np.float64], colour: tuple[int, int, int]) -> Any:
    """Line through poses, shape (n, 4, 4), without the unknown ones."""
    places = poses[:, :3, 3]
    places = places[np.isfinite(places).all(axis=1)]
    return import_rerun().LineStrips3D([places], colors=[colour], radii=_LINE_RADIUS)
