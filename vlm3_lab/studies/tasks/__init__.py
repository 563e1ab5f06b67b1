# SPDX-License-Identifier: Apache-2.0
"""How tasks are scored on procedural scenes that no training draws: one module per task.

A module defines `Evaluation`, the `TaskEvaluation` of its task.
"""

from __future__ import annotations

from importlib import import_module
from pkgutil import iter_modules

from vlm3_lab.studies.task_evaluation import TaskEvaluation

_FIRST = ("depth", "pairs", "objects")
_MODULES = {module.name for module in iter_modules(__path__)}


def task_evaluations() -> list[type[TaskEvaluation]]:
    """Return the evaluations of all tasks, in the order in which scores are shown."""
    names = (*_FIRST, *sorted(_MODULES - set(_FIRST)))
    return [import_module(f"{__name__}.{name}").Evaluation for name in names]
