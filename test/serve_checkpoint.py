"""`transformers serve` for a Qwen3-VL checkpoint, also where torchvision is missing.

The server is stock; only its processor comes from our loader, for AutoProcessor would refuse to
load without torchvision, which the video half of Qwen3-VL's processor needs.
"""

from __future__ import annotations

import sys

from transformers import AutoProcessor

from vlm3_ros.engines.processor import load_processor

AutoProcessor.from_pretrained = lambda model, **options: load_processor(model)

from transformers.cli.transformers import main  # noqa: E402

sys.argv[:1] = ["transformers", "serve"]
main()
