# SPDX-License-Identifier: Apache-2.0
"""Measures how fast a large data set in the WAI format is opened and read for training.

    python benchmarks/datasets.py [--frames 100000] [--width 1024] [--folder DIR]

It writes a folder of scenes with 100 frames each, whose metadata are real and whose images and
depth are links to those of one rendered drive; a tenth of the depth is unknown. Then it opens it
twice, the second time from the cache, and draws training samples in one process as a training
worker does.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from itertools import islice
from multiprocessing import get_context
from pathlib import Path
from typing import Any
from unittest.mock import patch

import cv2
import numpy as np
import OpenEXR
from numpy.typing import NDArray

from vlm3_lab.scenes.sequences import sample_sequence
from vlm3_lab.training.checkpoint import build_processor, build_tokenizer
from vlm3_lab.training.config import DataConfig, SourceConfig
from vlm3_lab.training.streams import SampleStream, model_input
from vlm3_lab.training.tasks import task_samples
from vlm3_ros.datasets.views import View
from vlm3_ros.datasets.wai.source import read_wai
from vlm3_ros.engines.base import Profile
from vlm3_ros.geometry.camera import PinholeCamera
from vlm3_ros.language.prompts import load_prompt_set

VIEWS, SCENE = 10, 100
"""Rendered views, and frames of a scene."""


def write_folder(root: Path, frames: int, width: int, has_matrices: bool) -> None:
    """Write the data set."""
    views = rendered(width)
    shared = root.with_name(f"{root.name}_files")
    (shared / "images").mkdir(parents=True)
    (shared / "depth").mkdir()
    for number, view in enumerate(views):
        cv2.imwrite(str(shared / f"images/{number}.jpg"), view.image[..., ::-1])
        depth = np.where(np.isfinite(view.depth) & ~holes(view), view.depth, 0).astype(np.float16)
        header = {"compression": OpenEXR.ZIP_COMPRESSION, "type": OpenEXR.scanlineimage}
        with OpenEXR.File(header, {"Y": depth}) as file:
            file.write(str(shared / f"depth/{number}.exr"))
    for number in range(frames // SCENE):
        scene = root / f"scene_{number:06d}"
        scene.mkdir(parents=True)
        for folder in ("images", "depth"):
            (scene / folder).symlink_to(shared / folder)
        meta: dict[str, Any] = {
            "scene_name": scene.name,
            "dataset_name": "benchmark",
            "version": 0.1,
            "camera_model": "PINHOLE",
            "camera_convention": "opencv",
            "scale_type": "metric",
            "scene_modalities": {},
            "frames": [described(views[i % VIEWS], i) for i in range(SCENE)],
            "frame_modalities": {
                "image": {"frame_key": "image", "format": "image"},
                "depth": {"frame_key": "depth", "format": "depth"},
            },
        }
        if has_matrices:
            matrix = Path("covisibility", "v0", f"pairwise_covisibility--{SCENE}x{SCENE}.npy")
            (scene / matrix).parent.mkdir(parents=True)
            steps = np.arange(SCENE) % VIEWS
            apart = np.abs(steps[:, None] - steps)
            np.save(scene / matrix, np.maximum(0, 1 - apart / 6).astype(np.float32))
            entry = {"scene_key": str(matrix), "format": "mmap"}
            meta["scene_modalities"]["pairwise_covisibility"] = entry
        (scene / "scene_meta.json").write_text(json.dumps(meta, indent=2))


def rendered(width: int) -> list[View]:
    """Views along a drive."""
    rng = np.random.default_rng(1)
    camera = PinholeCamera.from_hfov(width, width * 3 // 4, 70)
    sequence = sample_sequence(rng, camera, kind="room", duration=VIEWS / 5, rate=5)
    return list(sequence.views(rng))


def holes(view: View) -> NDArray[np.bool_]:
    """Patches of unknown depth, a tenth of the image, as depth cameras and stereo leave them."""
    noise = np.random.default_rng(2).normal(size=view.depth.shape).astype(np.float32)
    smooth = cv2.GaussianBlur(noise, (0, 0), 8)
    return smooth > np.quantile(smooth, 0.9)


def described(view: View, number: int) -> dict[str, Any]:
    """A frame as map-anything's converters write it."""
    camera, image = view.camera, f"images/{number % VIEWS}.jpg"
    return {
        "frame_name": f"{number:08d}",
        "image": image,
        "file_path": image,
        "depth": f"depth/{number % VIEWS}.exr",
        "transform_matrix": view.T_world_camera.tolist(),
        **{"h": camera.height, "w": camera.width, "fl_x": camera.fx, "fl_y": camera.fy},
        **{"cx": camera.cx, "cy": camera.cy},
    }


