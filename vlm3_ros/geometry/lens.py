# SPDX-License-Identifier: Apache-2.0
"""Real lenses: the calibration of a sensor_msgs/CameraInfo, and rectification.

Raw pixels are those of the camera's images, rectified pixels those of the ideal pinhole camera
`LensCamera.rectified`. Binning and regions of interest follow REP-104 and image_geometry.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal, cast

import cv2
import numpy as np
import yaml
from numpy.typing import ArrayLike, NDArray

from vlm3_ros.geometry.camera import (
    LARGEST_VIEW,
    SMALLEST_VIEW,
    GeometryError,
    PinholeCamera,
    view_fault,
)

DistortionModel = Literal["none", "plumb_bob", "rational_polynomial", "equidistant"]

_POLYNOMIAL = (0, 4, 5, 8, 12, 14)
"""Numbers of coefficients that OpenCV takes for plumb_bob and rational_polynomial alike."""

_COEFFICIENTS: dict[DistortionModel, tuple[int, ...]] = {
    "none": (0,),
    "plumb_bob": _POLYNOMIAL,
    "rational_polynomial": _POLYNOMIAL,
    "equidistant": (4,),
}
_OTHER_NAMES: dict[str, DistortionModel] = {
    "radtan": "plumb_bob",
    "fisheye": "equidistant",
    "pinhole": "none",
}
"""Names of Kalibr, camera_calibration's older files and of simulators, and those of ROS."""
# OpenCV, and so all of ROS, ignores skew. Up to this share of fx it costs at most a few pixels.
_MAX_SKEW = 0.01
# In px; values beyond are garbage, and products of them overflow.
_LARGEST_INTRINSIC = 1e7
_LARGEST_FISHEYE = 360.0
"""Largest plausible angle of a fisheye lens along the shorter side, degrees: the widest lenses see
280. The longer side of a sensor may be black beyond the image circle."""
_CENTRED = (0.4, 0.6)
"""Where the centre lies in an image that a calibration without a size is for, in shares of its
sides: if the calibration was for 5/4 of the image's size or more, it lies outside."""
# cv2.remap interpolates in steps of 1/32 px: half a step outside the image counts as inside.
_EDGE = 1 / 64
# OpenCV inverts distortion by iteration. A result must map back within this many px.
_INVERSE_TOLERANCE = 0.1
_NO_MOTION = np.zeros(3)


class UncalibratedError(GeometryError):
    """A calibration that says nothing: K is zero, or its focal lengths are impossible."""


