# SPDX-License-Identifier: Apache-2.0
"""The map from above that a robot could draw from the answers about a bag, and the true one."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from typing_extensions import override

from vlm3_ros.bags.poses import TruePoses
from vlm3_ros.bags.timed_poses import MAX_GAP, TimedPoses
from vlm3_ros.evaluation.bag.answers import GRID, BagAnswers
from vlm3_ros.evaluation.bag.frames import BagFrame
from vlm3_ros.evaluation.bag.scores import BagScores, odometry_chains
from vlm3_ros.evaluation.bag.truth import BagTruth
from vlm3_ros.evaluation.metrics.declared import metric_cells, metric_json, metric_titles
from vlm3_ros.evaluation.metrics.depth import guess_of_rows
from vlm3_ros.evaluation.metrics.occupancy import (
    MAX_HEIGHT,
    MAX_RANGE,
    MIN_HEIGHT,
    OccupancyGrid,
    OccupancyScores,
    Sight,
    empty_grid,
    occupancy_grid,
    occupancy_scores,
)
from vlm3_ros.evaluation.scores.base import Scores
from vlm3_ros.evaluation.tables import TextTable
from vlm3_ros.geometry.camera import PinholeCamera
from vlm3_ros.geometry.motion import Transform, inverse
from vlm3_ros.tasks.depth import uniform_grid

PUBLISHED = "model, own poses"
TRUE_POSES = "model, true poses"
TRUE_DEPTH = "true sparse depth"
ROW_GUESS = "best per row"

_DENSE = (100, 75)
"""Columns and rows of the pixels of the true map: so dense that no cell lies between two rays."""


@dataclass(frozen=True)
class BagOccupancy(Scores):
    """Maps of a bag, with the same cells, and their scores, by name.

    Attributes:
        truth: from dense true depth at true poses.
        maps: from the model's grid of depths at the published poses, aligned at the first one
            (missing if no pose was published), and at the true poses; from true depths of the same
            pixels, the best map that so few can give; and from the best guess that ignores the
            image. The last two are at true poses.
        true_way, published_way: (x, y) of the base, metres, shape (n, 2).
    """

    truth: OccupancyGrid
    maps: dict[str, OccupancyGrid]
    scores: dict[str, OccupancyScores]
    true_way: NDArray[np.float64]
    published_way: NDArray[np.float64]

    @override
    def to_json(self) -> dict[str, Any]:
        return {
            "cell_m": self.truth.cell,
            "true_cells": int(self.truth.occupied.sum()),
            "maps": {
                name.replace(",", "").replace(" ", "_"): metric_json(scores)
                for name, scores in self.scores.items()
            },
        }

    @override
    def tables(self, groups: Mapping[str, BagOccupancy]) -> list[TextTable]:
        true_cells = int(self.truth.occupied.sum())
        return [
            TextTable(
                f"map from above: {true_cells} occupied cells of {self.truth.cell:g} m",
                ("", *metric_titles(next(iter(self.scores.values())))),
                tuple((name, *metric_cells(scores)) for name, scores in self.scores.items()),
                f"{MIN_HEIGHT:g} to {MAX_HEIGHT:g} m over the base, within {MAX_RANGE:g} m. "
                "Shares of cells. Found: true cells with one of the map this near. Real: cells of "
                "the map with a true one this near. As free: true cells that the map calls free. "
                "True sparse depth: of the pixels that the model is asked. All maps but the first "
                "use true poses.",
            )
        ]


class OccupancySurvey:
    """Draws the true map while the frames of a bag are read, then the maps of the answers.

    Attributes:
        reason: why no map can be drawn; empty otherwise.
    """

    def __init__(self, answers: BagAnswers, poses: TruePoses | None, no_poses: str) -> None:
        """Prepare for answers about a bag; `no_poses`: why there is no ground truth."""
        self._answers = answers
        self._cameras: dict[int, PinholeCamera] = {}
        self._true: dict[int, Transform] = {}
        self._published: dict[int, Transform] = {}
        self.reason = self._reason(poses, no_poses)
        if self.reason:
            return
        assert poses is not None
        self._T_base_camera = poses.T_base_camera
        self._true = _at(poses.base, answers.depths)
        self._published = _published_poses(answers, poses.base)
        if not self._true:
            self.reason = f"the ground truth ({poses.source}) covers no frame that was answered"
            return
        self._places = np.stack([*self._true.values(), *self._published.values()])[:, :2, 3]
        self._truth = empty_grid(self._places)

    def watched(self, frames: Iterable[BagFrame]) -> Iterator[BagFrame]:
        """Yield the same frames and add them to the true map."""
        for frame in frames:
            if frame.stamp_ns in self._true and frame.depth is not None and not self.reason:
                self._cameras[frame.stamp_ns] = frame.camera
                u, v = np.rint(uniform_grid(frame.camera, *_DENSE)).astype(int).T
                depth = np.where(frame.visible[v, u], frame.depth[v, u], np.nan)
                pixels = np.stack([u, v], axis=1).astype(float)
                self._truth.add(
                    self._sight(frame.camera, pixels, depth, self._true[frame.stamp_ns])
                )
            yield frame

    def result(self, truth: BagTruth, scores: BagScores) -> BagOccupancy | None:
        """Return the maps after all frames were read; None without true depth, see `reason`."""
        if self.reason or not self._cameras or scores.depth is None:
            self.reason = self.reason or "no true depth belongs to a frame that was answered"
            return None
        guess = guess_of_rows(scores.depth.row, truth.rows)
        drawn = {
            PUBLISHED: self._map(self._answers.depths, self._published),
            TRUE_POSES: self._map(self._answers.depths, self._true),
            TRUE_DEPTH: self._map(truth.depths, self._true),
            ROW_GUESS: self._map(dict.fromkeys(self._true, guess), self._true),
        }
        if not self._published:
            del drawn[PUBLISHED]
        return BagOccupancy(
            truth=self._truth,
            maps=drawn,
            scores={name: occupancy_scores(grid, self._truth) for name, grid in drawn.items()},
            true_way=_way(self._true),
            published_way=_way(self._published),
        )

    def _reason(self, poses: TruePoses | None, no_poses: str) -> str:
        if poses is None:
            return no_poses
        if np.array_equal(poses.T_base_camera, np.eye(4)):
            return (
                f"the ground truth ({poses.source}) is the camera's own: what is floor and what "
                "stands on it is not known"
            )
        return ""

    def _map(
        self, depths: Mapping[int, NDArray[np.floating]], poses: Mapping[int, Transform]
    ) -> OccupancyGrid:
        return occupancy_grid(
            self._places,
            [
                self._sight(camera, uniform_grid(camera, *GRID), depths[stamp], poses[stamp])
                for stamp, camera in self._cameras.items()
                if stamp in depths and stamp in poses
            ],
        )

    def _sight(
        self,
        camera: PinholeCamera,
        pixels: NDArray[np.float64],
        depth: NDArray[np.floating],
        T_world_base: Transform,
    ) -> Sight:
        T = self._T_base_camera
        points = camera.unproject(pixels, depth) @ T[:3, :3].T + T[:3, 3]
        return Sight(points, T[:3, 3], T_world_base)


def _published_poses(answers: BagAnswers, base: TimedPoses) -> dict[int, Transform]:
    """T_world_base of the longest chain of odometry, at the frames whose depth was answered.

    Poses are interpolated, however far apart, as TF does: the nodes may have answered different
    frames. The first pose of the chain whose truth is known is put on the true one.
    """
    chain = np.array(max(odometry_chains(answers), key=len, default=[]), dtype=np.int64)
    known = np.isfinite(base.at(chain)).all(axis=(1, 2))
    if not known.any():
        return {}
    start = int(chain[known][0])
    T_world_odom = base.at([start])[0] @ inverse(answers.odom[start])
    published = TimedPoses(chain, np.stack([T_world_odom @ answers.odom[int(s)] for s in chain]))
    return _at(published, answers.depths, max_gap=np.inf)


def _at(
    poses: TimedPoses, stamps_ns: Iterable[int], max_gap: float = MAX_GAP
) -> dict[int, Transform]:
    """Known poses by stamp."""
    stamps = sorted(stamps_ns)
    return {
        stamp: pose
        for stamp, pose in zip(stamps, poses.at(stamps, max_gap), strict=True)
        if np.isfinite(pose).all()
    }


def _way(poses: Mapping[int, Transform]) -> NDArray[np.float64]:
    return np.array([pose[:2, 3] for pose in poses.values()]).reshape(-1, 2)
