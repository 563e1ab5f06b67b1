# SPDX-License-Identifier: Apache-2.0
"""How much the check measures: in full on a GPU, and as a trial on a CPU."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Extent:
    """How much is measured.

    Attributes:
        shape: of the model with random weights; a key of `SHAPES` in `subjects`.
        focal: unified focal length of that model, px; None for the profile's own.
        grids: of questions, (columns, rows).
        compared: questions whose answers are compared with those of stock `generate`.
        stock: questions for the naive and packed methods of the benchmark.
        repeats: measurements of the engine; the median counts.
        tiny_steps, lora_steps: of training; even, as only the second half counts.
        tiny_batch, lora_batch: samples per step.
        workers: processes that make training samples.
    """

    shape: str
    focal: float | None
    grids: tuple[tuple[int, int], ...]
    compared: int
    stock: int
    repeats: int
    tiny_steps: int
    tiny_batch: int
    lora_steps: int
    lora_batch: int
    workers: int


FULL = Extent(
    shape="4b",
    focal=None,
    grids=((16, 12), (32, 24)),
    compared=16,
    stock=10,
    repeats=3,
    tiny_steps=200,
    tiny_batch=8,
    lora_steps=8,
    lora_batch=4,
    workers=8,
)
TINY = Extent(
    shape="tiny",
    focal=64.0,
    grids=((4, 3), (6, 4)),
    compared=2,
    stock=2,
    repeats=1,
    tiny_steps=4,
    tiny_batch=2,
    lora_steps=2,
    lora_batch=1,
    workers=0,
)
