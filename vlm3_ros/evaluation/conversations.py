# SPDX-License-Identifier: Apache-2.0
"""SpatialRGPT-Bench: questions about objects in a data set's own words.

A checkpoint that answers free questions is asked in these words, with its own names of boxes. One
that learned a single wording is asked in that one, and a choice ("which is taller?") as the
relation of the first object. Scores: see `evaluation.metrics.objects`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from vlm3_ros.datasets.spatialrgpt import LeftOut, SpatialRgptFile
from vlm3_ros.datasets.views import Conversation, View
from vlm3_ros.engines.base import Engine
from vlm3_ros.errors import DatasetError
from vlm3_ros.evaluation.answer_counts import check_answered, total
from vlm3_ros.evaluation.metrics.objects import DIRECTION, Asked, relation_pairs
from vlm3_ros.evaluation.result import Result
from vlm3_ros.evaluation.scores.base import (
    Progress,
    TaskScores,
    no_progress,
    score_by_group,
    score_samples,
)
from vlm3_ros.evaluation.scores.objects import (
    ObjectScores,
    ScoredObjects,
    object_scores,
    scored_objects,
)
from vlm3_ros.evaluation.tolerance import TolerantEngine
from vlm3_ros.geometry.camera import GeometryError
from vlm3_ros.language.answers import AnswerError
from vlm3_ros.language.wordings.objects import QUANTITIES
from vlm3_ros.tasks.conversations import CONVERSATIONS, true_value
from vlm3_ros.tasks.objects import OBJECTS, ObjectAnswers, ask_objects
from vlm3_ros.tasks.task import ask, learned_wording


@dataclass(frozen=True)
class EvaluatedConversations:
    """Scores of a benchmark, and what a reader must know about them, by title."""

    scores: TaskScores[ObjectScores]
    notes: Mapping[str, str]


def evaluate_conversations(
    engine: Engine, source: SpatialRgptFile, progress: Progress = no_progress
) -> EvaluatedConversations:
    """Ask all questions whose category is known, and score the answers.

    Images that cannot be read and questions that cannot be asked or scored are left out, counted
    and named.

    Args:
        engine: answers.
        source: images with questions.
        progress: takes the number of images done, and of all.

    Raises:
        DatasetError: if nothing is left to ask.
        EngineError: if the engine did not learn about objects.
        NoAnswersError: if too few questions were answered, see `AnswerCounts.is_void`.
    """
    in_own_words = learned_wording(engine, OBJECTS).any_form
    engine = TolerantEngine(engine)
    skipped = LeftOut()

    def score(index: int) -> ScoredObjects | None:
        where = f"{source.name}, entry {index + 1}"
        try:
            view = source.read(index)
        except DatasetError as error:
            skipped.add("the image cannot be used", str(error))
            return None
        known = _with_truth(view.conversations, where, source.left_out)
        if not known:
            return None
        try:
            answers = _ask(engine, view, [one for one, _ in known], in_own_words)
        except GeometryError as error:
            skipped.add("the image does not fit the model", f"{where}: {error}")
            return None
        return scored_objects(index, view.kind, [asked for _, asked in known], answers)

    count = len(source.contents)
    scored = [one for one in score_samples(range(count), count, score, progress) if one]
    notes = {
        "images left out": str(skipped),
        "questions left out": str(source.left_out),
        "wording": "the data set's, with the checkpoint's names of boxes"
        if in_own_words
        else "the checkpoint's own; choices are asked as relations of the first object",
    }
    if not scored:
        reasons = "; ".join(filter(None, (notes["images left out"], notes["questions left out"])))
        raise DatasetError(f"{source.name}: no question can be asked: {reasons}")
    check_answered({"objects": total(view.answers for view in scored)})
    scores = score_by_group(scored, object_scores)
    notes["kinds without a question"] = ", ".join(_absent(scores.overall))
    return EvaluatedConversations(scores, {title: text for title, text in notes.items() if text})


def conversations_result(name: str, data: str, evaluated: EvaluatedConversations) -> Result:
    """Return the result of an evaluation.

    Args:
        name: of the checkpoint.
        data: name of the data set.
        evaluated: by `evaluate_conversations`.
    """
    return Result(
        models={"model": name},
        title=f"{name} on {data} by the categories of SpatialRGPT-Bench",
        source={"kind": "spatialrgpt", "name": data, "protocol": "SpatialRGPT-Bench"},
        scores={"objects": evaluated.scores},
        answers={"objects": evaluated.scores.overall.answers},
        notes=evaluated.notes,
    )


def _with_truth(
    conversations: Sequence[Conversation], where: str, left_out: LeftOut
) -> list[tuple[Conversation, Asked]]:
    """Read the true answers; count the questions for which that is impossible."""
    known = []
    for one in conversations:
        question = one.question
        if question.meaning is None:
            left_out.add(
                f"the category {question.category!r} is unknown, or asks about another number of "
                "regions",
                where,
            )
            continue
        try:
            truth = true_value(question, one.answer)
        except AnswerError:
            left_out.add(
                f"the true answer cannot be read as one of {question.category}",
                f"{where}: {one.answer!r}",
            )
            continue
        known.append((one, Asked(question.meaning, truth, np.nan, question.is_choice)))
    return known


def _ask(
    engine: Engine, view: View, conversations: Sequence[Conversation], in_own_words: bool
) -> ObjectAnswers:
    questions = [one.question for one in conversations]
    if in_own_words:
        return ask(engine, [view.image], [view.camera], CONVERSATIONS, questions)
    meanings = [question.meaning for question in questions if question.meaning is not None]
    return ask_objects(engine, view.image, view.camera, meanings)


def _absent(scores: ObjectScores) -> list[str]:
    """Kinds of the benchmark that no question is of."""
    asked = {**scores.model.relations, **scores.model.quantities}
    return [kind for kind in (*relation_pairs(), *QUANTITIES, DIRECTION) if kind not in asked]
