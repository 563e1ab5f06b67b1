# SPDX-License-Identifier: Apache-2.0
"""One camera, in every kind of file that users have, is the same camera."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
import yaml

from vlm3_ros.geometry.calibration_files import GivenCamera, load_calibration
from vlm3_ros.geometry.camera import GeometryError
from vlm3_ros.geometry.lens import LensCamera, lens_from_calibration

K = [428.3, 0.0, 319.9, 0.0, 428.9, 241.2, 0.0, 0.0, 1.0]
D = [-0.31, 0.12, 0.001, -0.002, 0.01]
P = [400.0, 0.0, 320.1, 0.0, 0.0, 401.0, 240.5, 0.0, 0.0, 0.0, 1.0, 0.0]
EYE = [1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0]


def lens(
    D: list[float] = D, model: str = "plumb_bob", P: list[float] | None = None, **more
) -> LensCamera:
    return lens_from_calibration(640, 480, K, D, model, EYE, P or [0.0] * 12, **more)


def rows(values: list[float], columns: int) -> str:
    lines = np.array(values).reshape(-1, columns)
    return "\n".join(" ".join(f"{value:f}" for value in line) for line in lines)


OST = f"""# oST version 5.0 parameters


[image]

width
640

height
480

[narrow_stereo/left]

camera matrix
{rows(K, 3)}

distortion
{rows(D, 5)}

rectification
{rows(EYE, 3)}

projection
{rows(P, 4)}

