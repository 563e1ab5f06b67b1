# SPDX-License-Identifier: Apache-2.0
"""Write the debug_image of depth_node for one frame of a bag: docs/pictures/debug_image.jpg.

python tools/debug_picture.py bags/sample docs/pictures/debug_image.jpg
"""

from __future__ import annotations

import argparse
from itertools import islice
from pathlib import Path

from vlm3_ros.engines.load import load_engine
from vlm3_ros.engines.settings import EngineSettings
from vlm3_ros.evaluation.bag.evaluate import bag_source
from vlm3_ros.messages.images import encode_image
from vlm3_ros.tasks.debug_image import draw_answers
from vlm3_ros.tasks.depth import DepthLimits
from vlm3_ros.tasks.frame_depth import FrameDepthSettings, ask_frame_depth


def main() -> None:
    """Ask the model and write the picture."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("bag", type=Path)
    parser.add_argument("picture", type=Path)
    parser.add_argument("--model", default="models/vlm3-tiny")
    parser.add_argument("--frame", type=int, default=40, help="number of the frame")
    parser.add_argument("--max-uncertainty", type=float, default=0.16)
    options = parser.parse_args()
    engine = load_engine(EngineSettings(model=options.model))
    settings = FrameDepthSettings(limits=DepthLimits(max_uncertainty=options.max_uncertainty))
    with bag_source(options.bag) as source:
        frame = next(islice(source.frames, options.frame, None))
    picture = draw_answers(ask_frame_depth(engine, frame, settings))
    options.picture.write_bytes(encode_image(options.picture.suffix, picture[..., ::-1]))


if __name__ == "__main__":
    main()
