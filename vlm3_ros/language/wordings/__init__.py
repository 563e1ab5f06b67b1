# SPDX-License-Identifier: Apache-2.0
"""How tasks are worded: one module per task, with the task's name.

A module such as `free_space` defines `FreeSpaceWording`, see `vlm3_ros.language.prompts.Wording`,
and how its questions are asked and its answers read.
"""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module
from pkgutil import iter_modules
from typing import Any

_FIRST = ("depth", "pose", "correspondence", "objects")
_MODULES = {module.name for module in iter_modules(__path__)}


def _wording(task: str) -> type[Any]:
    name = f"{task.title().replace('_', '')}Wording"
    kind: type[Any] = getattr(import_module(f"{__name__}.{task}"), name)
    return kind


WORDINGS: Mapping[str, type[Any]] = {
    task: _wording(task) for task in (*_FIRST, *sorted(_MODULES - set(_FIRST)))
}
"""Class of the wording of each task, by the task's name, in the order of a prompt set's JSON."""
