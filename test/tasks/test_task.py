# SPDX-License-Identifier: Apache-2.0
"""What all tasks share: they are asked in one way, and reading inverts training."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from truth import TruthEngine, exact_prompts

from vlm3_ros.engines.base import Answer, EngineError, Profile
from vlm3_ros.geometry.camera import GeometryError, ImageLimits, PinholeCamera
from vlm3_ros.geometry.motion import motion_from_parts
from vlm3_ros.language.wordings import WORDINGS
from vlm3_ros.tasks.correspondence import CORRESPONDENCE
from vlm3_ros.tasks.depth import DEPTH, ask_depth
from vlm3_ros.tasks.objects import OBJECTS, Direction, Quantity, Relation
from vlm3_ros.tasks.pose import POSE
from vlm3_ros.tasks.task import ask_together, model_views, true_pairs

CAMERA = PinholeCamera(160, 120, 150, 140, 80, 60)
LIMITS = ImageLimits(32, 1024, 2**24)
PIXELS = np.array([[3.0, 4.0], [100.0, 90.0]])
BOXES = (1.0, 2.0, 40.0, 50.0), (60.0, 2.0, 140.0, 110.0)
QUESTIONS = [Relation("left", *BOXES), Quantity("width", BOXES[1]), Direction(*BOXES)]

TASKS: dict[str, Any] = {task.name: task for task in (DEPTH, POSE, CORRESPONDENCE, OBJECTS)}

ASKED: dict[str, tuple[int, Any, Any, str]] = {
    "depth": (1, PIXELS, np.array([1.5, 30.0]), "depth"),
    "pose": (2, None, motion_from_parts(0.4, (0.6, 0, 0.8), (5, -3, 2)), "T_cam1_cam2"),
    "correspondence": (2, PIXELS, PIXELS + np.array([7, 5]), "pixels2"),
    "objects": (1, QUESTIONS, [True, 0.75, 4], "values"),
}
"""Of each task: number of images, what is asked, what is true, the field of the result."""


@pytest.mark.parametrize("name", WORDINGS)
@pytest.mark.parametrize("fit", ["scale", "pad"])
def test_true_answers_are_read_back(name: str, fit: Any) -> None:
    task = TASKS[name]
    images, asked, truth, field = ASKED[name]
    prompts = exact_prompts()
    views = model_views(Profile(300.0, fit, prompts), LIMITS, [CAMERA] * images)
    pairs = true_pairs(task, prompts, views, asked, truth)
    wording = prompts[task.wording]
    assert [text for text, _ in pairs] == [p.text for p in task.prompts(wording, views, asked)]
    result = task.read(wording, views, asked, [Answer(answer) for _, answer in pairs])
    np.testing.assert_allclose(np.array(getattr(result, field)), truth, rtol=1e-6, atol=1e-4)


class CountingEngine(TruthEngine):
    """Counts passes and their answer templates."""

    def __init__(self) -> None:
        super().__init__([])
        self.passes: list[tuple[int, str | None]] = []

    def ask(
        self,
        images: Sequence[NDArray[np.uint8]],
        questions: Sequence[str],
        answer_template: str | None = None,
    ) -> list[Answer]:
        self.passes.append((len(questions), answer_template))
        return [Answer(f"{len(self.passes)}.{i}") for i in range(len(questions))]


IMAGE = np.zeros((120, 160, 3), np.uint8)


def test_questions_of_one_answer_template_share_a_pass_and_keep_their_order() -> None:
    engine = CountingEngine()
    objects, depth = ask_together(
        engine, [IMAGE], [CAMERA], [(OBJECTS, QUESTIONS), (DEPTH, PIXELS)]
    )
    prompts = engine.profile.prompts
    assert engine.passes == [
        (2, prompts[DEPTH.wording].answer),
        (1, prompts[OBJECTS.wording].metres),
        (2, None),
    ]
    assert objects.texts == ("3.0", "2.0", "3.1")
    assert depth.texts == ("1.0", "1.1")


def test_an_image_of_very_many_tokens_is_said_once(caplog: pytest.LogCaptureFixture) -> None:
    """As the commands say it; nodes have it in their own log."""
    engine = CountingEngine()
    engine.limits = LIMITS
    engine.profile = replace(engine.profile, focal=1000.0)
    wide = PinholeCamera(160, 120, 30.5, 30.5, 80, 60)
    for _ in range(2):
        ask_depth(engine, IMAGE, wide, PIXELS)
    (line,) = caplog.messages
    assert "truth: an image of 138x126 degrees enters the model as" in line
    assert "tokens, so answers are slow: lower unified_focal, or crop the image" in line


def test_nothing_asked_needs_no_pass() -> None:
    engine = CountingEngine()
    assert ask_depth(engine, IMAGE, CAMERA, []).depth.shape == (0,)
    assert engine.passes == []
    with pytest.raises(GeometryError):
        ask_depth(engine, IMAGE[1:], CAMERA, [])


def test_a_checkpoint_without_a_task_is_named_with_its_prompt_set() -> None:
    engine = CountingEngine()
    prompts = engine.profile.prompts.without("depth")
    engine.profile = replace(engine.profile, prompts=prompts)
    message = (
        "truth did not learn metric depth: its prompt set 'exact' has no depth questions; set "
        "depth_model to a checkpoint that did, such as facebook/VLM3-depth"
    )
    with pytest.raises(EngineError) as refused:
        ask_depth(engine, IMAGE, CAMERA, PIXELS)
    assert str(refused.value) == message
    with pytest.raises(EngineError, match="did not learn metric depth"):
        ask_together(engine, [IMAGE] * 2, [CAMERA] * 2, [(POSE, None), (DEPTH, PIXELS)])
    assert engine.passes == []
