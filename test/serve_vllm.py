"""`vllm serve`, also where torch is a CPU build and torchvision is not.

Package indexes have torchvision for CUDA, and its import fails beside a CPU build of torch for
missing operators, which nothing here calls. A declaration of them is enough.
"""

from __future__ import annotations

import sys

import torch

try:
    import torchvision  # noqa: F401
except RuntimeError:
    operators = torch.library.Library("torchvision", "DEF")
    for name in ("nms", "qnms"):
        operators.define(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")

if __name__ == "__main__":  # vLLM's processes may import this file again
    from vllm.entrypoints.cli.main import main

    sys.argv[:1] = ["vllm", "serve"]
    main()
