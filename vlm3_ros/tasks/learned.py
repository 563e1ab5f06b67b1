# SPDX-License-Identifier: Apache-2.0
"""What models learned, checked before they are asked."""

from __future__ import annotations

from typing import Any

from vlm3_ros.engines.base import EngineError
from vlm3_ros.engines.settings import model_setting
from vlm3_ros.tasks.task import Model, Task, learned_wording

Assignment = tuple[Model, Task[Any, Any, Any, Any]]
"""A task, and the model that is to answer it."""


def has_learned(model: Model, task: Task[Any, Any, Any, Any]) -> bool:
    """Return whether a model learned a task."""
    return task.name in model.profile.prompts.wordings


def why_unlearned(model: Model, task: Task[Any, Any, Any, Any]) -> str:
    """Return that a model did not learn a task, and which setting helps; empty if it did."""
    try:
        learned_wording(model, task)
    except EngineError as error:
        return str(error)
    return ""


def check_not_swapped(one: Assignment, other: Assignment) -> None:
    """Refuse two models if each learned the other's task but not its own.

    Raises:
        EngineError: naming both models and their settings.
    """
    (model1, task1), (model2, task2) = one, other
    learned = [has_learned(model, task) for model in (model1, model2) for task in (task1, task2)]
    if learned == [False, True, True, False]:
        raise EngineError(
            f"{model_setting(task1.name)} (or model) and {model_setting(task2.name)} seem to be "
            f"swapped: {model1.name} learned {task2.title}, and {model2.name} {task1.title}"
        )
