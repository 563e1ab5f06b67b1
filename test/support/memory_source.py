# SPDX-License-Identifier: Apache-2.0
"""A data set of views in memory."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from vlm3_ros.datasets.source import Contents, FrameSource, Pairs, listed_pairs
from vlm3_ros.datasets.views import View
from vlm3_ros.errors import DatasetError


class MemorySource(FrameSource):
    """Views as frames "SCENE/NUMBER.png"; `broken`: frames that cannot be read."""

    def __init__(
        self,
        views: Sequence[View],
        pairs: Sequence[tuple[int, int]] = (),
        broken: Mapping[int, str] | None = None,
        held_out: Sequence[int] = (),
    ):
        self.name, self.notes = "memory", []
        self.views, self.listed, self.broken = list(views), list(pairs), dict(broken or {})
        self.contents = Contents(
            has_depth=np.array(
                [view.is_metric and bool(np.isfinite(view.depth).any()) for view in views]
            ),
            has_pose=np.array([bool(np.isfinite(view.T_world_camera).all()) for view in views]),
            has_objects=np.zeros(len(views), bool),
            is_held_out=np.isin(np.arange(len(views)), held_out),
        )

    def read(self, index: int) -> View:
        if index in self.broken:
            raise DatasetError(self.broken[index])
        return self.views[index]

    def pairs(self, min_covisibility: float | None = None) -> Pairs:
        return listed_pairs(self.listed)

    def frame_name(self, index: int) -> str:
        return f"{self.views[index].kind}/{index}.png"
