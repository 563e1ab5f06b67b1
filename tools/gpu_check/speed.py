# SPDX-License-Identifier: Apache-2.0
"""Name the machine, and measure what asking costs on it."""

from __future__ import annotations

import importlib.metadata
import os
import platform
from collections.abc import Iterator
from statistics import median

import numpy as np
import torch

from gpu_check.extent import Extent
from gpu_check.running import Row
from gpu_check.subjects import engine_settings, frame, random_model
from vlm3_lab.studies.bench.measuring import Measurement, Method, Workload, measure
from vlm3_lab.studies.bench.roofline import measure_device
from vlm3_ros.engines.checkpoint import choose_device
from vlm3_ros.engines.processor import encode_questions

LIBRARIES = ("torch", "transformers", "numpy")
DTYPES = (torch.float32, torch.bfloat16)


def machine() -> Iterator[Row]:
    """Name the device, then measure its speed in a copy and in a matrix product."""
    device = choose_device("auto")
    row: Row = {
        "device": device.type,
        "hardware": platform.processor() or platform.machine(),
        "cores": os.cpu_count(),
        "python": platform.python_version(),
        **{name: importlib.metadata.version(name) for name in LIBRARIES},
    }
    if device.type == "cuda":
        properties = torch.cuda.get_device_properties(device)
        row |= {
            "hardware": properties.name,
            "memory_gb": round(properties.total_memory / 1e9, 1),
            "cuda": torch.version.cuda,
        }
    yield row
    for dtype in DTYPES:
        speed = measure_device(device, dtype)
        yield {
            "dtype": str(dtype).removeprefix("torch."),
            "gb_per_s": round(speed.bytes_per_second / 1e9, 1),
            "tflop_per_s": round(speed.flops_per_second / 1e12, 3),
        }


def benchmark(extent: Extent, wording: str) -> Iterator[Row]:
    """Measure time and memory of asking the model with random weights in bfloat16."""
    settings = engine_settings("bfloat16")
    loaded = random_model(extent, settings, wording)
    for grid in extent.grids:
        workload = frame(loaded, *grid)
        encoded = encode_questions(loaded.processor, [workload.image], workload.questions)
        sizes = {
            "wording": wording,
            "grid": f"{grid[0]}x{grid[1]}",
            "visual_tokens": encoded.prefix.count(loaded.model.config.image_token_id),
            "shared_tokens": len(encoded.prefix),
            "own_tokens": round(float(np.mean([len(each) for each in encoded.suffixes])), 1),
        }
        cases: dict[Method, tuple[int, int]] = {
            "engine-forced": (len(workload.questions), extent.repeats),
            "engine": (len(workload.questions), extent.repeats),
        }
        if grid == extent.grids[0]:  # their cost per question is constant
            cases |= {"packed": (extent.stock, 1), "naive": (extent.stock, 1)}
        for method, (count, repeats) in cases.items():
            asked = Workload(workload.image, workload.questions[:count])
            measured = measure(loaded, method, asked, settings, repeats)
            if loaded.model.device.type == "cuda":
                torch.cuda.empty_cache()
            yield {**sizes, **_cost(measured)}


def _cost(measured: Measurement) -> Row:
    seconds = median(measured.seconds) if measured.seconds else None
    return {
        "method": measured.method,
        "questions": measured.questions,
        "ms": None if seconds is None else round(seconds * 1e3, 1),
        "questions_per_s": None if seconds is None else round(measured.questions / seconds, 1),
        "peak_gb": round(measured.peak_bytes / 1e9, 2),
        "added_gb": round((measured.peak_bytes - measured.idle_bytes) / 1e9, 3),
    }
