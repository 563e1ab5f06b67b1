# SPDX-License-Identifier: Apache-2.0
"""What a model can be taught: one module per task, with the name that `data.tasks` uses.

A module defines `Questions`, the `Samples` of its task. It must not import torch: the sources of
a run are checked before torch is loaded.
"""

from __future__ import annotations

from importlib import import_module
from pkgutil import iter_modules
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from vlm3_lab.training.packing import PackedSample
    from vlm3_lab.training.samples import Samples

_FIRST = ("depth", "pairs", "objects")
_MODULES = {module.name for module in iter_modules(__path__)}

TASKS = (*_FIRST, *sorted(_MODULES - set(_FIRST)))
"""The order breaks ties between tasks that are equally far behind. Runs that are resumed rely on
it, so new tasks follow the first ones."""


def task_samples(task: str) -> type[Samples[Any, PackedSample]]:
    """The class that makes the samples of one of `TASKS`."""
    samples: type[Samples[Any, PackedSample]] = import_module(f"{__name__}.{task}").Questions
    return samples
