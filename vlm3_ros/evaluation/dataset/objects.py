# SPDX-License-Identifier: Apache-2.0
"""Questions about objects in a data set's own words, as in SpatialRGPT-Bench.

A checkpoint that answers free questions is asked in these words, with its own names of boxes. One
that learned a single wording is asked in that one, and a choice ("which is taller?") as the
relation of the first object. Scores: see `evaluation.metrics.objects`.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from vlm3_ros.datasets.omissions import Omissions
from vlm3_ros.datasets.views import Conversation, View
from vlm3_ros.engines.base import Engine
from vlm3_ros.evaluation.answer_counts import check_answered, total
from vlm3_ros.evaluation.dataset.reading import FrameReader, chosen
from vlm3_ros.evaluation.dataset.settings import DataSettings, by_few_groups
from vlm3_ros.evaluation.metrics.objects import DIRECTION, Asked, relation_pairs
from vlm3_ros.evaluation.parts.objects import ObjectsPart
from vlm3_ros.evaluation.pictures.object import ObjectFrame
from vlm3_ros.evaluation.scores.base import (
    Progress,
    best_median_worst,
    no_progress,
    score_by_group,
)
from vlm3_ros.evaluation.scores.objects import (
    ObjectScores,
    ScoredObjects,
    object_scores,
    scored_objects,
)
from vlm3_ros.geometry.camera import GeometryError
from vlm3_ros.language.answers import AnswerError
from vlm3_ros.language.wordings.objects import QUANTITIES
from vlm3_ros.tasks.conversations import CONVERSATIONS, true_value
from vlm3_ros.tasks.objects import OBJECTS, ObjectAnswers, ask_objects
from vlm3_ros.tasks.task import ask, learned_wording


def evaluate_objects(
    engine: Engine,
    reader: FrameReader,
    usable: NDArray[np.bool_],
    settings: DataSettings,
    progress: Progress = no_progress,
) -> ObjectsPart:
    """Ask all questions about frames whose category is known, and score the answers.

    Questions that cannot be scored are left out, counted and named.

    Args:
        engine: answers.
        reader: of the frames.
        usable: mask of the frames among which some are drawn.
        settings: what is asked.
        progress: takes the number of frames done, and of all.

    Raises:
        DatasetError: if nothing can be asked.
        EngineError: if the engine did not learn about objects.
        NoAnswersError: if too few questions were answered, see `AnswerCounts.is_void`.
    """
    in_own_words = learned_wording(engine, OBJECTS).any_form
    omissions = Omissions()
    scored: list[ScoredObjects] = []
    frames = chosen(usable, settings.frames, settings.seed)
    for done, index in enumerate(frames, 1):
        view = reader.view(index)
        name = reader.source.frame_name(index)
        known = _with_truth(view.conversations, name, omissions) if view is not None else []
        if view is not None and known:
            try:
                answers = _ask(engine, view, [one for one, _ in known], in_own_words)
            except GeometryError as error:
                reader.skip(name, str(error))
            else:
                asked = [one for _, one in known]
                scored.append(scored_objects(index, view.kind, asked, answers))
                reader.used.add(index)
        progress(done, len(frames))
    if not scored:
        if omissions:
            reader.skip("questions", f"questions cannot be scored: {omissions}")
        for note in reader.source.notes:
            reader.skip(note, note)
        raise reader.nothing("question about objects", "there is none")
    check_answered({OBJECTS.name: total(view.answers for view in scored)})
    scores = by_few_groups(score_by_group(scored, object_scores))
    remarks = {
        "wording": "the data set's, with the checkpoint's names of boxes"
        if in_own_words
        else "the checkpoint's own; choices are asked as relations of the first object",
        "questions without a score": str(omissions),
        "kinds without a question": ", ".join(_absent(scores.overall)).replace("_", " "),
    }
    return ObjectsPart(
        scores,
        f"answers about objects, {scores.overall.questions} questions",
        lambda: _frames(reader, scores.overall),
        {title: text for title, text in remarks.items() if text},
    )


def _with_truth(
    conversations: Sequence[Conversation], name: str, omissions: Omissions
) -> list[tuple[Conversation, Asked]]:
    """Read the true answers; count the questions for which that is impossible."""
    known = []
    for one in conversations:
        question = one.question
        if question.meaning is None:
            omissions.add(
                f"the category {question.category!r} is unknown, or asks about another number of "
                "regions"
                if question.category
                else "the entry has no category, so no rule reads its answer",
                name,
            )
            continue
        try:
            truth = true_value(question, one.answer)
        except AnswerError:
            omissions.add(
                f"the true answer cannot be read as one of {question.category}",
                f"{name}: {one.answer!r}",
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


def _frames(reader: FrameReader, scores: ObjectScores) -> list[ObjectFrame]:
    """The views with the most, the median and the fewest right answers."""
    source = reader.source
    return [
        ObjectFrame(
            f"{rank}: {source.frame_name(scored.index)}, {scored.success:.0%} right",
            source.read(scored.index).image,
            scored.asked,
        )
        for rank, scored in best_median_worst(scores.views, lambda view: -view.success).items()
    ]
