"""`vlm3 demo`: a bag through the real node, and what came out as pictures and numbers."""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from vlm3_ros.bags.reading import Bag, open_bag
from vlm3_ros.bags.topics import RgbdTopics, find_rgbd_topics
from vlm3_ros.cli.arguments import positive_number
from vlm3_ros.cli.errors import CommandError
from vlm3_ros.cli.model_options import add_model_options, model_name
from vlm3_ros.engines.settings import chosen_settings
from vlm3_ros.paths import sample_bag

if TYPE_CHECKING:
    from rich.table import Table

    from vlm3_ros.evaluation.metrics import DepthMetrics
    from vlm3_ros.evaluation.pictures import DepthFrame
    from vlm3_ros.geometry.camera import PinholeCamera
    from vlm3_ros.nodes.demo import RecordedFrame, Recording

_COLUMNS, _ROWS = 16, 12
_SHOWN = 4


def add_parser(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command."""
    parser = commands.add_parser(
        "demo",
        help="play a bag through the depth node and look at the result",
        description="Start depth_node, play a bag into it over DDS in a ROS domain of its own, "
        "and compare what it publishes with the depth in the bag. Writes overview.png, cloud.ply, "
        "metrics.json and the logs of the processes. Needs ROS 2.",
    )
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="folder of results")
    parser.add_argument(
        "--bag",
        type=Path,
        metavar="BAG",
        help="a bag with images, their CameraInfo and registered depth (default: the sample bag)",
    )
    parser.add_argument(
        "--rate", type=positive_number, default=1.0, help="speed of playing (default: 1, real time)"
    )
    for name in ("image", "camera-info", "depth"):
        parser.add_argument(
            f"--{name}-topic",
            metavar="TOPIC",
            help="of the bag, where it has several (default: found by type and content)",
        )
    add_model_options(parser)
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Run the command."""
    from rich.console import Console

    from vlm3_ros.cli.progress import progress_bar
    from vlm3_ros.evaluation.pictures import draw_depth_frames
    from vlm3_ros.evaluation.report import write_json
    from vlm3_ros.evaluation.streams import score_stream, true_depths
    from vlm3_ros.tasks.depth import uniform_grid

    try:
        from vlm3_ros.nodes.demo import DemoError, DemoSettings, bag_camera, run_demo
    except ModuleNotFoundError as error:
        raise CommandError(
            f"the demo needs ROS 2 ({error}): source its setup file, or use `make demo`"
        ) from error

    path, out = options.bag or sample_bag(), options.out
    out.mkdir(parents=True, exist_ok=True)
    with open_bag(path) as bag:
        topics = find_rgbd_topics(
            bag, options.image_topic, options.camera_info_topic, options.depth_topic
        )
        camera = bag_camera(bag, topics.camera_info)
        truth = true_depths(bag, topics.depth, uniform_grid(camera, _COLUMNS, _ROWS))
        images = bag.topics[topics.image].count
    settings = DemoSettings(
        path, topics, chosen_settings(vars(options)), _COLUMNS, _ROWS, options.rate, out
    )
    try:
        with progress_bar("images played") as progress:
            recording = run_demo(settings, lambda played: progress(played, images))
            progress(images, images)
    except DemoError as error:
        raise CommandError(str(error)) from error
    if not recording.frames:
        raise CommandError(f"the depth node answered none of {images} images (see {out})")
    predicted = {frame.stamp_ns: frame.depth.ravel() for frame in recording.frames}
    score = score_stream(predicted, truth)
    name = model_name(settings.model.model or settings.model.engine)
    with open_bag(path) as bag:
        frames = _shown_frames(bag, topics, camera, recording.frames)
    title = f"{name} on {path.name}"
    scores = f"δ1 {score.delta1:.3f}, AbsRel {score.abs_rel:.3f}"
    draw_depth_frames(frames, out / "overview.png", f"{title}: {scores}")
    _write_cloud(out / "cloud.ply", camera, frames[len(frames) // 2])
    metrics = _metrics(recording, images, score)
    write_json(out / "metrics.json", {"model": name, "bag": path.name, **metrics})
    console = Console()
    console.print(_table(title, metrics))
    console.print(f"wrote overview.png, cloud.ply and metrics.json to {out}", highlight=False)
    return 0


def _shown_frames(
    bag: Bag, topics: RgbdTopics, camera: PinholeCamera, recorded: Sequence[RecordedFrame]
) -> list[DepthFrame]:
    """A few of the answered frames, evenly over the time, with image and truth from the bag."""
    from vlm3_ros.evaluation.metrics import abs_rel, within_delta
    from vlm3_ros.evaluation.pictures import DepthFrame
    from vlm3_ros.evaluation.streams import depth_images
    from vlm3_ros.nodes.demo import frame_images
    from vlm3_ros.tasks.dense import densify
    from vlm3_ros.tasks.depth import uniform_grid

    chosen = [
        recorded[i]
        for i in np.linspace(0, len(recorded) - 1, min(_SHOWN, len(recorded)), dtype=int)
    ]
    stamps = {frame.stamp_ns for frame in chosen}
    images = frame_images(bag, topics.image, stamps)
    truths = depth_images(bag, topics.depth, stamps)
    pixels = uniform_grid(camera, _COLUMNS, _ROWS)
    u, v = np.rint(pixels).astype(int).T
    frames = []
    for frame in chosen:
        depth, title = frame.depth.ravel(), f"{(frame.stamp_ns - bag.start_ns) / 1e9:.1f} s"
        truth = truths.get(frame.stamp_ns)
        if truth is not None:
            known = np.isfinite(truth[v, u])
            p, g = depth[known], truth[v, u][known]
            title += f"\nδ1 {within_delta(p, g).mean():.2f}, AbsRel {abs_rel(p, g):.2f}"
        dense = densify(pixels, depth, camera.width, camera.height)
        frames.append(DepthFrame(title, images[frame.stamp_ns], pixels, depth, dense, truth))
    return frames


def _write_cloud(path: Path, camera: PinholeCamera, frame: DepthFrame) -> None:
    from vlm3_ros.evaluation.ply import write_ply

    assert frame.dense is not None
    points = camera.unproject(camera.pixel_grid(), frame.dense)
    write_ply(path, points.reshape(-1, 3), frame.image.reshape(-1, 3))


def _metrics(recording: Recording, played: int, score: DepthMetrics) -> dict[str, dict[str, Any]]:
    from vlm3_ros.evaluation.report import metrics_json

    answered = len(recording.frames)
    p50, p95 = np.nanpercentile([frame.latency * 1e3 for frame in recording.frames], [50, 95])
    return {
        "depth": metrics_json(score),
        "frames": {
            "played": played,
            "answered": answered,
            "failed": recording.failed,
            "dropped": played - answered - recording.failed,
        },
        "latency_ms": {"p50": float(p50), "p95": float(p95)},
    }


def _table(title: str, metrics: Mapping[str, Mapping[str, Any]]) -> Table:
    from rich.table import Table

    depth, frames, latency = metrics["depth"], metrics["frames"], metrics["latency_ms"]
    table = Table(title=title, show_header=False)
    table.add_column()
    table.add_column(justify="right")
    for name, value in (
        ("δ1", f"{depth['delta1']:.3f}"),
        ("AbsRel", f"{depth['abs_rel']:.3f}"),
        ("RMSE", f"{depth['rmse']:.2f} m"),
        ("pixels compared", str(depth["pixels"])),
        ("answers that could not be read", str(depth["unanswered"])),
        ("images played", str(frames["played"])),
        ("answered", str(frames["answered"])),
        ("failed", str(frames["failed"])),
        ("dropped for newer ones", str(frames["dropped"])),
        ("image to cloud, median", f"{latency['p50']:.0f} ms"),
        ("image to cloud, 95 %", f"{latency['p95']:.0f} ms"),
    ):
        table.add_row(name, value)
    return table
