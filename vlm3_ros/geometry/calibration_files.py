# SPDX-License-Identifier: Apache-2.0
"""Calibrations that users have as files: of ROS, OpenCV and Kalibr; or a field of view."""

from __future__ import annotations

import codecs
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import yaml
from numpy.typing import ArrayLike

from vlm3_ros.geometry.camera import GeometryError, PinholeCamera
from vlm3_ros.geometry.lens import LensCamera, lens_from_calibration, load_camera_yaml

READ = (
    "camera_calibration's YAML or ost.txt, the output of `ros2 topic echo --once` of a CameraInfo, "
    "OpenCV's FileStorage (YAML, XML) or a camchain of Kalibr"
)
"""Kinds of files that are read, for help and errors."""

_LARGEST_FILE = 10_000_000
"""Bytes beyond which a file is no calibration."""

_Builder = Callable[..., LensCamera]

_IDENTITY, _NO_PROJECTION = np.eye(3), np.zeros((3, 4))

_KALIBR_MODELS = {"radtan": "plumb_bob", "equidistant": "equidistant", "none": "none"}

_OPENCV_NAMES = {
    "K": ("camera_matrix", "cameraMatrix", "Camera_Matrix", "CameraMatrix", "K", "mtx"),
    "D": (
        "distortion_coefficients",
        "distCoeffs",
        "dist_coeffs",
        "distortionCoefficients",
        "Distortion_Coefficients",
        "DistortionCoefficients",
        "D",
        "dist",
    ),
    "width": ("image_width", "image_Width", "imageWidth", "width", "Width"),
    "height": ("image_height", "image_Height", "imageHeight", "height", "Height"),
}


@dataclass(frozen=True)
class GivenCamera:
    """A camera as the user describes it: by a calibration file or by a field of view.

    `file`: see `load_calibration`. `hfov`: horizontal field of view in degrees of images without
    distortion.
    """

    file: str | None = None
    hfov: float | None = None

    def __str__(self) -> str:
        return f"--hfov {self.hfov:g}" if self.file is None else self.file

    def lens(self, width: int, height: int, is_rectified: bool = False) -> LensCamera:
        """Return the camera of images of this size; `is_rectified`: see `lens_from_calibration`.

        Raises:
            GeometryError: if the file cannot be read or is for images of another size, or the field
                of view is impossible.
        """
        if self.file is None:
            assert self.hfov is not None
            try:
                camera = PinholeCamera.from_hfov(width, height, self.hfov)
            except GeometryError as error:
                raise GeometryError(f"--hfov: {error}") from error
            return lens_from_calibration(
                width, height, camera.K, [], "none", _IDENTITY, _NO_PROJECTION
            )
        lens = load_calibration(self.file, is_rectified)
        if (lens.width, lens.height) != (width, height):
            raise GeometryError(
                f"{self.file}: calibrates images of {lens.width}x{lens.height}, but the image is "
                f"{width}x{height}"
            )
        return lens


def load_calibration(path: str | Path, is_rectified: bool = False) -> LensCamera:
    """Read the calibration of a camera from one of the files that `READ` names.

    Args:
        path: of the file. A camchain of Kalibr with several cameras needs the name of one:
            `camchain.yaml:cam1`.
        is_rectified: see `lens_from_calibration`.

    Raises:
        GeometryError: in one line, naming the file and its kind, if it cannot be read.
    """
    file, chosen = split_camera(str(path))
    text = _text(Path(file))
    try:
        return _lens(file, text, chosen, is_rectified)
    except GeometryError as error:
        prefix = "" if str(error).startswith(f"{file}:") else f"{file}: "
        raise GeometryError(f"{prefix}{_one_line(error)}") from error


def split_camera(path: str) -> tuple[str, str]:
    """Split the name of a calibration file from that of one of its cameras; empty if none."""
    file, _, chosen = path.rpartition(":")
    if not chosen.startswith("cam") or Path(path).exists():
        return path, ""
    return file, chosen


