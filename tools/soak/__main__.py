# SPDX-License-Identifier: Apache-2.0
"""`make soak`: print the tables; fail on any loss."""

from __future__ import annotations

import argparse
import os
import sys
from dataclasses import replace
from pathlib import Path

from vlm3_ros.cli.arguments import natural_number
from vlm3_ros.cli.progress import progress_bar

# Before the first rclpy.init, to be isolated from other ROS nodes. Linux leaves the ports of
# domains 1 to 101 free.
os.environ["ROS_DOMAIN_ID"] = str(1 + os.getpid() % 101)
os.environ["ROS_AUTOMATIC_DISCOVERY_RANGE"] = "LOCALHOST"


def main() -> int:
    """Run the suite; return 1 on any loss."""
    from soak.report import SoakReport, markdown, write_report
    from soak.run import run_faults, run_load
    from soak.server_faults import ModelServer
    from soak.table import FULL, SHORT, groups

    parser = argparse.ArgumentParser(prog="make soak", description=__doc__)
    parser.add_argument("--out", type=Path, required=True, help="folder for results and logs")
    parser.add_argument("--short", action="store_true", help="the short form for CI")
    parser.add_argument("--images", type=natural_number, help="images under load; 0: only faults")
    parser.add_argument("--only", default="", help="only faults whose group or name contains this")
    options = parser.parse_args()
    extent = SHORT if options.short else FULL
    images = extent.images if options.images is None else options.images
    options.out.mkdir(parents=True, exist_ok=True)
    load = None
    if images:
        with progress_bar("images under load") as progress:
            load = run_load(extent.load, images, options.out, progress)
    server = ModelServer(options.out)
    try:
        chosen = [
            replace(group, faults=[f for f in group.faults if options.only in group.name + f.name])
            for group in groups(extent, options.out, server)
        ]
        chosen = [group for group in chosen if group.faults]
        with progress_bar("faults") as progress:
            rows = run_faults(chosen, extent.seconds, options.out, progress)
    finally:
        server.kill()
    report = SoakReport(load, rows)
    wrote = write_report(report, options.out)
    print(markdown(report))
    print(f"wrote {', '.join(wrote)} to {options.out}")
    return 1 if report.losses else 0


if __name__ == "__main__":
    sys.exit(main())
