# SPDX-License-Identifier: Apache-2.0
"""The parts of the check."""

from __future__ import annotations

from gpu_check.extent import Extent
from gpu_check.running import Part

TOTAL_S = 465
"""Seconds for all parts; with the start and the report, the check stays below eight minutes."""

WORDINGS = ("vlm3", "vlm3-last")
"""Prompt sets of the benchmark: the authors' wording, and coordinates last."""


def check_parts(extent: Extent) -> list[Part]:
    """Return the parts in their order; their limits add up to `TOTAL_S`."""
    return [
        Part("machine", 60, "gpu_check.speed:machine"),
        Part("float32", 70, "gpu_check.answers:compare", (extent, "float32")),
        Part("bfloat16", 55, "gpu_check.answers:compare", (extent, "bfloat16")),
        *(
            Part(f"bench-{wording}", 80, "gpu_check.speed:benchmark", (extent, wording))
            for wording in WORDINGS
        ),
        Part("training-tiny", 50, "gpu_check.learning:train_tiny", (extent,)),
        Part("training-lora", 70, "gpu_check.learning:train_lora", (extent,)),
    ]
