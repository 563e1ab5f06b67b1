# SPDX-License-Identifier: Apache-2.0
"""Speeds of devices as their makers publish them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from vlm3_lab.studies.bench.work import DeviceSpeed


@dataclass(frozen=True)
class PublishedSpeed:
    """Peak speed of a device.

    Attributes:
        speed: dense bfloat16 products with sums in float32, and memory bandwidth.
        source: the document, and what was made of its figures.
    """

    speed: DeviceSpeed
    source: str


HARDWARE: Mapping[str, PublishedSpeed] = {
    "H100": PublishedSpeed(
        DeviceSpeed(3.35e12, 989.5e12),
        "NVIDIA H100 Tensor Core GPU datasheet, SXM: 1,979 TFLOPS with sparsity, half of it dense",
    ),
    "H200": PublishedSpeed(
        DeviceSpeed(4.8e12, 989.5e12),
        "NVIDIA H200 Tensor Core GPU datasheet, SXM: 1,979 TFLOPS with sparsity, half of it dense",
    ),
    "RTX 4090": PublishedSpeed(
        DeviceSpeed(1.008e12, 165.2e12),
        "NVIDIA Ada GPU Architecture whitepaper, appendix A: BF16 with FP32 accumulate, dense",
    ),
    "AGX Orin 64GB": PublishedSpeed(
        DeviceSpeed(204.8e9, 42.5e12),
        "Jetson AGX Orin Series technical brief: GPU 170 sparse INT8 TOPS, a quarter of it as "
        "dense BF16; its two DLAs do not count",
    ),
}
"""By the name that `vlm3 bench --estimate --hardware` takes."""
