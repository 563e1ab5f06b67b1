# SPDX-License-Identifier: Apache-2.0
"""What models learned, checked before they are asked."""

from __future__ import annotations

from typing import Any

from vlm3_ros.engines.base import EngineError
from vlm3_ros.engines.settings import model_setting
from vlm3_ros.tasks.task import Model, Task, learned_wording

Asked = tuple[Model, Task[Any, Any, Any, Any]]
"""A model and what it is to be asked."""


def has_learned(model: Model, task: Task[Any, Any, Any, Any]) -> bool:
    """Whether a model learned a task."""
    return task.name in model.profile.prompts.wordings


def unlearned(model: Model, task: Task[Any, Any, Any, Any]) -> str:
    """Say that a model did not learn a task, and which setting helps; empty if it did."""
    try:
        learned_wording(model, task)
    except EngineError as error:
        return str(error)
    return ""


def check_not_swapped(one: Asked, other: Asked) -> None:
    """Refuse two models each of which learned only the other one's task.

    Raises:
        EngineError: naming both models and their settings.
    """
    (model1, task1), (model2, task2) = one, other
    learned = [[has_learned(model, task) for task in (task1, task2)] for model, _ in (one, other)]
    if learned == [[False, True], [True, False]]:
        raise EngineError(
            f"{model_setting(task1.name)} (or model) and {model_setting(task2.name)} seem to be "
            f"swapped: {model1.name} learned {task2.title}, and {model2.name} {task1.title}"
        )
