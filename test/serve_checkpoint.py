# SPDX-License-Identifier: Apache-2.0
"""`transformers serve` for a Qwen3-VL checkpoint, also without torchvision.

The server is stock; only if torchvision is missing its processor comes from our loader, for
AutoProcessor would refuse to load without the video half of Qwen3-VL's processor.
"""

from __future__ import annotations

import importlib.util
import sys

from transformers import AutoProcessor

from vlm3_ros.engines.processor import load_processor

if not importlib.util.find_spec("torchvision"):
    AutoProcessor.from_pretrained = lambda model, **options: load_processor(model)

from transformers.cli.transformers import main

sys.argv[:1] = ["transformers", "serve"]
main()
