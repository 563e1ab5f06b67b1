# SPDX-License-Identifier: Apache-2.0
"""The memory that several models take together, before any of them is loaded."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from vlm3_ros.engines.base import EngineError
from vlm3_ros.engines.settings import EngineSettings

if TYPE_CHECKING:
    import torch


class MemoryReport(NamedTuple):
    """One line for the log, and whether the models fit together."""

    text: str
    fits: bool


def report_memory(settings: Iterable[EngineSettings]) -> list[MemoryReport]:
    """Estimate what models take together, each as its preflight does; download nothing.

    Args:
        settings: of all engines of a process. Equal ones share a model; only those that load a
            model into this process count.

    Returns:
        One for each device with two or more models; none if they cannot be judged: loading them
        says why.
    """
    models = [one for one in dict.fromkeys(settings) if one.engine == "transformers"]
    if len(models) < 2:
        return []
    try:
        from vlm3_ros.engines.checkpoint import choose_device

        devices = [choose_device(one.device) for one in models]
        on_device = [
            (device, [one for one, its in zip(models, devices, strict=True) if its == device])
            for device in dict.fromkeys(devices)
        ]
        reports = [_report(device, models) for device, models in on_device if len(models) > 1]
        return [report for report in reports if report]
    except (EngineError, ImportError, RuntimeError):
        return []


def _report(device: torch.device, models: list[EngineSettings]) -> MemoryReport | None:
    from vlm3_ros.engines.checkpoint import choose_dtype, estimate_memory, free_memory

    free = free_memory(device)
    needed = [estimate_memory(one.model, choose_dtype(one)) for one in models]
    known = [size for size in needed if size]
    if not known:
        return None
    total, least = sum(known), "about" if len(known) == len(models) else "at least"
    parts = [
        f"{_short_name(one.model)} {_size(size) if size else _absence(one.model)}"
        for one, size in zip(models, needed, strict=True)
    ]
    text = (
        f"{len(models)} models, {least} {_size(total)} of {_size(free)} free memory on {device}: "
        f"{', '.join(parts)}"
    )
    if total <= free:
        return MemoryReport(text, True)
    return MemoryReport(
        f"{text}. They do not fit together: free some memory, let tasks share a model, or run "
        "nodes on other devices",
        False,
    )


def _short_name(model: str) -> str:
    path = Path(model).expanduser()
    return path.resolve().name if path.is_dir() else path.name


def _absence(model: str) -> str:
    if Path(model).expanduser().is_dir():
        return "is not complete"
    is_hub_id = model.count("/") == 1 and not model.startswith((".", "/", "~"))
    return "is not downloaded yet" if is_hub_id else "does not exist"


def _size(count: int) -> str:
    return f"{count / 1e9:.1f} GB" if count >= 1e8 else f"{count / 1e6:.0f} MB"
