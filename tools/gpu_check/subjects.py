# SPDX-License-Identifier: Apache-2.0
"""The models and the frame that the check asks about."""

from __future__ import annotations

from dataclasses import replace
from functools import cache

import numpy as np

from gpu_check.extent import Extent
from vlm3_lab.scenes.kinds import sample_scene
from vlm3_lab.scenes.views import render_view, sample_pose
from vlm3_lab.studies.bench import architectures
from vlm3_lab.studies.bench.measuring import Workload
from vlm3_ros.datasets.views import View
from vlm3_ros.engines.checkpoint import preflight
from vlm3_ros.engines.model import LoadedModel, load_model
from vlm3_ros.engines.processor import image_limits
from vlm3_ros.engines.settings import Dtype, EngineSettings
from vlm3_ros.geometry.camera import PinholeCamera
from vlm3_ros.geometry.images import unify_image
from vlm3_ros.language.prompts import load_prompt_set
from vlm3_ros.language.wordings.depth import DepthWording
from vlm3_ros.paths import default_model
from vlm3_ros.tasks.depth import DEPTH, uniform_grid
from vlm3_ros.tasks.task import model_views

CAMERA = PinholeCamera.from_hfov(320, 240, 60.0)
"""At the authors' focal length its image has 972 visual tokens."""

architectures.SHAPES["tiny"] = {
    "text_config": {
        **architectures.SHAPES["4b"]["text_config"],
        "hidden_size": 64,
        "intermediate_size": 96,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
    },
    "vision_config": {
        **architectures.SHAPES["4b"]["vision_config"],
        "depth": 3,
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_heads": 2,
        "out_hidden_size": 64,
        "deepstack_visual_indexes": [0, 1],
    },
}


def embedded_model(settings: EngineSettings) -> LoadedModel:
    """Load vlm3-tiny.

    Raises:
        EngineError: if it does not fit this machine.
    """
    settings = replace(settings, model=str(default_model()))
    return load_model(settings, preflight(settings))


def random_model(extent: Extent, settings: EngineSettings, wording: str = "vlm3") -> LoadedModel:
    """Build the model with random weights, to be asked in a wording.

    Raises:
        EngineError: if it does not fit this machine.
    """
    loaded = architectures.random_model(extent.shape, settings)
    profile = replace(
        loaded.profile,
        prompts=load_prompt_set(wording),
        focal=extent.focal or loaded.profile.focal,
    )
    return replace(loaded, profile=profile)


def engine_settings(dtype: Dtype) -> EngineSettings:
    """Settings of every model of the check: on a GPU if there is one."""
    return EngineSettings(dtype=dtype, offline=True)


def frame(loaded: LoadedModel, columns: int, rows: int) -> Workload:
    """Return an image as it enters a model, and questions about the depth of a grid of pixels."""
    view = _view()
    views = model_views(loaded.profile, image_limits(loaded.processor), [view.camera])
    wording = loaded.profile.prompts[DepthWording]
    prompts = DEPTH.prompts(wording, views, uniform_grid(view.camera, columns, rows))
    image = unify_image(view.image, views.cameras[0])
    return Workload(image, [prompt.text for prompt in prompts])


@cache
def _view() -> View:
    rng = np.random.default_rng(0)
    scene = sample_scene(rng, "room")
    return render_view(scene, CAMERA, sample_pose(scene, rng), rng)
