# SPDX-License-Identifier: Apache-2.0
"""A checkpoint on a data set: all tasks that both serve, as one result with pictures."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from vlm3_ros import paths
from vlm3_ros.datasets.source import FrameSource, Pairs
from vlm3_ros.engines.base import Engine
from vlm3_ros.errors import CommandError, DatasetError
from vlm3_ros.evaluation.dataset.depth import evaluate_depth
from vlm3_ros.evaluation.dataset.objects import evaluate_objects
from vlm3_ros.evaluation.dataset.pairs import evaluate_pairs
from vlm3_ros.evaluation.dataset.published import published
from vlm3_ros.evaluation.dataset.reading import FrameReader, UsedFrames, read_pairs
from vlm3_ros.evaluation.dataset.settings import DataSettings
from vlm3_ros.evaluation.parts.base import (
    Evaluation,
    Part,
    ProgressBar,
    Tasks,
    evaluate_parts,
    model_keys,
)
from vlm3_ros.evaluation.result import Result, joined_names
from vlm3_ros.evaluation.scores.base import Scores, TaskScores
from vlm3_ros.tasks.correspondence import CORRESPONDENCE
from vlm3_ros.tasks.depth import DEPTH
from vlm3_ros.tasks.objects import OBJECTS
from vlm3_ros.tasks.pose import POSE

TASKS: tuple[paths.Task, ...] = ("depth", "pose", "correspondence")
"""What is scored on data sets of frames; others have conversations about objects."""


@dataclass(frozen=True)
class DataTasks:
    """What a data set is asked for.

    Attributes:
        source: the data set.
        frames: mask of those that are asked about: the held-out ones, if there are any.
        pairs: of its frames.
        numbers: of the pairs among which some are drawn.
        tasks: that are asked.
        left_out: why other tasks are not, by name.
    """

    source: FrameSource
    frames: NDArray[np.bool_]
    pairs: Pairs
    numbers: NDArray[np.int64]
    tasks: tuple[paths.Task, ...]
    left_out: Mapping[str, str]


@dataclass(frozen=True)
class DataEvaluation(Evaluation):
    """Scores on a data set.

    `reader`: knows which frames were used and skipped. `settings`: what was asked.
    """

    reader: FrameReader
    settings: DataSettings


def data_tasks(
    source: FrameSource,
    tasks: Sequence[paths.Task] = (),
    pairs: Path | None = None,
    covisibility: float | None = None,
) -> DataTasks:
    """Decide what a data set is asked for.

    Args:
        source: the data set.
        tasks: that are wanted; empty for all that it serves.
        pairs: list of pairs, see `read_pairs`; None for those of the data set.
        covisibility: least share of each view that the other one shows, without a list; None for
            that of the data set, see `FrameSource.pairs`.

    Raises:
        DatasetError: if the data set does not serve a task that is wanted, or none, or the list of
            pairs is wrong.
    """
    is_for_pairs = not tasks or {"pose", "correspondence"} & set(tasks)
    if pairs is not None and not is_for_pairs:
        raise CommandError("--pairs is for --task pose and match")
    contents = source.contents
    frames = contents.is_held_out | ~contents.is_held_out.any()
    found = read_pairs(pairs, source) if pairs else source.pairs(covisibility)
    numbers = np.arange(len(found))
    if pairs is None:
        numbers = numbers[frames[found.first]]
    missing: dict[str, str] = {}
    if not (contents.has_depth & frames).any():
        missing["depth"] = f"{source.name}: no frame has depth in metres"
    if not len(numbers):
        reason = f"{source.name}: " + (
            "there are no pairs of frames that show enough of the same"
            if (contents.has_pose & frames).any()
            else "it has no pairs, as no pose of a frame is known"
        )
        missing |= {"pose": reason, "correspondence": reason}
    if not source.has_conversations:
        missing["objects"] = f"{source.name}: there are no questions about objects"
    if wrong := [missing[task] for task in tasks if task in missing]:
        raise DatasetError(wrong[0])
    known: tuple[paths.Task, ...] = (*TASKS, "objects")
    served = tuple(task for task in tasks or known if task not in missing)
    left_out: dict[str, str] = {}
    if not (tasks or source.has_conversations):
        left_out = {task: missing[task] for task in TASKS if task in missing}
    if not served:
        raise DatasetError("; ".join(dict.fromkeys(left_out.values())))
    return DataTasks(source, frames, found, numbers, served, left_out)


def evaluate_data(
    engines: Mapping[str, Engine],
    names: Mapping[str, str],
    data: DataTasks,
    settings: DataSettings,
    bar: ProgressBar,
) -> DataEvaluation:
    """Ask about the frames and pairs of a data set, and score the answers.

    Args:
        engines: by the name of their task, at least those of `data.tasks`; tasks may share one.
        names: of their checkpoints.
        data: what is asked for.
        settings: how much is asked.
        bar: shows the progress.

    Raises:
        DatasetError: if no frame can be used.
        EngineError: if no model learned its task.
        NoAnswersError: if too few questions were answered.
    """
    reader, contents = FrameReader(data.source), data.source.contents
    of_pairs = tuple(task for task in (POSE, CORRESPONDENCE) if task.name in data.tasks)

    def depth(engines: Mapping[str, Engine]) -> Part:
        usable = data.frames & contents.has_depth
        with bar("images") as progress:
            return evaluate_depth(engines[DEPTH.name], reader, usable, settings, progress)

    def pairs(engines: Mapping[str, Engine]) -> Part:
        with bar("pairs of images") as progress:
            return evaluate_pairs(
                engines, of_pairs, reader, data.pairs, data.numbers, settings, progress
            )

    def objects(engines: Mapping[str, Engine]) -> Part:
        usable = data.frames & contents.has_objects
        with bar("images with questions") as progress:
            return evaluate_objects(engines[OBJECTS.name], reader, usable, settings, progress)

    kinds: list[tuple[Tasks, Callable[[Mapping[str, Engine]], Part]]] = []
    if "depth" in data.tasks:
        kinds.append(((DEPTH,), depth))
    if of_pairs:
        kinds.append((of_pairs, pairs))
    if "objects" in data.tasks:
        kinds.append(((OBJECTS,), objects))
    evaluation = evaluate_parts(engines, names, kinds)
    content = {**vars(evaluation), "left_out": {**data.left_out, **evaluation.left_out}}
    return DataEvaluation(**content, reader=reader, settings=settings)


def data_result(
    evaluation: DataEvaluation,
    kind: str,
    name: str,
    protocol: str = "",
    with_published: bool = False,
) -> Result:
    """Return the result of an evaluation.

    Args:
        evaluation: on a data set.
        kind: of source, for metrics.json.
        name: of the data set.
        protocol: whose the evaluation is; "" for none.
        with_published: whether the paper's numbers about the scored tasks are shown, too.
    """
    reader = evaluation.reader
    scores: dict[str, TaskScores[Scores]] = {
        **evaluation.scores,
        "frames": TaskScores(UsedFrames(len(reader.used), reader.skipped)),
    }
    if with_published:
        scores["published"] = TaskScores(published(evaluation.scores))
    settings = evaluation.settings
    is_drawn = not protocol or settings.frames is not None or settings.pixels is not None
    source, held_out = reader.source, reader.source.contents.is_held_out
    notes = {
        "the data set": "; ".join(source.notes),
        "held out": f"only {held_out.sum()} held-out frames of {len(held_out)} are asked about"
        if held_out.any()
        else "",
        "skipped": reader.note(),
        **{title: text for part in evaluation.parts for title, text in part.notes().items()},
    }
    return Result(
        models=model_keys(evaluation.names),
        title=f"{joined_names(evaluation.names.values())} on {name}"
        + (f" by {protocol}'s protocol" if protocol else ""),
        source={
            "kind": kind,
            "name": name,
            **({"protocol": protocol} if protocol else {}),
            **({"seed": settings.seed} if is_drawn else {}),
        },
        scores=scores,
        left_out=evaluation.left_out,
        notes={title: text for title, text in notes.items() if text},
        answers=evaluation.answers,
    )
