# SPDX-License-Identifier: Apache-2.0
"""The memory that several models take together, before any of them is loaded."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from vlm3_ros.engines.base import EngineError
from vlm3_ros.engines.settings import EngineSettings, model_name

if TYPE_CHECKING:
    import torch


class MemoryReport(NamedTuple):
    """One line for the log, and whether the models fit together."""

    text: str
    fits: bool


def report_memory(settings: Iterable[EngineSettings]) -> list[MemoryReport]:
    """Estimate the memory of all models of a process, each as its preflight does.

    Downloads nothing.

    Args:
        settings: of all engines of the process. Equal ones share a model. Engines that load no
            model into this process do not count.

    Returns:
        A report for each device with two or more models. Empty if a model or a device cannot be
        used; loading then says why.
    """
    models = [chosen for chosen in dict.fromkeys(settings) if chosen.engine == "transformers"]
    if len(models) < 2:
        return []
    try:
        from vlm3_ros.engines.checkpoint import choose_device

        by_device: dict[torch.device, list[EngineSettings]] = {}
        for model in models:
            by_device.setdefault(choose_device(model.device), []).append(model)
        reports = [_report(*item) for item in by_device.items() if len(item[1]) > 1]
        return [report for report in reports if report]
    except (EngineError, ImportError, RuntimeError):
        return []


def _report(device: torch.device, models: list[EngineSettings]) -> MemoryReport | None:
    from vlm3_ros.engines.checkpoint import choose_dtype, estimate_memory, free_memory

    free = free_memory(device)
    needed = [estimate_memory(model.model, choose_dtype(model)) for model in models]
    known = [size for size in needed if size]
    if not known:
        return None
    total, qualifier = sum(known), "about" if len(known) == len(models) else "at least"
    parts = [_part(model.model, size) for model, size in zip(models, needed, strict=True)]
    text = (
        f"{len(models)} models, {qualifier} {_size(total)} of {_size(free)} free memory on "
        f"{device}: {', '.join(parts)}"
    )
    if total <= free:
        return MemoryReport(text, True)
    return MemoryReport(
        f"{text}. They do not fit together: free some memory, let tasks share a model, or run "
        "nodes on other devices",
        False,
    )


def _part(model: str, size: int | None) -> str:
    """Describe one model: its name without owner, and its memory in bytes, if known."""
    from vlm3_ros.engines.checkpoint import is_hub_id

    if size:
        state = _size(size)
    elif Path(model).expanduser().is_dir():
        state = "is not complete"
    else:
        state = "is not downloaded yet" if is_hub_id(model) else "does not exist"
    return f"{model_name(model).rpartition('/')[2]} {state}"


def _size(count: int) -> str:
    return f"{count / 1e9:.1f} GB" if count >= 1e8 else f"{count / 1e6:.0f} MB"
