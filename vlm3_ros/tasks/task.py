# SPDX-License-Identifier: Apache-2.0
"""A task: what can be asked of a model, and the one way in which every task is asked.

Each task is one object in the module of its name: `depth.DEPTH`, `pose.POSE`,
`correspondence.CORRESPONDENCE`, `objects.OBJECTS`. It turns what is asked into prompts, and
answers into a result; for training it words the answers that are true.
"""

from __future__ import annotations

import logging
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any, ClassVar, Generic, NamedTuple, Protocol, TypeVar

import numpy as np
from numpy.typing import ArrayLike, NDArray

from vlm3_ros.engines.base import Answer, Engine, EngineError, Profile
from vlm3_ros.engines.profiles import authors_checkpoint_for
from vlm3_ros.engines.settings import model_setting
from vlm3_ros.geometry.camera import (
    ImageLimits,
    PinholeCamera,
    UnifiedCamera,
    limit_longest_side,
    size_remark,
    unify_focal,
)
from vlm3_ros.geometry.images import unify_image
from vlm3_ros.geometry.text_coordinates import (
    Rounding,
    source_pixels_from_text,
    source_text_coordinates,
)
from vlm3_ros.language.prompts import PromptSet, Wording
from vlm3_ros.language.templates import PromptError

logger = logging.getLogger(__name__)

_returned_remarks: set[str] = set()

ImagePair = tuple[NDArray[np.uint8], NDArray[np.uint8]]
CameraPair = tuple[PinholeCamera, PinholeCamera]

W = TypeVar("W", bound=Wording)
Asked = TypeVar("Asked")
Truth = TypeVar("Truth")
Result = TypeVar("Result")


@dataclass(frozen=True)
class ModelViews:
    """How images enter a model, in the order in which the chat shows them.

    `cameras`: of each image, source and view. `text_range`, `text_rounding`: of the prompt set.
    """

    cameras: tuple[UnifiedCamera, ...]
    text_range: int
    text_rounding: Rounding = "floor"

    def text_coordinates(self, pixels: ArrayLike, image: int = 0) -> NDArray[np.int64]:
        """Convert pixels of a source image, shape (..., 2), to text coordinates.

        Raises:
            GeometryError: if a pixel does not lie in the image.
        """
        unified = self.cameras[image]
        return source_text_coordinates(pixels, unified, self.text_range, self.text_rounding)

    def source_pixels(self, coordinates: ArrayLike, image: int = 0) -> NDArray[np.float64]:
        """Convert text coordinates, shape (..., 2), to pixels of a source image."""
        unified = self.cameras[image]
        return source_pixels_from_text(coordinates, unified, self.text_range, self.text_rounding)


class Prompt(NamedTuple):
    """One question to a model.

    `answer_template`: the form that the answer must keep, with {value} for its number; None: free
    text.
    """

    text: str
    answer_template: str | None = None


class Task(ABC, Generic[W, Asked, Truth, Result]):
    """One kind of question about images; without state.

    Attributes:
        wording: class of the task's part of a prompt set; its `task` is the task's name.
        title: completes "the model did not learn ...".
    """

    wording: type[W]
    title: ClassVar[str]

    @property
    def name(self) -> str:
        """Name of the task, as in prompt sets."""
        return self.wording.task

    @abstractmethod
    def prompts(self, wording: W, views: ModelViews, asked: Asked) -> list[Prompt]:
        """Word what is asked.

        Raises:
            GeometryError: if a place that is asked about does not lie in its image.
        """

    @abstractmethod
    def read(
        self, wording: W, views: ModelViews, asked: Asked, answers: Sequence[Answer]
    ) -> Result:
        """Read the answers to `prompts`, metric and in pixels of the source images."""

    @abstractmethod
    def true_answers(
        self, wording: W, views: ModelViews, asked: Asked, truth: Truth
    ) -> Sequence[str]:
        """Word the answers to `prompts` that a model learns to give; the inverse of `read`.

        Raises:
            PromptError: if a true value cannot be worded.
        """


class Model(Protocol):
    """A model whose profile is known, loaded or not. An `Engine` is one."""

    @property
    def name(self) -> str:
        """Name of the model in messages."""
        ...

    @property
    def profile(self) -> Profile:
        """What it was trained for."""
        ...


def learned_wording(model: Model, task: Task[W, Any, Any, Any]) -> W:
    """Return the wording with which a model learned a task.

    Raises:
        EngineError: if it did not learn the task.
    """
    try:
        return model.profile.prompts[task.wording]
    except PromptError as error:
        example = authors_checkpoint_for(task.name)
        raise EngineError(
            f"{model.name} did not learn {task.title}: its {error}; set "
            f"{model_setting(task.name)} to a checkpoint that did"
            + (f", such as {example}" if example else "")
        ) from None


