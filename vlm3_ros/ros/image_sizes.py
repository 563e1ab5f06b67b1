# SPDX-License-Identifier: Apache-2.0
"""The sizes at which a camera's images enter the models of a node."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from vlm3_ros.engines.base import Engine
from vlm3_ros.geometry.camera import PinholeCamera, image_tokens
from vlm3_ros.tasks.task import model_view, new_size_remark


class ImageSizes:
    """Knows the sizes of the newest image, and says what is unusual about them once per process.

    Attributes:
        values: key-value pairs of a diagnostic status, by the name of the task.
    """

    def __init__(self, warn: Callable[[str], object]) -> None:
        """Create it without sizes; `warn` logs a warning."""
        self.values: dict[str, str] = {}
        self._warn = warn
        self._noted: object = None

    def note(
        self,
        engines: Mapping[str, Engine],
        camera: PinholeCamera,
        view_focal: Callable[[str], float | None],
    ) -> None:
        """Note the camera of an image.

        Args:
            engines: by the name of their task.
            camera: of the rectified image.
            view_focal: returns the unified focal length that a user set for a task, px.

        Raises:
            GeometryError: if a model cannot take images of this camera.
        """
        focals = {task: view_focal(task) for task in engines}
        if self._noted == (camera, focals):
            return
        values = {}
        for task, engine in engines.items():
            view = model_view(engine.profile, engine.limits, camera, focals[task])
            tokens = image_tokens(view, engine.limits)
            size = f"{view.view.width}x{view.view.height} px, {tokens} tokens"
            values[f"image for {task}"] = size
            if remark := new_size_remark(view, engine.limits):
                self._warn(f"{task}: {remark}")
        self.values = values
        self._noted = (camera, focals)

    def clear(self) -> None:
        """Forget the camera; what was said is not said again."""
        self.values = {}
        self._noted = None
