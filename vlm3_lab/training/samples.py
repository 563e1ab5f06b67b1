# SPDX-License-Identifier: Apache-2.0
"""How scenes become training samples: what every task and every warm-up must define."""

from __future__ import annotations

import dataclasses
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Generic, TypeVar

import numpy as np
from numpy.typing import NDArray
from typing_extensions import override

from vlm3_lab.scenes.view_pairs import GAPS
from vlm3_lab.training.config import DataConfig
from vlm3_lab.training.sources import MixedScenes, Scene, Sources
from vlm3_ros.datasets.views import View, ViewPair
from vlm3_ros.engines.base import Profile
from vlm3_ros.geometry.camera import ImageLimits, UnifiedCamera
from vlm3_ros.tasks.task import ModelViews, model_views

if TYPE_CHECKING:
    # Imports torch; the sources of a run are checked before that.
    from vlm3_lab.training.packing import Packer

Sample = TypeVar("Sample")

_MIRROR_WORLD, _MIRROR_CAMERA = np.diag([1.0, -1, 1, 1]), np.diag([-1.0, 1, 1, 1])


@dataclass(frozen=True)
class ModelInput:
    """How views and questions enter a model."""

    packer: Packer
    profile: Profile
    limits: ImageLimits

    def views(self, *views: View) -> ModelViews:
        """How the views of a sample enter the model, in this order."""
        return model_views(self.profile, self.limits, [view.camera for view in views])

    def unified(self, view: View) -> UnifiedCamera:
        """How a view enters the model."""
        return self.views(view).cameras[0]


class Samples(ABC, Generic[Scene, Sample]):
    """Makes training samples from scenes.

    Attributes:
        wordings: names of the tasks of `vlm3_ros.tasks` that these samples teach. A prompt set
            has a wording for each task that its model knows.
    """

    wordings: ClassVar[tuple[str, ...]]

    def __init__(self, model: ModelInput, data: DataConfig):
        self._model, self._data = model, data

    @classmethod
    def asked(cls, data: DataConfig) -> tuple[str, ...]:
        """Return those of `wordings` that the samples ask for with these settings."""
        return cls.wordings

    @classmethod
    @abstractmethod
    def scenes(cls, sources: Sources) -> MixedScenes[Scene]:
        """The scenes that the samples are made from.

        Raises:
            ConfigError: if no source has any.
        """

    @abstractmethod
    def is_enough(self, scene: Scene) -> bool:
        """Whether a scene shows enough to ask about; otherwise another one is drawn."""

    @abstractmethod
    def variant(self, scene: Scene, repeat: int) -> Scene:
        """The scene that sample number `repeat` is made from, for example a mirrored one."""

    @abstractmethod
    def sample(self, scene: Scene, rng: np.random.Generator) -> Sample:
        """Make one sample."""

    def length(self, sample: Any) -> int:
        """Cost of a sample: batches are made of samples of similar length.

        For packed samples the tokens of the prefix, nearly all of them of the images.
        """
        return len(sample.prefix_ids)


class ViewSamples(Samples[View, Sample]):
    """Samples of single views; every second one is mirrored."""

    @override
    @classmethod
    def scenes(cls, sources: Sources) -> MixedScenes[View]:
        return sources.views("depth", "such frames")

    @override
    def is_enough(self, scene: View) -> bool:
        return bool(np.isfinite(scene.depth).sum() >= self._data.questions)

    @override
    def variant(self, scene: View, repeat: int) -> View:
        return mirrored(scene) if repeat % 2 else scene


class PairSamples(Samples[ViewPair, Sample]):
    """Samples of pairs of views.

    The variants of a pair are: unchanged, mirrored, unchanged again, and mirrored with its views
    exchanged, so that a quarter of all motions is backwards.

    Attributes:
        gaps: how far apart the views of rendered pairs are, see `view_pairs.sample_pair`.
    """

    gaps: ClassVar[tuple[int, int]] = GAPS

    @override
    @classmethod
    def scenes(cls, sources: Sources) -> MixedScenes[ViewPair]:
        return sources.pairs(cls.gaps)

    @override
    def is_enough(self, scene: ViewPair) -> bool:
        return True  # pairs are drawn by what their views share

    @override
    def variant(self, scene: ViewPair, repeat: int) -> ViewPair:
        if repeat % 2:
            scene = dataclasses.replace(
                scene, first=mirrored(scene.first), second=mirrored(scene.second)
            )
        return scene.exchanged() if repeat % 4 == 3 else scene


def sample_pixels(view: View, count: int, rng: np.random.Generator) -> NDArray[np.float64]:
    """Random pixels with a finite depth, shape (n, 2); n is `count` or the number there is."""
    known = np.flatnonzero(np.isfinite(view.depth))
    chosen = rng.choice(known, min(count, len(known)), replace=False)
    rows, columns = np.divmod(chosen, view.depth.shape[1])
    return np.stack([columns, rows], -1).astype(float)


def mirrored(view: View) -> View:
    """The view that the camera would have of a mirrored world, left and right exchanged."""
    camera = view.camera
    objects = tuple(
        dataclasses.replace(
            thing, centre=thing.centre * _MIRROR_WORLD.diagonal()[:3], yaw=-thing.yaw
        )
        for thing in view.objects
    )
    return dataclasses.replace(
        view,
        image=np.ascontiguousarray(view.image[:, ::-1]),
        depth=np.ascontiguousarray(view.depth[:, ::-1]),
        camera=dataclasses.replace(camera, cx=camera.width - 1 - camera.cx),
        # The world's y and the camera's x change sign: a rotation stays one.
        T_world_camera=_MIRROR_WORLD @ view.T_world_camera @ _MIRROR_CAMERA,
        objects=objects,
    )
