# SPDX-License-Identifier: Apache-2.0
"""`vlm3 bag-from-rgbd`: convert a folder of RGB-D frames to a rosbag2."""

from __future__ import annotations

import argparse
from pathlib import Path

from vlm3_ros.cli.arguments import positive_number


def add_parser(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command."""
    parser = commands.add_parser(
        "bag-from-rgbd",
        help="convert a folder of RGB-D frames to a rosbag2",
        description="Convert a folder of RGB-D frames to a rosbag2 (mcap). The folder holds "
        "rgb/ID.jpg or .png, depth/ID.png (16 bit, 0 for unknown, registered to the image), "
        "intrinsics.json (fx, fy, cx, cy, width, height), meta.json (depth_scale: metres per unit) "
        "and poses.txt (ID tx ty tz qx qy qz qw, camera to world, optical axes, world y up). ID is "
        "the number of the frame in the recording.",
    )
    parser.add_argument("folder", type=Path, help="folder of frames")
    parser.add_argument("bag", type=Path, help="folder of the new bag")
    parser.add_argument(
        "--frame-rate",
        type=positive_number,
        default=30.0,
        metavar="HZ",
        help="of the recording; the stamp of a frame is ID / HZ (default: 30)",
    )
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Run the command."""
    from vlm3_ros.bags.rgbd_folder import bag_from_rgbd
    from vlm3_ros.cli.progress import progress_bar

    with progress_bar("frames") as progress:
        frames = bag_from_rgbd(options.folder, options.bag, options.frame_rate, progress)
    print(f"wrote {frames} frames to {options.bag}")
    return 0
