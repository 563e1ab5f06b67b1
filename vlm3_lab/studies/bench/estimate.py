# SPDX-License-Identifier: Apache-2.0
"""What a frame costs by computation: tokens, FLOPs and least times, without weights."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np

from vlm3_lab.studies.bench.calls import Call, CallPasses, call_passes, engine_call, tree_tokens
from vlm3_lab.studies.bench.work import DeviceSpeed, ModelWork
from vlm3_ros.engines.base import Profile
from vlm3_ros.engines.chunking import MAX_CHUNK
from vlm3_ros.engines.processor import encode_questions, image_limits
from vlm3_ros.geometry.camera import PinholeCamera
from vlm3_ros.geometry.motion import motion_from_parts
from vlm3_ros.language.wordings.objects import QUANTITIES, RELATIONS, SIZES
from vlm3_ros.tasks.correspondence import CORRESPONDENCE
from vlm3_ros.tasks.depth import DEPTH, uniform_grid
from vlm3_ros.tasks.objects import OBJECTS, Box, Direction, Quantity, Question, Relation
from vlm3_ros.tasks.pose import POSE
from vlm3_ros.tasks.task import ModelViews, Task, model_views

FOLLOWED = (3.5, 2.3, 1.0)
"""Mean number of partial numbers of a forced answer that are extended, by step.

