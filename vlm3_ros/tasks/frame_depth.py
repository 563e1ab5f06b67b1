# SPDX-License-Identifier: Apache-2.0
"""The depth of a frame: pixels are chosen and asked, answers filtered, depth images built.

depth_node and the evaluation of bags both use this module, so that what is scored is what a robot
gets.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from vlm3_ros.engines.base import Engine
from vlm3_ros.errors import Vlm3Error
from vlm3_ros.geometry.camera import PinholeCamera
from vlm3_ros.geometry.frame import RectifiedFrame
from vlm3_ros.tasks.dense import densify
from vlm3_ros.tasks.depth import DepthAnswers, DepthLimits, ask_depth, uniform_grid
from vlm3_ros.tasks.sampling import adaptive_pixels, cell_extents
from vlm3_ros.tasks.sky import sky_mask

PIXEL_CHOICES: dict[str, Callable[[RectifiedFrame, int, int], NDArray[np.float64]]] = {
    "uniform": lambda frame, columns, rows: uniform_grid(frame.camera, columns, rows),
    "adaptive": lambda frame, columns, rows: adaptive_pixels(
        frame.image, columns * rows, frame.visible
    ),
}
"""Ways to choose rows * columns pixels of a frame, each returns shape (rows * columns, 2)."""


DepthScale = Callable[[PinholeCamera, NDArray[np.float64], NDArray[np.float32]], float]
"""Takes the camera, pixels (u, v), shape (n, 2), and their depths in metres, shape (n,), NaN where
unknown; returns the factor on these depths."""


class UnknownUncertaintyError(Vlm3Error):
    """`max_uncertainty` is set, but the engine knows no uncertainty: no answer could pass."""


@dataclass(frozen=True)
class FrameDepthSettings:
    """Which pixels of a frame are asked, and which answers are kept.

    Attributes:
        columns, rows: of the grid of pixels.
        pixel_choice: a key of `PIXEL_CHOICES`.
        view_focal: unified focal length at which the image enters the model, px; None for the
            checkpoint's own.
        limits: answers beyond these are withheld.
        withhold_sky: whether pixels of clear sky are not asked, see `sky_mask`.
    """

    columns: int = 16
    rows: int = 12
    pixel_choice: str = "uniform"
    view_focal: float | None = None
    limits: DepthLimits = field(default_factory=DepthLimits)
    withhold_sky: bool = False


@dataclass(frozen=True, eq=False)
class FrameDepth:
    """The answers about a frame.

    Attributes:
        frame: that was asked about; withheld sky is not visible.
        settings: that it was asked with.
        pixels: (u, v), shape (n, 2), n = rows * columns.
        depth: metres along Z, shape (n,), float32; NaN where not asked, unanswered or withheld.
        std: standard deviation of the answers in metres, shape (n,), float32; NaN where unknown.
        answers: about the visible pixels only, scaled, none withheld.
        counts: the answers by what was done with them: "published", "out of range",
            "too uncertain", "unanswered"; and the pixels of "sky" that were not asked, if sky is
            withheld.
    """

    frame: RectifiedFrame
    settings: FrameDepthSettings
    pixels: NDArray[np.float64]
    depth: NDArray[np.float32]
    std: NDArray[np.float32]
    answers: DepthAnswers
    counts: dict[str, int]

    @property
    def points(self) -> NDArray[np.float64]:
        """Points in the optical frame, shape (n, 3), metres; NaN where `depth` is."""
        return self.frame.camera.unproject(self.pixels, self.depth)

    @property
    def colours(self) -> NDArray[np.uint8]:
        """Colours of the pixels, RGB, shape (n, 3)."""
        u, v = nearest_pixels(self.pixels)
        return self.frame.image[v, u]

    @property
    def unread(self) -> list[str]:
        """Answers from which no depth could be read."""
        return [self.answers.texts[i] for i in np.flatnonzero(np.isnan(self.answers.depth))]

    @property
    def faulty(self) -> NDArray[np.bool_]:
        """Mask of the pixels about which the engine had no answer, shape (n,)."""
        mask = self.visible
        mask[mask] = self.answers.faulty
        return mask

    @property
    def visible(self) -> NDArray[np.bool_]:
        """Mask of the pixels that show something, which were asked, shape (n,)."""
        u, v = nearest_pixels(self.pixels)
        return self.frame.visible[v, u]

    @property
    def grid(self) -> NDArray[np.float32]:
        """The depth image of `camera.resized(columns, rows)`, shape (rows, columns), metres.

        It holds the answers themselves if the pixels are that grid, else values of `dense`.
        """
        columns, rows = self.settings.columns, self.settings.rows
        depth = self.depth
        if self.settings.pixel_choice != "uniform":
            u, v = nearest_pixels(uniform_grid(self.frame.camera, columns, rows))
            depth = self.dense[v, u]
        return depth.reshape(rows, columns)

    @property
    def cell_extents(self) -> NDArray[np.float64] | None:
        """How far the cells of the pixels reach, see `cell_extents`; None for those of a grid."""
        if self.settings.pixel_choice == "uniform":
            return None
        return cell_extents(self.frame.camera.width, self.frame.camera.height, self.pixels)

    @cached_property
    def dense(self) -> NDArray[np.float32]:
        """Depth of every pixel: see `dense_depth`. Computed on first use."""
        return dense_depth(self.frame, self.pixels, self.depth, self.settings.limits)


def ask_frame_depth(
    engine: Engine,
    frame: RectifiedFrame,
    settings: FrameDepthSettings,
    scale: DepthScale | None = None,
) -> FrameDepth:
    """Ask for the depth of the chosen pixels of a frame that show something.

    Args:
        engine: that answers.
        frame: to ask about.
        settings: of pixels and limits; the limits count for scaled depths.
        scale: gives the factor on the answers; None for 1.

    Raises:
        GeometryError: if the image does not fit its camera or the engine's limits.
        EngineError: if the engine cannot answer at all.
        UnknownUncertaintyError: if answers are to be filtered by an uncertainty that none has.
    """
    shown = frame.visible
    if settings.withhold_sky:
        frame = replace(frame, visible=shown & ~sky_mask(frame.image))
    choose = PIXEL_CHOICES[settings.pixel_choice]
    pixels = choose(frame, settings.columns, settings.rows)
    u, v = nearest_pixels(pixels)
    visible = frame.visible[v, u]
    answers = ask_depth(engine, frame.image, frame.camera, pixels[visible], settings.view_focal)
    if scale is not None:
        answers = answers.scaled(scale(frame.camera, answers.pixels, answers.depth))
    kept, counts = _kept(answers, settings.limits)
    if settings.withhold_sky:
        counts["sky"] = int(np.count_nonzero(shown[v, u] & ~visible))
    depth, std = np.full((2, len(pixels)), np.nan, np.float32)
    depth[visible], std[visible] = kept, answers.std
    return FrameDepth(frame, settings, pixels, depth, std, answers, counts)


def dense_depth(
    frame: RectifiedFrame,
    pixels: NDArray[np.float64],
    depth: NDArray[np.floating],
    limits: DepthLimits | None = None,
) -> NDArray[np.float32]:
    """Spread the depths of some pixels over a frame: `densify`, within what the frame shows.

    Args:
        frame: of the pixels.
        pixels: (u, v) that were asked, shape (n, 2); those that show nothing do not count.
        depth: metres along Z, shape (n,), NaN where unknown.
        limits: depths out of their range are withheld; None for no limits.

    Returns:
        Shape (height, width), metres along Z, NaN where unknown.
    """
    u, v = nearest_pixels(pixels)
    visible = frame.visible[v, u]
    dense = densify(frame.image, pixels[visible], depth[visible])
    dense[~frame.visible | (limits or DepthLimits()).out_of_range(dense)] = np.nan
    return dense


def nearest_pixels(pixels: NDArray[np.float64]) -> NDArray[np.intp]:
    """Columns u and rows v of the pixels that contain these places, shape (2, n)."""
    return np.rint(pixels).astype(np.intp).T


def _kept(answers: DepthAnswers, limits: DepthLimits) -> tuple[NDArray[np.float32], dict[str, int]]:
    """The depths with those beyond the limits set to NaN, and the counts of `FrameDepth`."""
    depth, std = answers.depth, answers.std
    answered = np.isfinite(depth)
    if limits.max_uncertainty and answered.any() and not np.isfinite(std[answered]).any():
        raise UnknownUncertaintyError(
            f"max_uncertainty is {limits.max_uncertainty:g}, but no answer has an uncertainty, so "
            "nothing can be published: set it to 0 (force_answers: false, token_probabilities: "
            "false and servers without logprobs give none)"
        )
    out_of_range, too_uncertain = limits.out_of_range(depth), limits.too_uncertain(depth, std)
    kept = np.where(out_of_range | too_uncertain, np.float32(np.nan), depth)
    masks = {
        "published": np.isfinite(kept),
        "out of range": out_of_range,
        "too uncertain": too_uncertain & ~out_of_range,
        "unanswered": ~answered,
    }
    return kept, {name: int(np.count_nonzero(mask)) for name, mask in masks.items()}
