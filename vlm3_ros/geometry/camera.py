# SPDX-License-Identifier: Apache-2.0
"""Pinhole cameras, and the size at which an image enters a model (paper section 3.1).

Pixels follow OpenCV and ROS: (u, v) = (0, 0) is the centre of the first pixel, so an image of
width W covers [-0.5, W - 0.5). Camera axes are those of an optical frame (REP-103): X right,
Y down, Z forward; depth is measured along Z.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from vlm3_ros.errors import Vlm3Error

Fit = Literal["scale", "pad"]
Axes = Literal["each", "fx"]

MAX_ASPECT = 200
"""Largest ratio of the sides that Qwen's image processors accept."""

LARGEST_VIEW = 160.0
"""Largest plausible field of view of an image without distortion, degrees.

The widest lenses without distortion see 122 degrees across (10 mm before 36 mm of film). Fisheye
lenses are rectified to more, but at 160 degrees 97 % of the area lie outside of the middle 90
degrees. A focal length of 1 px, in mm or in shares of the width means more than that.
"""

SMALLEST_VIEW = 0.25
"""Smallest plausible field of view, degrees, of the longer side: the longest zooms of cameras see
0.7 degrees across (3000 mm before 36 mm of film), long-range thermal cameras 0.4."""

MANY_TOKENS = 4096
"""Tokens per image beyond which a user is told: the authors' sample images take 600 to 1,200."""

_NOTICEABLE = 0.9
"""A focal length below this share of the wanted one is worth a word."""


class GeometryError(Vlm3Error, ValueError):
    """A camera or an image does not allow a metric answer."""


@dataclass(frozen=True)
class PinholeCamera:
    """A camera without distortion: image size and intrinsics in pixels.

    Raises:
        GeometryError: if the size or a focal length is not positive, or a value is not finite.
    """

    width: int
    height: int
    fx: float
    fy: float
    cx: float
    cy: float

    def __post_init__(self) -> None:
        if self.width < 1 or self.height < 1:
            raise GeometryError(f"the image size is {self.width}x{self.height}")
        if not all(map(math.isfinite, (self.fx, self.fy, self.cx, self.cy))):
            raise GeometryError("the intrinsics hold a value that is not finite")
        if self.fx <= 0 or self.fy <= 0:
            raise GeometryError(f"the focal lengths are {self.fx:g} and {self.fy:g} px")

    @classmethod
    def from_hfov(cls, width: int, height: int, hfov_deg: float) -> PinholeCamera:
        """Build a camera with square pixels and a central principal point.

        Raises:
            GeometryError: if no lens has this field of view; see `LARGEST_VIEW`.
        """
        if not SMALLEST_VIEW <= hfov_deg <= LARGEST_VIEW:
            raise GeometryError(
                f"no image has a horizontal field of view of {hfov_deg:g} degrees: it lies between "
                f"{SMALLEST_VIEW:g} and {LARGEST_VIEW:g}"
            )
        focal = width / 2 / math.tan(math.radians(hfov_deg) / 2)
        return cls(width, height, focal, focal, (width - 1) / 2, (height - 1) / 2)

    @property
    def field_of_view(self) -> tuple[float, float]:
        """Angles that the image would span if its centre lay on the axis, degrees: (x, y)."""
        x, y = (
            2 * math.degrees(math.atan(side / 2 / focal))
            for side, focal in ((self.width, self.fx), (self.height, self.fy))
        )
        return x, y

    @property
    def K(self) -> NDArray[np.float64]:
        """Intrinsic matrix, shape (3, 3), as in sensor_msgs/CameraInfo."""
        return np.array([[self.fx, 0, self.cx], [0, self.fy, self.cy], [0, 0, 1]])

    def project(self, points: ArrayLike) -> NDArray[np.float64]:
        """Project points in the optical frame.

        Args:
            points: shape (..., 3), metres.

        Returns:
            Pixels (u, v), shape (..., 2); NaN for points that do not lie in front of the camera.
        """
        points = np.asarray(points, dtype=float)
        z = np.where(points[..., 2] > 0, points[..., 2], np.nan)
        return points[..., :2] / z[..., None] * (self.fx, self.fy) + (self.cx, self.cy)

    def rays(self, pixels: ArrayLike) -> NDArray[np.float64]:
        """Return directions through pixels, shape (..., 3), scaled to Z = 1."""
        plane = (np.asarray(pixels, dtype=float) - (self.cx, self.cy)) / (self.fx, self.fy)
        return np.concatenate([plane, np.ones_like(plane[..., :1])], axis=-1)

    def unproject(self, pixels: ArrayLike, depth: ArrayLike) -> NDArray[np.float64]:
        """Return points in the optical frame, metres, shape (..., 3).

        Args:
            pixels: shape (..., 2).
            depth: shape (...), metres along Z.
        """
        return self.rays(pixels) * np.asarray(depth, dtype=float)[..., None]

    def pixel_grid(self) -> NDArray[np.float64]:
        """Return the centre of every pixel, shape (height, width, 2)."""
        return np.stack(np.meshgrid(np.arange(self.width), np.arange(self.height)), -1).astype(
            float
        )

    def resized(self, width: int, height: int) -> PinholeCamera:
        """Return the camera of the image at another size; the axes scale separately."""
        sx, sy = width / self.width, height / self.height
        return PinholeCamera(
            width,
            height,
            self.fx * sx,
            self.fy * sy,
            (self.cx + 0.5) * sx - 0.5,
            (self.cy + 0.5) * sy - 0.5,
        )


