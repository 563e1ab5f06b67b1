# SPDX-License-Identifier: Apache-2.0
"""What a part of an evaluation offers, and how parts make one evaluation."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

from vlm3_ros.engines.base import Engine, EngineError
from vlm3_ros.errors import NoAnswersError
from vlm3_ros.evaluation.answer_counts import AnswerCounts, check_answered, void_tasks
from vlm3_ros.evaluation.pictures.figures import png_source
from vlm3_ros.evaluation.result import joined_names
from vlm3_ros.evaluation.scores.base import Progress, Scores, TaskScores
from vlm3_ros.evaluation.tolerance import TolerantEngine, wrapped
from vlm3_ros.tasks.learned import has_learned
from vlm3_ros.tasks.task import Task

ProgressBar = Callable[[str], AbstractContextManager[Progress]]
"""Opens a bar with a description."""

Tasks = tuple[Task[Any, Any, Any, Any], ...]


class Picture(NamedTuple):
    """A picture of a report; `draw` writes it to a path as a PNG."""

    file: str
    title: str
    draw: Callable[[Path], None]


class Part(ABC):
    """The answers about one kind of samples, and their scores.

    Attributes:
        tasks: that samples of this kind can be asked for.
    """

    tasks: ClassVar[Tasks]

    @abstractmethod
    def scores(self) -> dict[str, TaskScores[Scores]]:
        """Return the scores, by their key in metrics.json, in the order in which they are shown.

        Those of a task that was not learned do not count.
        """

    @abstractmethod
    def answers(self) -> dict[str, AnswerCounts]:
        """Return what became of the questions, by task."""

    def left_out(self) -> dict[str, str]:
        """Return why scores are missing, by their key in metrics.json."""
        return {}

    def notes(self) -> dict[str, str]:
        """Return what else a reader must know, by title."""
        return {}

    def pictures(self, model: str) -> list[Picture]:
        """Return what to draw; `model` names the checkpoints.

        The first picture of every task comes before the second one of any.
        """
        return []


@dataclass(frozen=True)
class Evaluation:
    """Parts of an evaluation that have scores.

    Attributes:
        names: of the checkpoints that answered, by the name of their task.
        parts: with scores.
        left_out: why tasks have no scores.
        answers: what became of the questions, by the tasks that were asked.
    """

    names: Mapping[str, str]
    parts: tuple[Part, ...]
    left_out: Mapping[str, str]
    answers: Mapping[str, AnswerCounts]

    @property
    def scores(self) -> dict[str, TaskScores[Scores]]:
        """Scores of the tasks that were not left out."""
        scores = {task: one for part in self.parts for task, one in part.scores().items()}
        return {task: one for task, one in scores.items() if task not in self.left_out}


def evaluate_parts(
    engines: Mapping[str, Engine],
    names: Mapping[str, str],
    kinds: Sequence[tuple[Tasks, Callable[[Mapping[str, Engine]], Part]]],
) -> Evaluation:
    """Ask for all parts, and score the answers; leave out what was not learned or not answered.

    Args:
        engines: by the name of their task; tasks may share one.
        names: of their checkpoints.
        kinds: the tasks of each part, and what asks and scores, given tolerant engines. It is not
            called if none of its tasks was learned.

    Raises:
        EngineError: if no model learned its task.
        NoAnswersError: if too few questions were answered.
    """
    engines = wrapped(engines, TolerantEngine)
    parts: list[Part] = []
    left_out: dict[str, str] = {}
    silent: NoAnswersError | None = None
    for tasks, evaluate in kinds:
        missing = [task for task in tasks if not has_learned(engines[task.name], task)]
        for name in dict.fromkeys(names[task.name] for task in missing):
            titles = [task.title for task in missing if names[task.name] == name]
            reason = f"{name} did not learn {' and '.join(titles)}"
            left_out |= {task.name: reason for task in missing if names[task.name] == name}
        if len(missing) == len(tasks):
            continue
        try:
            part = evaluate(engines)
        except NoAnswersError as error:
            silent = error
            left_out |= {task.name: str(error) for task in tasks if task not in missing}
            continue
        parts.append(part)
        left_out |= part.left_out()
    if not parts:
        raise silent or EngineError("; ".join(dict.fromkeys(left_out.values())))
    counts = (item for part in parts for item in part.answers().items())
    answers = {task: of_task for task, of_task in counts if of_task.asked}
    check_answered(answers)
    left_out |= void_tasks(answers)
    scored = [part for part in parts if any(task.name not in left_out for task in part.tasks)]
    return Evaluation(names, tuple(scored), left_out, answers)


def model_keys(names: Mapping[str, str]) -> dict[str, str]:
    """Return the names of checkpoints by their key in metrics.json.

    `names`: by the name of their task. A task that shares the model of another one has no key.
    """
    keys: dict[str, str] = {}
    for task, key, common in (
        ("depth", "model", ""),
        ("pose", "pair_model", ""),
        ("correspondence", "match_model", "pair_model"),
        ("objects", "object_model", "model"),
    ):
        if task in names and names[task] != keys.get(common):
            keys[key] = names[task]
    return keys


def draw_pictures(
    parts: Sequence[Part], names: Mapping[str, str], out: Path
) -> dict[str, tuple[str, str]]:
    """Draw the pictures of all parts.

    Args:
        parts: of an evaluation.
        names: of the checkpoints that answered, by the name of their task.
        out: folder of the PNG files.

    Returns:
        Title and data URL of each, for a page, by the name of its file.
    """
    by_part = [
        part.pictures(joined_names(names[task.name] for task in part.tasks if task.name in names))
        for part in parts
    ]
    first = [picture for pictures in by_part for picture in pictures[:1]]
    others = [picture for pictures in by_part for picture in pictures[1:]]
    drawn = {}
    for picture in (*first, *others):
        path = out / picture.file
        picture.draw(path)
        drawn[picture.file] = picture.title, png_source(path.read_bytes())
    return drawn