def _lens(file: str, text: str, chosen: str, is_rectified: bool) -> LensCamera:
    build = partial(lens_from_calibration, is_rectified=is_rectified)
    if re.search(r"^\[image\]", text, re.MULTILINE):
        return _of_kind("an ost.txt of camera_calibration", lambda: _from_ost(text, build))
    if not text.strip("\n -"):
        raise GeometryError("the file is empty")
    # OpenVINS writes camchains with OpenCV's directive.
    is_chain = re.search(r"^cam\d+:", text, re.MULTILINE) is not None
    # OpenCV 4 writes a directive that is no YAML, OpenCV 5 one of YAML.
    is_storage = re.match(r"%YAML:", text) is not None or "<opencv_storage" in text
    if (is_storage and not is_chain) or "!!opencv-matrix" in text:
        return _of_kind("a FileStorage of OpenCV", lambda: _from_opencv(text, build))
    documents = _documents(re.sub(r"\A%YAML:.*\n", "", text))
    keys = {str(key) for document in documents for key in document}
    if any(re.fullmatch(r"cam\d+", key) for key in keys):
        return _of_kind("a camchain of Kalibr", lambda: _from_kalibr(documents[0], chosen, build))
    if keys & {"k", "K"} and keys & {"header", "distortion_model", "binning_x", "roi"}:
        infos = [document for document in documents if {"k", "K"} & set(document)]
        kind = "a CameraInfo as ros2 topic echo prints it"
        return _of_kind(kind, lambda: _from_echoes(infos, build))
    if "camera_matrix" in keys and "image_width" in keys:
        return load_camera_yaml(file, is_rectified)
    raise GeometryError(f"{_guessed_kind(text, keys)} is not read; read are {READ}")


def _of_kind(kind: str, read: Callable[[], LensCamera]) -> LensCamera:
    """Call a reader; name the kind of the file if it fails."""
    try:
        return read()
    except GeometryError as error:
        raise GeometryError(f"{kind}: {error}") from error
    except KeyError as error:
        raise GeometryError(f"{kind}, but it has no {error.args[0]}") from error
    except (TypeError, ValueError, AttributeError, IndexError) as error:
        raise GeometryError(f"{kind}, but incomplete or damaged ({_one_line(error)})") from error


def _text(path: Path) -> str:
    try:
        if path.stat().st_size > _LARGEST_FILE:
            raise GeometryError(f"{path}: too large for a calibration; read are {READ}")
        content = path.read_bytes()
    except OSError as error:
        raise GeometryError(f"{path}: {error.strerror}") from error
    # PowerShell writes redirected output as UTF-16.
    is_wide = content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
    try:
        return content.decode("utf-16" if is_wide else "utf-8-sig").replace("\r\n", "\n")
    except UnicodeDecodeError:
        kind = "a binary file (MATLAB, NumPy and others)"
        raise GeometryError(f"{path}: {kind} is not read; read are {READ}") from None


def _documents(text: str) -> list[Mapping[Any, Any]]:
    """The mappings in a text of YAML documents, also of those before a broken one."""
    found: list[Mapping[Any, Any]] = []
    try:
        found.extend(d for d in yaml.safe_load_all(text) if isinstance(d, Mapping))
    except Exception:  # yaml raises anything, as for impossible dates or deep nesting
        # Warnings of `ros2 topic echo` before or after the message.
        for part in re.split(r"^---\s*$", text, flags=re.MULTILINE):
            try:
                document = yaml.safe_load(part[part.find("header:") :] if "header:" in part else "")
            except Exception:  # as above
                continue
            if isinstance(document, Mapping):
                found.append(document)
    return found


def _guessed_kind(text: str, keys: set[str]) -> str:
    if any(key.startswith("Camera.") or key.startswith("Camera1.") for key in keys):
        return "a settings file of ORB-SLAM"
    if text.lstrip().startswith("<"):
        return "this kind of XML"
    if keys:
        return f"a file with {', '.join(sorted(keys)[:4])}"
    return "this text"


def _from_ost(text: str, build: _Builder) -> LensCamera:
    """INI of camera_calibration and camera_calibration_parsers: names, then lines of numbers."""
    values: dict[str, list[float]] = {}
    name = ""
    for line in text.split("[externals]")[-1].splitlines():
        words = line.split("#")[0].split()
        try:
            numbers = [float(word) for word in words]
        except ValueError:
            name = " ".join(words)
            values[name] = []
        else:
            values.setdefault(name, []).extend(numbers)
    missing = [key for key in ("width", "height", "camera matrix") if not values.get(key)]
    if missing:
        raise GeometryError(f"it has no {', '.join(missing)}")
    D = values.get("distortion", [])
    model = "rational_polynomial" if len(D) > 5 else "plumb_bob"
    return build(
        int(values["width"][0]),
        int(values["height"][0]),
        values["camera matrix"],
        D,
        model,
        values.get("rectification") or _IDENTITY,
        values.get("projection") or _NO_PROJECTION,
    )


def _from_echoes(infos: Sequence[Mapping[str, Any]], build: _Builder) -> LensCamera:
    """The camera of one or several messages, which must agree."""
    lenses = [_from_echo(info, build) for info in infos]
    if any(lens != lenses[0] for lens in lenses):
        raise GeometryError(f"its {len(lenses)} messages are of different cameras: keep one")
    return lenses[0]