def model_views(
    profile: Profile,
    limits: ImageLimits,
    cameras: Sequence[PinholeCamera],
    view_focal: float | None = None,
) -> ModelViews:
    """Choose how images enter a model; see `model_view`.

    Args:
        profile: of the checkpoint.
        limits: on image sizes.
        cameras: intrinsics of each image.
        view_focal: unified focal length at which the images enter the model, px; None for the
            checkpoint's own. See `unify_focal`.

    Raises:
        GeometryError: if no size of an image fits the limits.
    """
    unified = [model_view(profile, limits, camera, view_focal) for camera in cameras]
    return ModelViews(tuple(unified), profile.prompts.text_range, profile.prompts.text_rounding)


def model_view(
    profile: Profile,
    limits: ImageLimits,
    camera: PinholeCamera,
    view_focal: float | None = None,
) -> UnifiedCamera:
    """Choose how one image enters a model: its size by focal length or longest side (paper 3.1).

    Args:
        profile: of the checkpoint.
        limits: on image sizes.
        camera: intrinsics of the image.
        view_focal: see `model_views`; without effect if the profile has no focal length.

    Raises:
        GeometryError: if no size of the image fits the limits.
    """
    if profile.focal is not None:
        return unify_focal(camera, profile.focal, limits, profile.fit, view_focal, profile.axes)
    assert profile.longest_side is not None
    return limit_longest_side(camera, profile.longest_side, limits, profile.fit)


def new_size_remark(unified: UnifiedCamera, limits: ImageLimits) -> str:
    """Return the `size_remark` of an image; empty if this process has returned it before."""
    remark = size_remark(unified, limits)
    if not remark or remark in _returned_remarks:
        return ""
    _returned_remarks.add(remark)
    return remark


def ask(
    engine: Engine,
    images: Sequence[NDArray[np.uint8]],
    cameras: Sequence[PinholeCamera],
    task: Task[W, Asked, Any, Result],
    asked: Asked,
    view_focal: float | None = None,
) -> Result:
    """Ask one task, see `ask_together`."""
    result: Result
    (result,) = ask_together(engine, images, cameras, [(task, asked)], view_focal)
    return result


def ask_together(
    engine: Engine,
    images: Sequence[NDArray[np.uint8]],
    cameras: Sequence[PinholeCamera],
    requests: Sequence[tuple[Task[Any, Any, Any, Any], Any]],
    view_focal: float | None = None,
) -> list[Any]:
    """Ask several tasks about the same images, in one pass per form of answer.

    Args:
        engine: that learned the tasks.
        images: rectified RGB, shape (camera.height, camera.width, 3) each, uint8.
        cameras: intrinsics of each image.
        requests: tasks, and what each one is asked.
        view_focal: see `model_views`.

    Returns:
        The result of each task.

    Raises:
        GeometryError: if an image does not fit its camera or the engine's limits, or a place that
            is asked about does not lie in its image.
        EngineError: if the model did not learn a task, or cannot answer.
    """
    wordings = [learned_wording(engine, task) for task, _ in requests]
    views = model_views(engine.profile, engine.limits, cameras, view_focal)
    for remark in filter(None, (new_size_remark(c, engine.limits) for c in views.cameras)):
        logger.warning("%s: %s", engine.name, remark)
    seen = [
        unify_image(image, unified) for image, unified in zip(images, views.cameras, strict=True)
    ]
    prompts = [
        task.prompts(wording, views, asked)
        for wording, (task, asked) in zip(wordings, requests, strict=True)
    ]
    answers = iter(_answers(engine, seen, [prompt for part in prompts for prompt in part]))
    return [
        task.read(wording, views, asked, list(islice(answers, len(part))))
        for wording, (task, asked), part in zip(wordings, requests, prompts, strict=True)
    ]


def true_pairs(
    task: Task[W, Asked, Truth, Any],
    prompts: PromptSet,
    views: ModelViews,
    asked: Asked,
    truth: Truth,
) -> list[tuple[str, str]]:
    """Return questions with their true answers, as a model learns them.

    Args:
        task: whose questions.
        prompts: of the checkpoint.
        views: how the images enter the model.
        asked: as the task takes it.
        truth: what is true of it, metric and in pixels of the source images.

    Raises:
        GeometryError: if a place that is asked about does not lie in its image.
        PromptError: if the prompt set does not hold the task, or a true value cannot be worded.
    """
    wording = prompts[task.wording]
    questions = task.prompts(wording, views, asked)
    answers = task.true_answers(wording, views, asked, truth)
    return [(prompt.text, answer) for prompt, answer in zip(questions, answers, strict=True)]


def _answers(
    engine: Engine, images: Sequence[NDArray[np.uint8]], prompts: Sequence[Prompt]
) -> list[Answer]:
    """Ask prompts of the same answer template in one pass; free text comes last."""
    indices: dict[str | None, list[int]] = {}
    for i, prompt in enumerate(prompts):
        indices.setdefault(prompt.answer_template, []).append(i)
    answers: dict[int, Answer] = {}
    for template in sorted(indices, key=lambda text: (text is None, text)):
        asked = indices[template]
        texts = [prompts[i].text for i in asked]
        answers.update(zip(asked, engine.ask(images, texts, template), strict=True))
    return [answers[i] for i in range(len(prompts))]