def opened(root: Path) -> tuple[float, float, int]:
    """Seconds and MB that opening takes, and frames, in a process of its own."""
    before = peak_mb()
    start = time.perf_counter()
    frames = len(read_wai(root).contents)
    return time.perf_counter() - start, peak_mb() - before, frames


def peak_mb() -> float:
    """Most memory that the process has had; getrusage would count that of its parent."""
    status = Path("/proc/self/status").read_text()
    return int(status.partition("VmHWM:")[2].split()[0]) / 1000


@contextmanager
def timed(spent: dict[str, float]) -> Iterator[None]:
    """Add up the time in decoding."""

    def timing(name: str, function: Callable[[Path], Any]) -> Callable[[Path], Any]:
        def wrapped(path: Path) -> Any:
            start = time.process_time()
            try:
                return function(path)
            finally:
                spent[name] += time.process_time() - start

        return wrapped

    from vlm3_ros.datasets.wai import depth, source

    with (
        patch.object(source, "read_image", timing("images", source.read_image)),
        patch.object(depth, "read_exr", timing("depth", depth.read_exr)),
    ):
        yield


def drawn(root: Path, task: str, samples: int) -> tuple[float, dict[str, float]]:
    """Samples per second of one process, and shares of the time in decoding.

    Seconds of the processor: other programs on the machine do not count.
    """
    profile = Profile(512.0, "scale", load_prompt_set("vlm3-short"))
    model = model_input(build_processor(build_tokenizer(profile.prompts)), profile)
    data = DataConfig(sources={"wai": SourceConfig(wai=str(root))})
    stream = SampleStream(task_samples(task)(model, data), data, batch_size=1)
    list(islice(stream, 4))
    spent: dict[str, float] = defaultdict(float)
    start = time.process_time()
    with timed(spent):
        list(islice(stream, samples))
    seconds = time.process_time() - start
    return samples / seconds, {name: part / seconds for name, part in spent.items()}


def main() -> None:
    """Print the figures."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--frames", type=int, default=100_000)
    parser.add_argument("--width", type=int, default=1024)
    parser.add_argument("--samples", type=int, default=40)
    parser.add_argument(
        "--folder", type=Path, help="where to write; a temporary folder if left out"
    )
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=arguments.folder) as folder:
        os.environ["XDG_CACHE_HOME"] = folder
        for has_matrices in (True, False):
            root = Path(folder, "with_matrices" if has_matrices else "without_matrices")
            write_folder(root, arguments.frames, arguments.width, has_matrices)
            print(f"{arguments.frames} frames, {arguments.width} px wide, {root.name}", flush=True)
            for turn in ("first", "second"):
                with ProcessPoolExecutor(1, get_context("spawn")) as pool:
                    seconds, megabytes, frames = pool.submit(opened, root).result()
                print(f"  {turn} opening: {seconds:.2f} s, {megabytes:.0f} MB for {frames} frames")
            for task in ("depth", "pairs"):
                rate, shares = drawn(root, task, arguments.samples)
                parts = ", ".join(f"{share:.0%} in {name}" for name, share in shares.items())
                print(f"  {task}: {rate:.1f} samples/s per worker; {parts}", flush=True)


if __name__ == "__main__":
    main()