def check_field_of_view(camera: PinholeCamera) -> None:
    """Refuse focal lengths that no lens has, such as those of a camera that is not calibrated.

    Raises:
        GeometryError: naming the field of view; see `LARGEST_VIEW` and `SMALLEST_VIEW`.
    """
    widest = max(camera.field_of_view)
    if not SMALLEST_VIEW <= widest <= LARGEST_VIEW:
        raise GeometryError(
            view_fault(camera.width, camera.height, camera.fx, camera.fy, camera.field_of_view)
        )


def view_fault(
    width: int, height: int, fx: float, fy: float, field_of_view: tuple[float, float]
) -> str:
    """Say which field of view focal lengths mean that cannot be, and what to do."""
    across, down = field_of_view
    return (
        f"focal lengths of {fx:g} and {fy:g} px in images of {width}x{height} px mean a field of "
        f"view of {across:.4g}x{down:.4g} degrees, which no lens has (at 90 degrees across it is "
        f"{width / 2:g} px): give focal lengths in pixels, calibrate the camera, or give its field "
        "of view (fallback_intrinsics, --hfov)"
    )


@dataclass(frozen=True)
class ImageLimits:
    """Image sizes that a model's image processor accepts without resizing.

    Sides must be multiples of `multiple` px, the area must lie in [min_pixels, max_pixels].
    """

    multiple: int
    min_pixels: int
    max_pixels: int


