# SPDX-License-Identifier: Apache-2.0
"""Text answers from the ground truth, like those of a model without errors.

With these answers the whole path, from images, questions and texts to parsers, geometry and
metrics, must have no errors except rounding.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Protocol, get_args

import numpy as np
from numpy.typing import NDArray

from vlm3_lab.scenes.seen_objects import (
    SeenObject,
    hour_of,
    quantity_of,
    relation_holds,
    seen_objects,
)
from vlm3_ros.datasets.views import View
from vlm3_ros.engines.base import Answer, Engine, Profile
from vlm3_ros.engines.images import check_images, image_digest
from vlm3_ros.engines.recorded import RecordingEngine
from vlm3_ros.geometry.camera import (
    Fit,
    ImageLimits,
    PinholeCamera,
    UnifiedCamera,
)
from vlm3_ros.geometry.epipolar import transferred_pixels
from vlm3_ros.geometry.images import unify_image
from vlm3_ros.geometry.motion import inverse, motion_parts, seen_motion
from vlm3_ros.geometry.text_coordinates import pixels_from_text, text_box, text_coordinates
from vlm3_ros.language.prompts import PromptSet, load_prompt_set
from vlm3_ros.language.wordings.correspondence import CorrespondenceWording, correspondence_answer
from vlm3_ros.language.wordings.depth import DepthWording, depth_answer
from vlm3_ros.language.wordings.objects import (
    BOX,
    ObjectsWording,
    hour_answer,
    metres_answer,
    object_question,
    phrasings,
    relation_answer,
)
from vlm3_ros.language.wordings.pose import PoseWording, pose_answers, pose_questions
from vlm3_ros.paths import Task
from vlm3_ros.tasks.depth import ask_depth, uniform_grid
from vlm3_ros.tasks.objects import length_scale
from vlm3_ros.tasks.task import model_view
from vlm3_ros.tasks.two_view import ask_pair

UNKNOWN = "I cannot tell."
SAME_DEPTH = 0.05
"""Relative difference of depth above which a point is hidden from the second camera."""


class TrueFrame(Protocol):
    """An image and its ground truth; `vlm3_lab.scenes.View` is one.

    `image`: rectified RGB, (height, width, 3), uint8. `depth`: (height, width), metres along Z, not
    finite or 0 where unknown, inf in the sky. `T_world_camera`: (4, 4), of the optical frame.
    """

    @property
    def image(self) -> NDArray[np.uint8]: ...
    @property
    def depth(self) -> NDArray[np.float32]: ...
    @property
    def camera(self) -> PinholeCamera: ...
    @property
    def T_world_camera(self) -> NDArray[np.float64]: ...


def exact_prompts() -> PromptSet:
    """The wording of vlm3-short with enough decimals to make rounding negligible."""
    prompts = load_prompt_set("vlm3-short")
    pose = prompts[PoseWording]
    wordings = {
        **prompts.wordings,
        "depth": replace(prompts[DepthWording], decimals=9),
        "pose": PoseWording(
            *(replace(part, decimals=9) for part in (pose.distance, pose.direction, pose.rotation))
        ),
        "objects": replace(prompts[ObjectsWording], decimals=9),
    }
    return PromptSet("exact", 10**7, wordings)


class TruthEngine:
    """An `vlm3_ros.engines.base.Engine` that knows the true answers about given frames.

    Unknown values (a pixel without depth; a pixel that the second image hides or does not show)
    are answered by `UNKNOWN`, which cannot be read.
    """

    warning: str | None = None

    def __init__(
        self,
        frames: Iterable[TrueFrame],
        prompts: PromptSet | None = None,
        focal: float | None = 300.0,
        fit: Fit = "scale",
        longest_side: int | None = None,
        name: str = "truth",
    ) -> None:
        self.name = name
        prompts = prompts or exact_prompts()
        self.profile = Profile(focal, fit, prompts, longest_side=longest_side)
        self.limits = ImageLimits(32, 1024, 2**24)
        self._frames: dict[str, tuple[TrueFrame, UnifiedCamera]] = {}
        self._things: dict[int, dict[tuple[int, ...], SeenObject]] = {}
        for frame in frames:
            unified = model_view(self.profile, self.limits, frame.camera)
            self._frames[image_digest(unify_image(frame.image, unified))] = frame, unified

    def ask(
        self,
        images: Sequence[NDArray[np.uint8]],
        questions: Sequence[str],
        answer_template: str | None = None,
    ) -> list[Answer]:
        if not questions:
            return []
        check_images(images, self.limits)
        known = [self._frames[image_digest(image)] for image in images]
        return [Answer(self._answer(known, question)) for question in questions]

    def memory_bytes(self) -> int | None:
        return None

    def close(self) -> None:
        pass

    def _answer(self, known: Sequence[tuple[TrueFrame, UnifiedCamera]], question: str) -> str:
        prompts = self.profile.prompts
        if len(known) == 1:
            answer = self._object_answer(*known[0], question)
            if answer is not None:
                return answer
            return self._depth_answer(*known[0], _point(prompts[DepthWording].question, question))
        if "pose" in prompts.wordings:
            asked = pose_questions(prompts[PoseWording])
            if question in asked:
                return self._pose_answers(known)[asked.index(question)]
        template = prompts[CorrespondenceWording].question
        return self._match_answer(known, _point(template, question))

    def _depth_answer(
        self, frame: TrueFrame, unified: UnifiedCamera, text_xy: NDArray[np.float64]
    ) -> str:
        depth = _depth_at(frame, self._pixel(unified, text_xy))
        if not np.isfinite(depth):
            return UNKNOWN
        return depth_answer(
            self.profile.prompts[DepthWording], float(depth / unified.metric_depth(1.0))
        )

    def _object_answer(self, frame: TrueFrame, unified: UnifiedCamera, question: str) -> str | None:
        """None if the question is not about objects."""
        if "objects" not in self.profile.prompts.wordings:
            return None
        wording, text_range = self.profile.prompts[ObjectsWording], self.profile.prompts.text_range
        asked = {**wording.relations, **wording.quantities, "direction": wording.direction}
        for name, texts in asked.items():
            boxes = _boxes(phrasings(texts)[0], wording.region, question)
            if boxes is None:
                continue
            assert isinstance(frame, View)
            if id(frame) not in self._things:
                self._things[id(frame)] = {
                    tuple(text_box(thing.box, unified, text_range)): thing
                    for thing in seen_objects(frame)
                }
            of_box = self._things[id(frame)]
            about = [of_box[box] for box in boxes]
            if name in wording.relations:
                answer = relation_answer(wording, name, relation_holds(name, *about))
            elif name in wording.quantities:
                metres = quantity_of(name, *about)
                assert metres is not None
                answer = metres_answer(wording, metres / length_scale(name, unified), name)
            else:
                hour = hour_of(*about)
                assert hour is not None
                answer = hour_answer(wording, hour)
            return object_question(wording, answer, boxes, text_range)
        return None

    def _pose_answers(self, known: Sequence[tuple[TrueFrame, UnifiedCamera]]) -> tuple[str, ...]:
        (first, unified), (second, _) = known
        parts = motion_parts(
            seen_motion(inverse(first.T_world_camera) @ second.T_world_camera, unified)
        )
        return pose_answers(
            self.profile.prompts[PoseWording],
            parts.distance,
            parts.direction,
            parts.yaw_pitch_roll_deg,
        )

    def _match_answer(
        self,
        known: Sequence[tuple[TrueFrame, UnifiedCamera]],
        text_xy: NDArray[np.float64],
    ) -> str:
        (first, unified1), (second, unified2) = known
        pixel1 = self._pixel(unified1, text_xy)
        depth1 = _depth_at(first, pixel1)
        T_cam1_cam2 = inverse(first.T_world_camera) @ second.T_world_camera
        camera2 = second.camera
        pixel2 = transferred_pixels(T_cam1_cam2, first.camera, pixel1, depth1, camera2)
        size = (camera2.width - 1, camera2.height - 1)
        if not ((pixel2 >= 0) & (pixel2 <= size)).all():
            return UNKNOWN
        point = inverse(T_cam1_cam2) @ [*first.camera.unproject(pixel1, depth1), 1]
        if abs(_depth_at(second, pixel2) / point[2] - 1) > SAME_DEPTH:
            return UNKNOWN
        view, text_range = unified2.view, self.profile.prompts.text_range
        xy = text_coordinates(unified2.to_view(pixel2), view.width, view.height, text_range)
        return correspondence_answer(self.profile.prompts[CorrespondenceWording], xy, text_range)

    def _pixel(self, unified: UnifiedCamera, text_xy: NDArray[np.float64]) -> NDArray[np.float64]:
        view = unified.view
        seen = pixels_from_text(text_xy, view.width, view.height, self.profile.prompts.text_range)
        # Grids have half pixels: keep them exact, so that they round as in the question.
        return np.round(unified.to_source(seen), 3)


def for_all_tasks(engine: Engine) -> dict[str, Engine]:
    """One engine for every task."""
    return dict.fromkeys(get_args(Task), engine)


def record_truth(
    path: Path,
    frames: Sequence[TrueFrame],
    *,
    grid: tuple[int, int] = (16, 12),
    match_grid: tuple[int, int] = (8, 6),
    furthest: int = 1,
) -> None:
    """Write a recording for `engine: recorded`.

    It holds depth on a uniform grid of every frame, and pose and matches, on another uniform grid,
    of every two frames that are at most `furthest` apart, in both orders.
    """
    engine = RecordingEngine(TruthEngine(frames), path)
    for index, frame in enumerate(frames):
        ask_depth(engine, frame.image, frame.camera, uniform_grid(frame.camera, *grid))
        for other in frames[index + 1 : index + 1 + furthest]:
            for one, two in ((frame, other), (other, frame)):
                pixels = uniform_grid(one.camera, *match_grid)
                ask_pair(engine, (one.image, two.image), (one.camera, two.camera), pixels)
    engine.close()


def _depth_at(frame: TrueFrame, pixel: NDArray[np.float64]) -> float:
    u, v = np.rint(pixel).astype(int)
    depth = float(frame.depth[v, u])
    return depth if depth > 0 else float("nan")


def _point(template: str, question: str) -> NDArray[np.float64]:
    """Return the coordinates that a question names."""
    pattern = re.escape(template)
    for name in ("x", "y"):
        pattern = pattern.replace(re.escape(f"{{{name}}}"), rf"(?P<{name}>\d+)")
    found = re.fullmatch(pattern, question)
    assert found, question
    return np.array([int(found["x"]), int(found["y"])], dtype=float)


def _boxes(template: str, region: str, question: str) -> list[tuple[int, ...]] | None:
    """Return the boxes that a question names; None if it does not follow the template."""
    where = re.escape(region)
    for name in BOX:
        where = where.replace(re.escape(name), r"(\d+)")
    pattern = re.escape(template)
    for name in ("{a}", "{b}"):
        pattern = pattern.replace(re.escape(name), where)
    found = re.fullmatch(pattern, question)
    if not found:
        return None
    numbers = [int(group) for group in found.groups()]
    return [tuple(numbers[i : i + 4]) for i in range(0, len(numbers), 4)]
