# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import re
import struct
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
from videos import FRAMES, RATE, write_video

from vlm3_ros.bags.nearest import header_stamps
from vlm3_ros.bags.reading import open_bag
from vlm3_ros.bags.video import IMAGE_TOPIC, bag_from_video, times_note
from vlm3_ros.cli.__main__ import main
from vlm3_ros.errors import BagError
from vlm3_ros.evaluation.bag.video import video_source
from vlm3_ros.geometry.calibration_files import GivenCamera
from vlm3_ros.geometry.camera import GeometryError
from vlm3_ros.messages.images import rgb_from_message

SECOND = 1_000_000_000


def patched(path: Path, name: str, edit) -> None:
    """Edit the content of a box of an mp4 file whose index lies behind its frames."""
    data = bytearray(path.read_bytes())
    start = data.index(name.encode()) + 4
    size = int.from_bytes(data[start - 8 : start - 4], "big")
    assert data.index(b"mdat") < data.index(b"moov")
    content = edit(bytes(data[start : start - 8 + size]))
    grown = len(content) - (size - 8)
    data[start : start - 8 + size] = content
    parents = ("moov", "trak", "mdia", "minf", "stbl") if name == "stts" else ("moov", "trak")
    for box in (*parents, name):
        at = data.index(box.encode()) - 4
        data[at : at + 4] = (int.from_bytes(data[at : at + 4], "big") + grown).to_bytes(4, "big")
    path.write_bytes(data)


def frames_of(video: Path, folder: Path) -> tuple[np.ndarray, list[np.ndarray]]:
    """Stamps and images of the bag that a video becomes."""
    assert bag_from_video(video, folder / "bag") == FRAMES
    with open_bag(folder / "bag") as bag:
        images = [rgb_from_message(message.content) for message in bag.messages([IMAGE_TOPIC])]
        return header_stamps(bag, IMAGE_TOPIC, []), images