@dataclass(frozen=True, eq=False)
class LensCamera:
    """A calibrated camera, already adjusted for binning and region of interest.

    Build it with `lens_from_calibration` or `load_camera_yaml`, which check the values. Equal
    cameras share their rectification maps.

    Attributes:
        width, height: size of the raw image, px.
        K: intrinsic matrix of the raw image, shape (3, 3), without skew.
        distortion_model: as in sensor_msgs/distortion_models; "none" without distortion.
        D: distortion coefficients, shape (n,), in the order of OpenCV.
        R: rotates raw camera axes to rectified ones, shape (3, 3).
        P: projection of the rectified image, shape (3, 4). Its fourth column (a stereo pair's
            baseline) is kept but not used: points are in this camera's own optical frame.
        assumptions: what the calibration leaves open and how it was understood, for the user.
    """

    width: int
    height: int
    K: NDArray[np.float64]
    distortion_model: DistortionModel
    D: NDArray[np.float64]
    R: NDArray[np.float64]
    P: NDArray[np.float64]
    assumptions: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for name in ("K", "D", "R", "P"):
            values = np.array(getattr(self, name), dtype=float)
            values.setflags(write=False)
            object.__setattr__(self, name, values)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, LensCamera) and self._key() == other._key()

    def __hash__(self) -> int:
        return hash(self._key())

    def _key(self) -> tuple[object, ...]:
        matrices = (values.tobytes() for values in (self.K, self.D, self.R, self.P))
        return (self.width, self.height, self.distortion_model, *matrices)

    @property
    def rectified(self) -> PinholeCamera:
        """Camera of the rectified image, from P."""
        (fx, _, cx, _), (_, fy, cy, _), _ = self.P.tolist()
        return PinholeCamera(self.width, self.height, fx, fy, cx, cy)

    @property
    def stereo_shift(self) -> tuple[float, float]:
        """Metres that P adds to X and Y of points: (-baseline, 0) for a right stereo camera."""
        return float(self.P[0, 3] / self.P[0, 0]), float(self.P[1, 3] / self.P[1, 1])

    @property
    def is_pinhole(self) -> bool:
        """Whether the raw and the rectified image are the same."""
        straight = self.distortion_model != "equidistant" and not self.D.any()
        unrotated = np.array_equal(self.R, np.eye(3))
        return straight and unrotated and np.array_equal(self.rectified.K, self.K)

    def rectify(self, image: NDArray[Any]) -> NDArray[Any]:
        """Rectify an image; pixels are black if `rectified_mask` is False.

        Args:
            image: raw image, shape (height, width) or (height, width, channels).

        Returns:
            An image of the same shape and dtype; the same object if `is_pinhole`.

        Raises:
            GeometryError: if the image has another size.
        """
        if image.shape[:2] != (self.height, self.width):
            raise GeometryError(
                f"the image is {_shape_text(image.shape)} px, "
                f"its calibration {self.width}x{self.height} px"
            )
        if self.is_pinhole:
            return image
        table, fractions, _ = _rectification(self)
        return cv2.remap(image, table, fractions, cv2.INTER_LINEAR)

    def rectified_mask(self) -> NDArray[np.bool_]:
        """Return the mask of valid rectified pixels, shape (height, width), read-only.

        False if the lens does not image the pixel's ray, or images it outside of the raw image.
        """
        return _rectification(self)[2]

    def rectify_pixels(self, pixels: ArrayLike) -> NDArray[np.float64]:
        """Convert raw pixels to rectified ones, shape (..., 2); NaN if there is none."""
        raw = np.asarray(pixels, dtype=float)
        if raw.size == 0:
            return raw.copy()
        rectified = _undistort(self, raw.reshape(-1, 1, 2)).reshape(raw.shape)
        error = np.linalg.norm(self.distort_pixels(rectified) - raw, axis=-1, keepdims=True)
        return np.where(error < _INVERSE_TOLERANCE, rectified, np.nan)

    def distort_pixels(self, pixels: ArrayLike) -> NDArray[np.float64]:
        """Convert rectified pixels to raw ones, shape (..., 2).

        NaN if the lens does not image the ray. The result may lie outside of the raw image.
        """
        rectified = np.asarray(pixels, dtype=float)
        rays = (self.rectified.rays(rectified) @ self.R).reshape(-1, 3)
        raw = np.full((len(rays), 2), np.nan)
        imaged = _images_rays(self, rays)
        if imaged.any():
            raw[imaged] = _project(self, rays[imaged])
        return raw.reshape(rectified.shape)