def _from_echo(info: Mapping[str, Any], build: _Builder) -> LensCamera:
    """sensor_msgs/CameraInfo as YAML; ROS 1 writes the matrices with capitals."""
    lower = {str(key).lower(): value for key, value in info.items()}
    arrays = [lower.get(key) for key in "kdrp"]
    if any(isinstance(array, str) or (array and "..." in array) for array in arrays):
        raise GeometryError("its arrays were left out or shortened: print it without --no-arr")
    roi = lower.get("roi") or {}
    region = tuple(int(roi.get(key, 0)) for key in ("x_offset", "y_offset", "width", "height"))
    return build(
        int(lower["width"]),
        int(lower["height"]),
        lower["k"],
        lower.get("d") or [],
        str(lower.get("distortion_model") or ""),
        lower.get("r") or _IDENTITY,
        lower.get("p") or _NO_PROJECTION,
        binning=(int(lower.get("binning_x", 0)), int(lower.get("binning_y", 0))),
        roi=(region[0], region[1], region[2], region[3]),
    )


def _from_kalibr(chain: Mapping[str, Any], chosen: str, build: _Builder) -> LensCamera:
    names = sorted(str(name) for name in chain if re.fullmatch(r"cam\d+", str(name)))
    if chosen and chosen not in names:
        raise GeometryError(f"it has no {chosen}; it has {', '.join(names)}")
    if not chosen and len(names) > 1:
        raise GeometryError(
            f"it has {len(names)} cameras ({', '.join(names)}): name one, as in FILE:{names[0]}"
        )
    camera = chain[chosen or names[0]]
    model, distortion = str(camera["camera_model"]), str(camera.get("distortion_model", "none"))
    if model != "pinhole" or distortion not in _KALIBR_MODELS:
        raise GeometryError(
            f"the model {model}-{distortion} is not supported: calibrate with pinhole-radtan or "
            "pinhole-equi"
        )
    fx, fy, cx, cy = camera["intrinsics"]
    width, height = camera["resolution"]
    return build(
        int(width),
        int(height),
        [fx, 0, cx, 0, fy, cy, 0, 0, 1],
        camera.get("distortion_coeffs") or [],
        _KALIBR_MODELS[distortion],
        _IDENTITY,
        _NO_PROJECTION,
    )


def _from_opencv(text: str, build: _Builder) -> LensCamera:
    try:
        storage = cv2.FileStorage(text, cv2.FILE_STORAGE_READ | cv2.FILE_STORAGE_MEMORY)
        root = storage.root()
        names = list(root.keys())
        K, D = (_opencv_matrix(root, names, key) for key in ("K", "D"))
        width, height = (_opencv_number(root, names, key) for key in ("width", "height"))
        is_fisheye = "fisheye_model" in names and root.getNode("fisheye_model").real() != 0
    except (cv2.error, SystemError) as error:  # OpenCV's constructors raise the latter
        reason = getattr(error.__cause__ or error, "err", "")
        raise GeometryError(f"it is damaged ({reason})") from None
    if K is None:
        what = f"it has {', '.join(names[:5])}"
        if any(name.startswith("Camera") for name in names):
            what = "a settings file of ORB-SLAM"
        elif "model_type" in names:
            what = "a file of camodocal, as VINS takes it"
        raise GeometryError(f"it has no camera_matrix ({what})")
    if not width or not height:
        raise GeometryError("it has no image_width and image_height: add them")
    coefficients = np.zeros(0) if D is None else np.asarray(D, float).ravel()
    model = "equidistant" if is_fisheye else "plumb_bob"
    if len(coefficients) > 5:
        model = "rational_polynomial"
    return build(int(width), int(height), K, coefficients, model, _IDENTITY, _NO_PROJECTION)


def _opencv_matrix(root: Any, names: list[str], key: str) -> ArrayLike | None:
    for name in _OPENCV_NAMES[key]:
        if name in names:
            node = root.getNode(name)
            if node.isMap():
                matrix: ArrayLike | None = node.mat()
                return matrix
            if node.isSeq():
                return [node.at(index).real() for index in range(node.size())]
    return None


def _opencv_number(root: Any, names: list[str], key: str) -> float:
    for name in _OPENCV_NAMES[key]:
        if name in names:
            return float(root.getNode(name).real())
    for name in ("image_size", "imageSize", "Image_Size", "size"):
        if name in names and root.getNode(name).isSeq():
            return float(root.getNode(name).at(0 if key == "width" else 1).real())
    return 0.0


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())