@pytest.mark.parametrize(("suffix", "codec"), [("mp4", "mp4v"), ("avi", "MJPG"), ("mkv", "mp4v")])
def test_frames_keep_their_colours_and_times(tmp_path: Path, suffix: str, codec: str) -> None:
    stamps, images = frames_of(write_video(tmp_path / f"walk.{suffix}", codec=codec), tmp_path)
    np.testing.assert_allclose(stamps, SECOND + np.arange(FRAMES) * SECOND // RATE, atol=2_000_000)
    for index, image in enumerate(images):
        assert image.shape == (48, 64, 3)
        np.testing.assert_allclose(image[8, 30], [100 + 15 * index, 0, 0], atol=20)
        np.testing.assert_allclose(image[40, 30], [0, 0, 100 + 15 * index], atol=20)


def test_a_varying_frame_rate_gives_the_frames_their_own_times(tmp_path: Path) -> None:
    """Phones take fewer frames in the dark: here the last five take three times as long."""
    video = write_video(tmp_path / "walk.mp4")

    def two_rates(content: bytes) -> bytes:
        flags, entries, count, ticks = struct.unpack(">4I", content)
        assert (entries, count) == (1, FRAMES)
        return struct.pack(">6I", flags, 2, 5, ticks, 5, 3 * ticks)

    patched(video, "stts", two_rates)
    video.write_bytes(video.read_bytes().replace(b"edts", b"free"))  # it cuts at the old length
    stamps, _ = frames_of(video, tmp_path)
    steps = np.diff(stamps) / SECOND
    np.testing.assert_allclose(steps, [0.1] * 5 + [0.3] * 4, atol=0.002)


@pytest.mark.parametrize("degrees", [90, 180, 270])
def test_a_rotation_in_the_metadata_turns_the_frames_upright(tmp_path: Path, degrees: int) -> None:
    video = write_video(tmp_path / "walk.mp4")
    cos, sin = round(np.cos(np.radians(degrees))), round(np.sin(np.radians(degrees)))
    matrix = struct.pack(">9i", cos << 16, sin << 16, 0, -sin << 16, cos << 16, 0, 0, 0, 1 << 30)
    patched(video, "tkhd", lambda content: content[:40] + matrix + content[76:])
    _, images = frames_of(video, tmp_path)
    upright = np.zeros((48, 64, 3))
    upright[:24, :, 0] = upright[24:, :, 2] = 100
    expected = np.rot90(upright, -degrees // 90)  # clockwise
    assert images[0].shape == expected.shape
    assert np.abs(images[0] - expected).mean() < 10


def test_a_raw_stream_has_assumed_times_which_is_said(tmp_path: Path) -> None:
    stream = tmp_path / "walk.mjpeg"
    picture = cv2.imencode(".jpg", np.zeros((48, 64, 3), np.uint8))[1].tobytes()
    stream.write_bytes(picture * 5)
    assert "25 frames per second are assumed" in times_note(stream)
    with video_source(stream, GivenCamera(hfov=60.0)) as source:
        assert "assumed" in source.notes["times of the frames"]
    assert times_note(write_video(tmp_path / "walk.mp4")) == ""


def test_a_video_that_breaks_off_is_said(tmp_path: Path) -> None:
    video = write_video(tmp_path / "walk.avi", codec="MJPG")
    with video_source(video, GivenCamera(hfov=60.0)) as source:
        assert "end of the video" not in source.notes
    data = video.read_bytes()
    start, end = data.index(b"movi"), data.index(b"idx1")
    video.write_bytes(data[: (start + end) // 2])
    with video_source(video, GivenCamera(hfov=60.0)) as source:
        assert re.fullmatch(
            r"the video breaks off: 0\.\d s of 1\.0 s could be read",
            source.notes["end of the video"],
        )


@pytest.mark.parametrize("hfov", [0.0, -60.0, 200.0, float("nan")])
def test_an_impossible_camera_is_refused_before_the_frames_are_read(
    tmp_path: Path, hfov: float
) -> None:
    video, read = write_video(tmp_path / "walk.mp4"), []
    with (
        pytest.raises(GeometryError, match=r"^--hfov: no image has a horizontal field of view"),
        video_source(video, GivenCamera(hfov=hfov), progress=lambda *counts: read.append(counts)),
    ):
        pass
    assert not read


class _Silent:
    """A capture whose frames and file have no times."""

    def isOpened(self) -> bool:
        return True

    def set(self, *_) -> None:
        pass

    release = set

    def get(self, _) -> float:
        return 0.0

    def read(self) -> tuple[bool, np.ndarray]:
        return True, np.zeros((48, 64, 3), np.uint8)


def test_a_video_without_times_and_rate_is_refused(tmp_path: Path, monkeypatch) -> None:
    (tmp_path / "walk.avi").write_text("")
    monkeypatch.setattr(cv2, "VideoCapture", lambda *_: _Silent())
    with pytest.raises(BagError, match="neither the frames nor the file tell times"):
        bag_from_video(tmp_path / "walk.avi", tmp_path / "bag")


def test_what_is_no_video_is_refused(tmp_path: Path) -> None:
    (tmp_path / "text.mp4").write_text("no video")
    cut = write_video(tmp_path / "cut.mp4")
    cut.write_bytes(cut.read_bytes()[:400])  # the index is at the end
    for name in ("text.mp4", "cut.mp4"):
        with pytest.raises(BagError, match=f"{name}: not a video that OpenCV can read, or dam"):
            bag_from_video(tmp_path / name, tmp_path / "bag")
    with pytest.raises(BagError, match=r"none.mp4: there is no such file"):
        bag_from_video(tmp_path / "none.mp4", tmp_path / "bag")
    with pytest.raises(BagError, match="a folder, not a video"):
        bag_from_video(tmp_path, tmp_path / "bag")
    assert not (tmp_path / "bag").exists()


def test_the_command_refuses_it_in_one_line(tmp_path: Path) -> None:
    """Without what OpenCV and FFmpeg print of their own."""
    (tmp_path / "text.mp4").write_text("no video")
    command = ["-m", "vlm3_ros.cli", "evaluate", "text.mp4", "--hfov", "60", "--out", "out"]
    ended = subprocess.run(
        [sys.executable, *command], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert ended.returncode == 2
    assert ended.stderr == "vlm3: text.mp4: not a video that OpenCV can read, or damaged\n"


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (["evaluate", "walk.xyz"], "walk.xyz: not a bag by its name: a rosbag2 folder, or a file"),
        (["demo", "--video", "walk.xyz"], "walk.xyz: not a video that OpenCV can read, or damaged"),
        (["demo", "--video", "."], ".: a folder, not a video"),
    ],
)
def test_a_recording_of_another_kind_is_refused(
    tmp_path: Path, monkeypatch, capsys, arguments: list[str], reason: str
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "walk.xyz").write_text("neither")
    assert main([*arguments, "--hfov", "60", "--out", "out"]) == 2
    assert reason in capsys.readouterr().err