def lens_from_calibration(
    width: int,
    height: int,
    K: ArrayLike,
    D: ArrayLike,
    model: str,
    R: ArrayLike,
    P: ArrayLike,
    binning: tuple[int, int] = (1, 1),
    roi: tuple[int, int, int, int] | None = None,
    image_size: tuple[int, int] | None = None,
    is_rectified: bool = False,
) -> LensCamera:
    """Check a calibration as in sensor_msgs/CameraInfo and adjust it to its images.

    The region's offset shifts K and P, then the binning shrinks them: (c - offset) / binning, as in
    image_geometry.

    Args:
        width: size at which the camera was calibrated, px. If width and height are 0, they are
            those of the image, provided that the centre of the camera is near its middle.
        height: size at which the camera was calibrated, px.
        K: 9 values, row by row.
        D: coefficients, as OpenCV takes them: 4, 5, 8, 12 or 14 for the polynomial models, 4 for
            "equidistant", and further zeros. Empty means no distortion, except for "equidistant".
        model: "plumb_bob", "rational_polynomial", "equidistant"; "none" without distortion; "" if
            unknown, which means the polynomial if D has more than the 4 values of either model.
            Also "radtan" (Kalibr), "fisheye" (OpenCV, camera_calibration of Melodic) and "pinhole".
        R: 9 values, row by row; all zero means no rotation.
        P: 12 values, row by row; all zero means K.
        binning: (x, y); 0 means 1.
        roi: (x_offset, y_offset, width, height) in px of the calibration; all zero means all.
        image_size: expected (width, height) of the images; None: unknown.
        is_rectified: whether the images are rectified, so that P alone describes them. D, its
            model, R and K are not looked at then, and the lens is a pinhole camera.

    Raises:
        UncalibratedError: if K (of rectified images P) is zero, or its focal lengths impossible.
        GeometryError: saying what is wrong and what to do.
    """
    if is_rectified:
        K, D, model, R, P = _of_rectified(K, D, R, P)
    name = "P" if is_rectified else "K"
    intrinsics = _matrix(name, K, (3, 3))
    if intrinsics[0, 0] == 0:
        state = "K[0] = 0" if intrinsics.any() else "K is all zero"
        raise UncalibratedError(
            f"the camera is uncalibrated ({state}): calibrate it, or give its field "
            "of view (fallback_intrinsics, --hfov)"
        )
    model, assumptions = _model_of_ros(model)
    if width == height == 0 and image_size is not None:
        width, height = image_size
        assumptions.append(_check_centred(intrinsics, width, height, binning, roi))
    if not (1 <= width <= _LARGEST_INTRINSIC and 1 <= height <= _LARGEST_INTRINSIC):
        raise GeometryError(f"the calibrated image size is {width}x{height}: calibrate the camera")
    _check_intrinsics(
        name, intrinsics, width, height, model == "equidistant", impossible=UncalibratedError
    )
    distortion_model, coefficients, assumption = _checked_distortion(model, D)
    assumptions += assumption
    rotation = _matrix("R", R, (3, 3))
    if not rotation.any():
        rotation = np.eye(3)
    if not np.allclose(rotation @ rotation.T, np.eye(3), atol=1e-3) or np.linalg.det(rotation) < 0:
        raise GeometryError("R is not a rotation: calibrate the camera, or set R to the identity")
    projection = _matrix("P", P, (3, 4))
    if not projection.any():
        projection[:, :3] = intrinsics
    if projection[2, 3] != 0:
        raise GeometryError("P moves the camera along Z (P[11] is not 0): calibrate the camera")
    _check_intrinsics("P", projection[:, :3], width, height)

    x, y, region_width, region_height = _checked_region(roi, width, height)
    binning_x, binning_y = (max(1, factor) for factor in binning)
    size = (region_width // binning_x, region_height // binning_y)
    if 0 in size or (image_size is not None and tuple(image_size) != size):
        arriving = "" if image_size is None else f", but the images are {_size_text(image_size)} px"
        raise GeometryError(
            f"the calibration stands for images of {_size_text(size)} px (calibrated at "
            f"{width}x{height}, region {region_width}x{region_height} at ({x}, {y}), binning "
            f"{binning_x}x{binning_y}){arriving}: correct the calibration's size, "
            "region or binning"
        )
    for matrix in (intrinsics, projection):
        matrix[0, 1] = 0
        matrix[:2, 2] -= (x, y)
        matrix[:2] /= [[binning_x], [binning_y]]
    lens = LensCamera(
        *size,
        intrinsics,
        distortion_model,
        coefficients,
        rotation,
        projection,
        tuple(assumptions),
    )
    if not _overlaps(lens):
        raise GeometryError(
            "no pixel of the rectified image lies in the raw image: K, D, R and P do not belong "
            "together; calibrate the camera"
        )
    return lens


def load_camera_yaml(path: str | Path, is_rectified: bool = False) -> LensCamera:
    """Read a calibration file of ROS (camera_calibration, camera_info_manager).

    A file without distortion model means "plumb_bob", as in camera_calibration_parsers; missing
    rectification and projection matrices mean a monocular camera.

    Args:
        path: of the file.
        is_rectified: see `lens_from_calibration`.

    Raises:
        GeometryError: naming the file, if it cannot be read or its values are wrong.
    """
    try:
        content = yaml.safe_load(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise GeometryError(f"{path}: {error.strerror}") from error
    except Exception as error:  # yaml raises anything, as for impossible dates or deep nesting
        raise GeometryError(f"{path} is no YAML file: {error}") from error
    try:
        return _lens_from_yaml(content, is_rectified)
    except GeometryError as error:
        raise GeometryError(f"{path}: {error}") from error


def _lens_from_yaml(content: object, is_rectified: bool) -> LensCamera:
    required = ("image_width", "image_height", "camera_matrix", "distortion_coefficients")
    missing = [key for key in required if not isinstance(content, Mapping) or key not in content]
    if missing or not isinstance(content, Mapping):
        raise GeometryError(f"not a camera calibration of ROS: it has no {', '.join(missing)}")
    width, height = content["image_width"], content["image_height"]
    if not isinstance(width, int) or not isinstance(height, int):
        raise GeometryError("image_width and image_height must be integers")
    return lens_from_calibration(
        width,
        height,
        K=_yaml_matrix(content, "camera_matrix"),
        D=_yaml_matrix(content, "distortion_coefficients"),
        # camera_calibration of ROS Melodic wrote the model under the other name.
        model=str(content.get("distortion_model", content.get("camera_model", "plumb_bob"))),
        R=_yaml_matrix(content, "rectification_matrix", default=np.eye(3)),
        P=_yaml_matrix(content, "projection_matrix", default=np.zeros((3, 4))),
        is_rectified=is_rectified,
    )


def _yaml_matrix(
    content: Mapping[str, Any], key: str, default: NDArray[np.float64] | None = None
) -> ArrayLike:
    if default is not None and key not in content:
        return default
    matrix = content[key]
    if not isinstance(matrix, Mapping) or "data" not in matrix:
        raise GeometryError(f"{key} must have rows, cols and data")
    return cast(ArrayLike, matrix["data"])


def _numbers(name: str, values: ArrayLike) -> NDArray[np.float64]:
    try:
        numbers = np.array(values, dtype=float).reshape(-1)
    except (TypeError, ValueError) as error:
        raise GeometryError(f"{name} must hold numbers: {error}") from error
    if not np.isfinite(numbers).all():
        raise GeometryError(f"{name} holds a value that is not finite: calibrate the camera")
    return numbers


def _matrix(name: str, values: ArrayLike, shape: tuple[int, int]) -> NDArray[np.float64]:
    numbers = _numbers(name, values)
    if numbers.size != shape[0] * shape[1]:
        raise GeometryError(f"{name} must hold {shape[0] * shape[1]} values, not {numbers.size}")
    return numbers.reshape(shape)


def _of_rectified(
    K: ArrayLike, D: ArrayLike, R: ArrayLike, P: ArrayLike
) -> tuple[ArrayLike, ArrayLike, str, ArrayLike, ArrayLike]:
    """K, D, model, R and P of images that are rectified already."""
    projection = _matrix("P", P, (3, 4))
    if projection.any():
        return projection[:, :3], [], "none", np.zeros(9), projection
    rotation = _numbers("R", R)
    if _numbers("D", D).any() or (rotation.any() and not np.allclose(rotation, np.eye(3).ravel())):
        raise GeometryError(
            "P is all zero, so the camera of the rectified images is unknown: K, D and R describe "
            "the raw ones. Fill P, or use the raw images"
        )
    return K, [], "none", np.zeros(9), projection


def _check_centred(
    intrinsics: NDArray[np.float64],
    width: int,
    height: int,
    binning: tuple[int, int],
    roi: tuple[int, int, int, int] | None,
) -> str:
    """Check that a calibration without a size can be that of an image; return the assumption."""
    shares = intrinsics[:2, 2] / (width, height)
    is_central = bool(((shares >= _CENTRED[0]) & (shares <= _CENTRED[1])).all())
    if not is_central or max(binning) > 1 or any(roi or ()):
        cx, cy = intrinsics[:2, 2]
        raise GeometryError(
            f"the calibrated image size is 0x0, and the centre ({cx:g}, {cy:g}) is not near the "
            f"middle of the images of {width}x{height} px: set the calibration's width and height"
        )
    return f"the calibration has no image size: it is taken for the images' {width}x{height} px"


def _check_intrinsics(
    name: str,
    matrix: NDArray[np.float64],
    width: int,
    height: int,
    is_fisheye: bool = False,
    impossible: type[GeometryError] = GeometryError,
) -> None:
    """Check a camera matrix; `impossible`: error for focal lengths that no lens has."""
    (fx, skew, cx), (lower, fy, cy), bottom = matrix
    if min(fx, fy) <= 0 or np.abs(matrix).max() > _LARGEST_INTRINSIC:
        raise GeometryError(
            f"{name} has focal lengths {fx:g} and {fy:g} px and the centre ({cx:g}, {cy:g}): "
            "calibrate the camera"
        )
    if lower != 0 or not np.array_equal(bottom, (0, 0, 1)) or abs(skew) > _MAX_SKEW * fx:
        raise GeometryError(
            f"{name} is not [fx 0 cx; 0 fy cy; 0 0 1], row by row: correct the calibration"
        )
    if is_fisheye:
        across, down = np.degrees([width / fx, height / fy])
        is_possible = min(across, down) <= _LARGEST_FISHEYE and max(across, down) >= SMALLEST_VIEW
    else:
        across, down = PinholeCamera(width, height, fx, fy, cx, cy).field_of_view
        is_possible = SMALLEST_VIEW <= max(across, down) <= LARGEST_VIEW
    if not is_possible:
        raise impossible(f"{name}: {view_fault(width, height, fx, fy, (across, down))}")
    # Images shifted or cropped by more than their own size are none that a camera sends.
    if not (-width <= cx <= 2 * width and -height <= cy <= 2 * height):
        raise GeometryError(
            f"{name} has its centre at ({cx:g}, {cy:g}), far outside of the image of "
            f"{width}x{height} px: give it in pixels of this image, or calibrate the camera"
        )


def _model_of_ros(name: str) -> tuple[str, list[str]]:
    """The distortion model as ROS names it, and the assumption if that is another model."""
    spelled = re.sub(r"[\s-]+", "_", name.strip().lower())
    model = _OTHER_NAMES.get(spelled, spelled)
    if model == spelled:
        return (model if model in _COEFFICIENTS else name), []
    if model == "none":
        return model, []
    return model, [f"the distortion model {name!r} is taken for {model!r}"]


def _checked_distortion(
    model: str, D: ArrayLike
) -> tuple[DistortionModel, NDArray[np.float64], list[str]]:
    """Model, coefficients and assumptions."""
    coefficients = _numbers("D", D)
    used = len(np.trim_zeros(coefficients, "b"))
    if model in ("", "none") and not used:
        return "none", np.zeros(0), []
    if model == "":
        if used <= 4:
            raise GeometryError(
                f"D holds {used} coefficients, but the distortion model is '': name it, such as "
                "'plumb_bob' or 'equidistant'"
            )
        assumed = "plumb_bob" if used <= 5 else "rational_polynomial"
        checked = _checked_distortion(assumed, coefficients)
        return *checked[:2], [f"the distortion model is empty: it is taken for '{assumed}'"]
    if model not in _COEFFICIENTS:
        known = ", ".join(repr(name) for name in _COEFFICIENTS)
        raise GeometryError(
            f"the distortion model {model!r} is unknown: use one of {known}, or rectify the images "
            "before they arrive"
        )
    if model == "none":
        raise GeometryError(
            "D holds coefficients, but the distortion model is one without distortion ('none', "
            "'pinhole'): name the model"
        )
    if model != "equidistant" and coefficients.size == 0:
        return "none", coefficients, []
    # Zeros at the end mean nothing.
    counts = [n for n in _COEFFICIENTS[model] if used <= n <= coefficients.size]
    if not counts:
        *others, last = map(str, filter(None, _COEFFICIENTS[model]))
        allowed = f"{', '.join(others)} or {last}" if others else last
        raise GeometryError(
            f"{model!r} takes {allowed} coefficients, D holds {coefficients.size}: correct D or "
            "the distortion model"
        )
    return model, coefficients[: counts[-1]], []


def _checked_region(
    roi: tuple[int, int, int, int] | None, width: int, height: int
) -> tuple[int, int, int, int]:
    if roi is None or not any(roi):
        return 0, 0, width, height
    x, y, region_width, region_height = roi
    fits = 0 <= x < x + region_width <= width and 0 <= y < y + region_height <= height
    if not fits:
        raise GeometryError(
            f"the region of interest ({region_width}x{region_height} at ({x}, {y})) does not lie "
            f"in the calibrated image of {width}x{height} px: correct roi, or set it to zero"
        )
    return x, y, region_width, region_height


def _size_text(size: tuple[int, ...]) -> str:
    return "x".join(map(str, size))


def _shape_text(shape: tuple[int, ...]) -> str:
    return _size_text(shape[1::-1])


def _overlaps(lens: LensCamera) -> bool:
    """Whether the rectified image shows any part of the raw one, tested on a coarse grid."""
    columns = np.linspace(0, lens.width - 1, 32)
    rows = np.linspace(0, lens.height - 1, 32)
    raw = lens.distort_pixels(np.stack(np.meshgrid(columns, rows), -1))
    return bool(_inside(raw, lens).any())


def _inside(raw: NDArray[Any], lens: LensCamera) -> NDArray[np.bool_]:
    u, v = raw[..., 0], raw[..., 1]
    columns = (u >= -_EDGE) & (u <= lens.width - 1 + _EDGE)
    return columns & (v >= -_EDGE) & (v <= lens.height - 1 + _EDGE)


@lru_cache(maxsize=4)
def _rectification(
    lens: LensCamera,
) -> tuple[NDArray[np.int16], NDArray[np.uint16], NDArray[np.bool_]]:
    """Compute tables for cv2.remap, shapes (H, W, 2) and (H, W), and the mask, shape (H, W)."""
    camera = lens.rectified
    size = (lens.width, lens.height)
    init = (
        cv2.fisheye.initUndistortRectifyMap
        if lens.distortion_model == "equidistant"
        else cv2.initUndistortRectifyMap
    )
    raw_u, raw_v = init(lens.K, lens.D, lens.R, camera.K, size, cv2.CV_32FC1)
    mask = _inside(np.dstack([raw_u, raw_v]), lens)
    mask &= _images_rays(lens, camera.rays(camera.pixel_grid()) @ lens.R)
    mask.setflags(write=False)
    # Rays that the lens does not image must be black, not the polynomial's mirror image.
    raw_u[~mask] = raw_v[~mask] = -2
    table, fractions = cv2.convertMaps(raw_u, raw_v, cv2.CV_16SC2)
    return cast("NDArray[np.int16]", table), cast("NDArray[np.uint16]", fractions), mask


def _images_rays(lens: LensCamera, rays: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Whether the lens images rays in raw camera axes, shape (..., 3) -> (...).

    It images neither rays from behind nor those beyond the angle at which the distortion
    polynomial turns back, which would map them, mirrored, into the image.
    """
    ahead = rays[..., 2] > 0
    z = np.where(ahead, rays[..., 2], np.nan)
    return ahead & (np.hypot(rays[..., 0], rays[..., 1]) / z < _largest_radius(lens))


@lru_cache(maxsize=64)
def _largest_radius(lens: LensCamera) -> float:
    """Distance from the axis, at Z = 1, up to which the radial distortion is monotonic."""
    radial = lens.D.copy()
    if lens.distortion_model != "equidistant":
        # k1 k2 p1 p2 k3 k4 k5 k6 s1 ...: only the k are radial.
        radial[2:4] = 0
        radial[8:] = 0
    profile = replace(lens, K=np.eye(3), D=radial)
    radii = np.tan(np.radians(np.linspace(0, 89.9, 4000)))
    rays = np.stack([radii, np.zeros_like(radii), np.ones_like(radii)], axis=-1)
    distorted = _project(profile, rays)[:, 0]
    grows = distorted[1:] > distorted[:-1]
    return float("inf") if grows.all() else float(radii[np.argmin(grows)])


def _project(lens: LensCamera, rays: NDArray[np.float64]) -> NDArray[np.float64]:
    """Project rays in raw camera axes, shape (N, 3), to raw pixels, shape (N, 2)."""
    if lens.distortion_model == "equidistant":
        pixels, _ = cv2.fisheye.projectPoints(rays[None], _NO_MOTION, _NO_MOTION, lens.K, lens.D)
    else:
        pixels, _ = cv2.projectPoints(rays, _NO_MOTION, _NO_MOTION, lens.K, lens.D)
    return pixels.reshape(-1, 2).astype(float, copy=False)


def _undistort(lens: LensCamera, raw: NDArray[np.float64]) -> NDArray[np.float64]:
    """Convert raw pixels to rectified ones, shape (N, 1, 2), by OpenCV's iteration."""
    new_K = lens.rectified.K
    criteria = (cv2.TERM_CRITERIA_COUNT | cv2.TERM_CRITERIA_EPS, 100, 1e-10)
    if lens.distortion_model == "equidistant":
        pixels = cv2.fisheye.undistortPoints(raw, lens.K, lens.D, R=lens.R, P=new_K)
    else:
        # OpenCV 5 has one function where OpenCV 4 has two.
        undistort = getattr(cv2, "undistortPointsIter", cv2.undistortPoints)
        pixels = undistort(raw, lens.K, lens.D, R=lens.R, P=new_K, criteria=criteria)
    return pixels.astype(float, copy=False)