"""

ROS_YAML = yaml.safe_dump(
    {
        "image_width": 640,
        "image_height": 480,
        "camera_name": "narrow_stereo",
        "camera_matrix": {"rows": 3, "cols": 3, "data": K},
        "distortion_model": "plumb_bob",
        "distortion_coefficients": {"rows": 1, "cols": 5, "data": D},
        "rectification_matrix": {"rows": 3, "cols": 3, "data": EYE},
        "projection_matrix": {"rows": 3, "cols": 4, "data": P},
    }
)


def listed(name: str, values: list[float]) -> str:
    return f"{name}:\n" + "".join(f"- {value}\n" for value in values)


ECHO = (
    "header:\n  stamp:\n    sec: 12\n    nanosec: 5\n  frame_id: camera\n"
    "height: 480\nwidth: 640\ndistortion_model: plumb_bob\n"
    + listed("d", D)
    + listed("k", K)
    + listed("r", EYE)
    + listed("p", P)
    + "binning_x: 0\nbinning_y: 0\nroi:\n  x_offset: 0\n  y_offset: 0\n  height: 0\n  width: 0\n"
    "  do_rectify: false\n---\n"
)

ROSTOPIC = (
    'header: \n  seq: 3\n  stamp: \n    secs: 1\n    nsecs: 2\n  frame_id: "camera"\nheight: 480\n'
    f'width: 640\ndistortion_model: "plumb_bob"\nD: {D}\nK: {K}\nR: {EYE}\nP: {P}\nbinning_x: 0\n'
    "binning_y: 0\nroi: \n  x_offset: 0\n  y_offset: 0\n  height: 0\n  width: 0\n"
    "  do_rectify: False\n---\n"
)


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("ost.txt", OST),
        ("ost.ini", OST.replace("\n", "\r\n")),
        ("ost.yaml", ROS_YAML),
        ("info.yaml", ECHO),
        ("two.yaml", ECHO + ECHO.replace("sec: 12", "sec: 13")),
        ("shell.yaml", ("\ufeff" + ECHO).encode("utf-16-le")),
        (
            "lost.yaml",
            "A message was lost!!!\n\ttotal count change:1\n\ttotal count: 1---\n" + ECHO,
        ),
        ("bom.yaml", "\ufeff" + ECHO),
        ("rostopic.txt", ROSTOPIC),
    ],
)
def test_calibrations_of_ros(tmp_path: Path, name: str, text: str | bytes) -> None:
    (tmp_path / name).write_bytes(text if isinstance(text, bytes) else text.encode())
    assert load_calibration(tmp_path / name) == lens(P=P)


def test_a_region_and_binning_of_a_camera_info_count(tmp_path: Path) -> None:
    text = ECHO.replace("binning_x: 0\nbinning_y: 0", "binning_x: 2\nbinning_y: 2")
    text = text.replace(
        "x_offset: 0\n  y_offset: 0\n  height: 0\n  width: 0",
        "x_offset: 20\n  y_offset: 40\n  height: 400\n  width: 600",
    )
    (tmp_path / "info.yaml").write_text(text)
    expected = lens(P=P, binning=(2, 2), roi=(20, 40, 600, 400))
    assert load_calibration(tmp_path / "info.yaml") == expected


@pytest.mark.parametrize("suffix", ["yaml", "yml", "xml"])
@pytest.mark.parametrize(
    ("names", "size"),
    [
        (("camera_matrix", "distortion_coefficients"), ("image_width", "image_height")),
        (("cameraMatrix", "distCoeffs"), ("imageSize",)),
        (("K", "D"), ("width", "height")),
    ],
)
def test_file_storage_of_opencv(
    tmp_path: Path, suffix: str, names: tuple[str, str], size: tuple[str, ...]
) -> None:
    path = tmp_path / f"camera.{suffix}"
    storage = cv2.FileStorage(str(path), cv2.FILE_STORAGE_WRITE)
    storage.write("calibration_time", "Mon 30 Nov 2026")
    if len(size) == 2:
        storage.write(size[0], 640)
        storage.write(size[1], 480)
    else:
        storage.startWriteStruct(size[0], cv2.FILE_NODE_SEQ)
        storage.write("", 640)
        storage.write("", 480)
        storage.endWriteStruct()
    storage.write(names[0], np.array(K).reshape(3, 3))
    storage.write(names[1], np.array(D).reshape(5, 1))
    storage.release()
    assert load_calibration(path) == lens()


def test_file_storage_of_a_fisheye_lens_and_of_eight_coefficients(tmp_path: Path) -> None:
    for model, coefficients in (
        ("equidistant", [0.1, -0.02, 0.003, 0.0004]),
        ("rational_polynomial", [0.1, -0.02, 0.003, 0.0004, 0.01, 0.2, 0.03, 0.004]),
    ):
        path = tmp_path / f"{model}.yml"
        storage = cv2.FileStorage(str(path), cv2.FILE_STORAGE_WRITE)
        storage.write("image_width", 640)
        storage.write("image_height", 480)
        if model == "equidistant":
            storage.write("fisheye_model", 1)
        storage.write("camera_matrix", np.array(K).reshape(3, 3))
        storage.write("distortion_coefficients", np.array(coefficients))
        storage.release()
        assert load_calibration(path) == lens(coefficients, model)


def camchain(**camera: object) -> dict[str, object]:
    return {
        "camera_model": "pinhole",
        "distortion_model": "radtan",
        "distortion_coeffs": D[:4],
        "intrinsics": [K[0], K[4], K[2], K[5]],
        "resolution": [640, 480],
        "rostopic": "/cam0/image_raw",
        **camera,
    }


def test_camchains_of_kalibr(tmp_path: Path) -> None:
    path = tmp_path / "camchain.yaml"
    path.write_text(yaml.safe_dump({"cam0": camchain()}))
    assert load_calibration(path) == lens(D[:4])
    fisheye = camchain(distortion_model="equidistant", T_cn_cnm1=np.eye(4).tolist())
    path.write_text("%YAML:1.0\n" + yaml.safe_dump({"cam0": camchain()}))  # of OpenVINS
    assert load_calibration(path) == lens(D[:4])
    path.write_text(yaml.safe_dump({"cam0": camchain(), "cam1": fisheye}))
    assert load_calibration(f"{path}:cam0") == lens(D[:4])
    assert load_calibration(f"{path}:cam1") == lens(D[:4], "equidistant")
    with pytest.raises(GeometryError, match=r"Kalibr: it has 2 cameras \(cam0, cam1\): name one"):
        load_calibration(path)
    with pytest.raises(GeometryError, match=r"it has no cam7; it has cam0, cam1"):
        load_calibration(f"{path}:cam7")
    path.write_text(yaml.safe_dump({"cam0": camchain(camera_model="omni")}))
    with pytest.raises(GeometryError, match="Kalibr: the model omni-radtan is not supported"):
        load_calibration(path)


ORB_SLAM = '%YAML:1.0\nCamera.type: "PinHole"\nCamera.fx: 535.4\nCamera.fy: 539.2\n'


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (ORB_SLAM, "FileStorage of OpenCV: it has no camera_matrix .*ORB-SLAM"),
        (ORB_SLAM.replace("%YAML:1.0\n", ""), "settings file of ORB-SLAM is not read; read are"),
        ("%YAML:1.0\n---\ncamera_matrix: !!opencv-matrix\n   rows: 3\n   cols: {", "damaged"),
        ("%YAML:1.0\n---\nK: [1, 2]\nwidth: 640\nheight: 480\n", "OpenCV: K must hold 9 values"),
        (
            '<?xml version="1.0"?>\n<opencv_storage>\n<a>1</a>\n</opencv_storage>',
            "no camera_matrix",
        ),
        ("<calibration><f>1200</f></calibration>", "this kind of XML is not read; read are"),
        (ECHO.replace("height: 480\nwidth", "width"), "ros2 topic echo prints it, but it has no h"),
        (ECHO + ECHO.replace(str(K[0]), "99.0"), "ros2 topic .* its 2 messages are of different c"),
        (ECHO.replace(listed("k", K), "k: '<array type: double[9]>'\n"), "print it without --no-a"),
        (ECHO.replace(listed("d", D), "d:\n- 0.1\n- '...'\n"), "print it without --no-arr"),
        ("%YAML:1.0\n---\nmodel_type: PINHOLE\nimage_width: 640\n", "a file of camodocal"),
        (ECHO.replace("plumb_bob", "omni"), "ros2 topic echo .*'omni' is unknown"),
        (listed("header", [1]) + listed("k", [0.0] * 9) + "height: 4\nwidth: 4", "uncalibrated"),
        (OST.replace("height\n480\n", ""), "an ost.txt of camera_calibration: it has no height"),
        (OST.replace("camera matrix", "matrix"), "an ost.txt .*: it has no camera matrix"),
        ("cam0: {camera_model: pinhole}", "a camchain of Kalibr, but it has no intrinsics"),
        ("cam0: [1, 2]", "a camchain of Kalibr, but incomplete or damaged"),
        ("cam0: [1, 2", "this text is not read"),
        ("fx: 1\nfy: 2\n", "a file with fx, fy is not read; read are camera_calibration's YAML"),
        ("", "the file is empty"),
        ("---\n", "the file is empty"),
        (b"\x93NUMPY\x01\xff\xfe", "a binary file .* is not read"),
        ("a: &a [*a]\n" + "[" * 3000, "is not read"),
        ("when: 2020-99-99\n", "is not read"),
    ],
)
def test_other_files_are_refused_in_one_line_that_names_their_kind(
    tmp_path: Path, content: str | bytes, message: str, capfd: pytest.CaptureFixture
) -> None:
    path = tmp_path / "camera.yaml"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(GeometryError, match=message) as caught:
        load_calibration(path)
    assert str(caught.value).startswith(f"{path}: ")
    assert "\n" not in str(caught.value)
    assert capfd.readouterr() == ("", "")  # OpenCV says nothing of its own


def test_files_that_are_not_there(tmp_path: Path) -> None:
    with pytest.raises(GeometryError, match=r"none.yaml: No such file"):
        load_calibration(tmp_path / "none.yaml")
    with pytest.raises(GeometryError, match=r"Is a directory"):
        load_calibration(tmp_path)


def test_a_given_camera_is_for_images_of_its_size(tmp_path: Path) -> None:
    path = tmp_path / "ost.txt"
    path.write_text(OST)
    assert GivenCamera(file=str(path)).lens(640, 480) == lens(P=P)
    with pytest.raises(
        GeometryError, match="calibrates images of 640x480, but the image is 320x240"
    ):
        GivenCamera(file=str(path)).lens(320, 240)
    camera = GivenCamera(hfov=90.0).lens(200, 100)
    assert camera.is_pinhole
    assert camera.rectified.fx == pytest.approx(100.0)
    assert camera.rectified.cy == 49.5
    with pytest.raises(GeometryError, match="field of view of 200 degrees"):
        GivenCamera(hfov=200.0).lens(200, 100)