@dataclass(frozen=True)
class UnifiedCamera:
    """How a source image enters the model: resized to the unified focal length (paper 3.1).

    The content of the source fills the upper left `content_width` x `content_height` pixels of
    the view; the rest is padding. `focal`: focal length that the checkpoint learned, px; None if
    it learned images of any focal length. `axes`: see `unify_focal`. `wanted_focal`: focal length
    at which the image would enter if the limits allowed it, px; None for any.
    """

    source: PinholeCamera
    view: PinholeCamera
    content_width: int
    content_height: int
    focal: float | None
    axes: Axes = "each"
    wanted_focal: float | None = None

    @property
    def effective_focal(self) -> float:
        """Focal length of the view in px: the geometric mean of its two axes, or fx alone."""
        if self.axes == "fx":
            return self.view.fx
        return math.sqrt(self.view.fx * self.view.fy)

    @property
    def learned_focal(self) -> float:
        """Focal length that the checkpoint learned, px.

        Raises:
            GeometryError: if it learned none, so that its answers have no metric scale.
        """
        if self.focal is None:
            raise GeometryError(
                "the image enters the model without a unified focal length, so its answers have "
                "no metric scale: choose a checkpoint whose profile has a focal length"
            )
        return self.focal

    def metric_depth(self, answer: ArrayLike) -> NDArray[np.float64]:
        """Convert the answers of a model that assumes the focal length `focal` to metres.

        An object at depth z seen with focal length f looks like one at z * focal / f seen with
        `focal`. Hence depth = answer * f / focal.

        Raises:
            GeometryError: if the checkpoint learned no focal length.
        """
        return np.asarray(answer, dtype=float) * (self.effective_focal / self.learned_focal)

    def to_view(self, pixels: ArrayLike) -> NDArray[np.float64]:
        """Convert pixels of the source to pixels of the view, shape (..., 2)."""
        return (np.asarray(pixels, dtype=float) + 0.5) * self._scale() - 0.5

    def to_source(self, pixels: ArrayLike) -> NDArray[np.float64]:
        """Convert pixels of the view to pixels of the source, shape (..., 2)."""
        return (np.asarray(pixels, dtype=float) + 0.5) / self._scale() - 0.5

    def _scale(self) -> NDArray[np.float64]:
        return np.array(
            [self.content_width / self.source.width, self.content_height / self.source.height]
        )


def unify_focal(
    camera: PinholeCamera,
    focal: float,
    limits: ImageLimits,
    fit: Fit,
    view_focal: float | None = None,
    axes: Axes = "each",
) -> UnifiedCamera:
    """Choose the size at which an image enters the model, so that its processor resizes nothing.

    Args:
        camera: the rectified source camera.
        focal: unified focal length of the checkpoint, px.
        limits: of the checkpoint's image processor.
        fit: how sides become multiples of `limits.multiple`. "scale" stretches each axis to the
            nearest multiple, as the stock processor does. "pad" keeps pixels square and pads at
            the right and at the bottom.
        view_focal: focal length at which the image enters instead, px. A smaller one needs fewer
            visual tokens and gives coarser answers. None for `focal`.
        axes: which axis gets the focal length. "each" scales the axes separately, so that pixels
            become square. "fx" scales both axes by the factor of fx, so that the image keeps its
            aspect; fy is ignored.

    Raises:
        GeometryError: if the focal length is not positive and finite, if no lens has those of the
            camera, if they make the image absurdly small or narrow, or if no size fits the limits.
    """
    entering = focal if view_focal is None else view_focal
    for length in (focal, entering):
        if not 0 < length < math.inf:
            raise GeometryError(f"the unified focal length is {length:g} px")
    check_field_of_view(camera)
    width, height = _entering_size(camera, entering, axes)
    shortest, longest = sorted((width, height))
    if shortest < 1 or longest > MAX_ASPECT * shortest:
        raise GeometryError(
            f"focal lengths of {camera.fx:g} and {camera.fy:g} px make an image of {camera.width}x"
            f"{camera.height} px {width:.4g}x{height:.4g} px at {entering:g} px: check the "
            "calibration"
        )
    unified = _fitted(camera, width, height, limits, fit, focal, axes)
    return replace(unified, wanted_focal=entering)


def _entering_size(camera: PinholeCamera, focal: float, axes: Axes) -> tuple[float, float]:
    """Return width and height in px of a camera's image at a focal length; see `unify_focal`."""
    fy = camera.fx if axes == "fx" else camera.fy
    return camera.width * focal / camera.fx, camera.height * focal / fy