Measured with vlm3-tiny, whose answers have one decimal, on 16x12 pixels of unseen procedural views.
A surer model follows fewer. Each further decimal is one more symbol of the greedy number.
"""

METRES = 2.345678
"""Example of a depth or length, as long as indoor ones are."""


class Example(NamedTuple):
    """What a task is asked in a frame, and answers that are as long as usual.

    Attributes:
        task: that is asked.
        images: number of images.
        asked, truth: as the task takes them.
    """

    task: Task[Any, Any, Any, Any]
    images: int
    asked: Callable[[ModelViews], Any]
    truth: Callable[[ModelViews], Any]


@dataclass(frozen=True)
class TaskEstimate:
    """The computed cost of one task in a frame.

    Attributes:
        wording: name of the prompt set.
        task: name of the task.
        sizes: (width, height) of each image when it enters the model, px.
        calls: of the engine, one per form of answers.
        passes: of each call.
        apart_flops: of the questions' own tokens if common beginnings were read for each question.
    """

    wording: str
    task: str
    sizes: tuple[tuple[int, int], ...]
    calls: tuple[Call, ...]
    passes: tuple[CallPasses, ...]
    apart_flops: float

    @property
    def questions(self) -> int:
        """Number of questions."""
        return sum(len(call.own) for call in self.calls)

    @property
    def own_tokens(self) -> float:
        """Mean number of tokens per question after the prefix."""
        return sum(call.own_tokens for call in self.calls) / self.questions

    @property
    def tree_tokens(self) -> float:
        """The same if common beginnings of questions count once."""
        return sum(tree_tokens(call.own) for call in self.calls) / self.questions

    @property
    def steps(self) -> int:
        """Number of decoding steps, of all chunks."""
        return sum(len(passes.decoding) for passes in self.passes)

    @property
    def weight_bytes(self) -> float:
        """Bytes of weights that all passes read."""
        return sum(one.weight_bytes for passes in self.passes for one in passes.all)

    @property
    def flops(self) -> float:
        """FLOPs of all passes."""
        return sum(one.flops for passes in self.passes for one in passes.all)

    def part_flops(self, part: str) -> float:
        """Return the FLOPs of a part: one of the fields of `CallPasses`."""
        return sum(one.flops for passes in self.passes for one in getattr(passes, part))

    def seconds(self, speed: DeviceSpeed) -> float:
        """Return the least time on a device."""
        return sum(passes.seconds(speed) for passes in self.passes)


def examples(grid: tuple[int, int], match_grid: tuple[int, int]) -> Mapping[str, Example]:
    """Return what is asked in a frame, by the name of the task.

    Args:
        grid: columns and rows of pixels whose depth is asked.
        match_grid: of those whose matches are asked.
    """

    def pixels(columns: int, rows: int) -> Callable[[ModelViews], Any]:
        return lambda views: uniform_grid(views.cameras[0].source, columns, rows)

    def depths(views: ModelViews) -> Any:
        metres = float(views.cameras[0].metric_depth(METRES))
        return np.full(grid[0] * grid[1], metres)

    motion = motion_from_parts(0.48, np.array([0.6, 0.0, 0.8]), np.array([-3.9, -0.9, 0.6]))
    return {
        "depth": Example(DEPTH, 1, pixels(*grid), depths),
        "pose": Example(POSE, 2, lambda views: None, lambda views: motion),
        "correspondence": Example(CORRESPONDENCE, 2, pixels(*match_grid), pixels(*match_grid)),
        "objects": Example(OBJECTS, 1, _object_questions, _object_truth),
    }


def estimate_task(
    work: ModelWork,
    processor: Any,
    profile: Profile,
    camera: PinholeCamera,
    example: Example,
    *,
    view_focal: float | None = None,
    chunk: int = MAX_CHUNK,
    force_answers: bool = True,
    answer_tokens: int | None = None,
) -> TaskEstimate:
    """Compute the cost of a task in a frame.

    Args:
        work: of the model.
        processor: of the model, or one that encodes like it.
        profile: what the model was trained for.
        camera: of the image.
        example: what is asked.
        view_focal: see `model_views`.
        chunk: most questions answered at a time.
        force_answers: see the setting of that name.
        answer_tokens: length of answers in free text, with their end; None: as the wording has it.

    Raises:
        GeometryError: if no size of the image fits the model.
        EngineError: if the wording cannot be encoded.
    """
    task = example.task
    views = model_views(profile, image_limits(processor), [camera] * example.images, view_focal)
    sizes = tuple((unified.view.width, unified.view.height) for unified in views.cameras)
    images = [np.zeros((height, width, 3), np.uint8) for width, height in sizes]
    wording = profile.prompts[task.wording]
    asked = example.asked(views)
    prompts = task.prompts(wording, views, asked)
    answers = task.true_answers(wording, views, asked, example.truth(views))
    calls = []
    for template in dict.fromkeys(prompt.answer_template for prompt in prompts):
        chosen = [i for i, prompt in enumerate(prompts) if prompt.answer_template == template]
        encoded = encode_questions(processor, images, [prompts[i].text for i in chosen])
        call = engine_call(
            processor,
            encoded,
            [answers[i] for i in chosen],
            template if force_answers else None,
            followed(getattr(wording, "decimals", 0)),
        )
        if answer_tokens is not None and not call.is_forced:
            call = replace(call, decoded=((1.0,) * (answer_tokens - 1),) * len(chosen))
        calls.append(call)
    passes = [call_passes(work, call, chunk) for call in calls]
    apart = [call_passes(work, call, chunk, as_tree=False) for call in calls]
    return TaskEstimate(
        profile.prompts.name,
        task.name,
        sizes,
        tuple(calls),
        tuple(passes),
        apart_flops=sum(one.flops for call in apart for one in call.own),
    )


def followed(decimals: int) -> tuple[float, ...]:
    """Return how many partial numbers of a forced answer are extended, by step.

    Args:
        decimals: of the answers.
    """
    symbols = 1 + (1 + decimals if decimals else 0)
    return (*FOLLOWED, *(1.0,) * symbols)[:symbols]


def _object_questions(views: ModelViews) -> list[Question]:
    """All questions about two objects."""
    source = views.cameras[0].source
    sides = np.array([source.width, source.height] * 2) - 1.0
    a, b = (_box(sides, *shares) for shares in ((0.1, 0.2, 0.4, 0.8), (0.55, 0.3, 0.9, 0.7)))
    return [
        *(Relation(relation, a, b) for relation in RELATIONS),
        *(Quantity(name, a, None if name in SIZES else b) for name in QUANTITIES),
        Direction(a, b),
    ]


def _box(sides: Any, *shares: float) -> Box:
    left, top, right, bottom = (sides * shares).tolist()
    return left, top, right, bottom


def _object_truth(views: ModelViews) -> list[Any]:
    return [
        True if isinstance(question, Relation) else METRES if isinstance(question, Quantity) else 2
        for question in _object_questions(views)
    ]