def size_remark(unified: UnifiedCamera, limits: ImageLimits) -> str:
    """Say what is unusual about the size at which an image enters a model; empty if nothing."""
    view, remarks = unified.view, []
    wanted, effective = unified.wanted_focal, unified.effective_focal
    # Rounding to whole tokens alone changes the focal length of small images by more.
    if (
        wanted is not None
        and effective < _NOTICEABLE * wanted
        and _area_clamp(*_entering_size(unified.source, wanted, unified.axes), limits) < 1
    ):
        remarks.append(
            f"at a focal length of {effective:.0f} px instead of {wanted:.0f} px, because the "
            f"model takes {limits.max_pixels} px at most: answers are coarser"
        )
    tokens = image_tokens(unified, limits)
    if tokens > MANY_TOKENS:
        remarks.append(
            f"with {tokens} tokens, so answers are slow: lower unified_focal, or crop the image"
        )
    if not remarks:
        return ""
    x, y = unified.source.field_of_view
    return (
        f"an image of {x:.0f}x{y:.0f} degrees enters the model as {view.width}x{view.height} px, "
        + " and ".join(remarks)
    )


def image_tokens(unified: UnifiedCamera, limits: ImageLimits) -> int:
    """Count the visual tokens of an image."""
    return unified.view.width * unified.view.height // limits.multiple**2


def limit_longest_side(
    camera: PinholeCamera, longest_side: int, limits: ImageLimits, fit: Fit
) -> UnifiedCamera:
    """Choose the size at which an image enters a model that learned no unified focal length.

    Args:
        camera: the rectified source camera.
        longest_side: of the image when it enters, px; the image keeps its aspect.
        limits: of the checkpoint's image processor.
        fit: see `unify_focal`.

    Raises:
        GeometryError: if the image is too narrow, or no size fits the limits.
    """
    scale = longest_side / max(camera.width, camera.height)
    width, height = camera.width * scale, camera.height * scale
    if min(width, height) * MAX_ASPECT < longest_side:
        raise GeometryError(f"an image of {camera.width}x{camera.height} px is too narrow")
    return _fitted(camera, width, height, limits, fit, None, "each")


def _fitted(
    camera: PinholeCamera,
    width: float,
    height: float,
    limits: ImageLimits,
    fit: Fit,
    focal: float | None,
    axes: Axes,
) -> UnifiedCamera:
    """Choose a size that the limits allow, near the wanted `width` and `height` in px."""
    clamp = _area_clamp(width, height, limits)
    width, height = width * clamp, height * clamp
    if fit == "scale":
        columns, rows = (max(1, round(side / limits.multiple)) for side in (width, height))
    else:
        width, height = max(1, round(width)), max(1, round(height))
        columns, rows = (math.ceil(side / limits.multiple) for side in (width, height))
    columns, rows = _within_area(columns, rows, width / height, limits)
    view_width, view_height = columns * limits.multiple, rows * limits.multiple
    if fit == "scale":
        content_width, content_height = view_width, view_height
    else:
        # At the upper limit of the area the padded sides may be too short for the content.
        shrink = min(1.0, view_width / width, view_height / height)
        content_width = max(1, round(width * shrink))
        content_height = max(1, round(height * shrink))
    content = camera.resized(content_width, content_height)
    view = PinholeCamera(view_width, view_height, content.fx, content.fy, content.cx, content.cy)
    return UnifiedCamera(camera, view, content_width, content_height, focal, axes)


def _area_clamp(width: float, height: float, limits: ImageLimits) -> float:
    """Return the factor on both sides that brings an area into the limits."""
    area = width * height
    if area > limits.max_pixels:
        return math.sqrt(limits.max_pixels / area)
    if area < limits.min_pixels:
        return math.sqrt(limits.min_pixels / area)
    return 1.0


def _within_area(columns: int, rows: int, aspect: float, limits: ImageLimits) -> tuple[int, int]:
    """Change sides, counted in multiples, step by step until the area fits the limits.

    Each step changes the side that brings the shape closer to `aspect`, width by height.
    """
    cell = limits.multiple**2
    while columns * rows * cell > limits.max_pixels and columns * rows > 1:
        if rows == 1 or (columns > 1 and columns >= aspect * rows):
            columns -= 1
        else:
            rows -= 1
    while columns * rows * cell < limits.min_pixels:
        if columns <= aspect * rows:
            columns += 1
        else:
            rows += 1
    if columns * rows * cell > limits.max_pixels:
        raise GeometryError(f"no image of an aspect of {aspect:.3g} fits {limits}")
    return columns, rows
