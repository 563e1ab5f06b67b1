# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import dataclasses
import re
from typing import Any

import numpy as np
import pytest

from vlm3_lab.scenes.views import sample_camera
from vlm3_lab.studies.ablation.runs import (
    ARMS,
    FINDINGS,
    MEAN_AREA,
    ArmDense,
    ArmQuestions,
    arm_camera,
    arm_config,
    pack_copies,
    run_ablation,
)
from vlm3_lab.training.checkpoint import (
    TinyShape,
    build_checkpoint,
    build_processor,
    build_tokenizer,
)
from vlm3_lab.training.config import (
    ConfigError,
    DataConfig,
    OptimiserConfig,
    SourceConfig,
    TrainConfig,
)
from vlm3_lab.training.packing import IGNORE
from vlm3_lab.training.samples import ModelInput
from vlm3_lab.training.streams import SampleStream, model_input
from vlm3_ros.engines.base import Profile
from vlm3_ros.engines.processor import image_limits
from vlm3_ros.engines.profiles import write_profile
from vlm3_ros.geometry.camera import PinholeCamera, unify_focal
from vlm3_ros.geometry.images import unify_image
from vlm3_ros.language.prompts import load_prompt_set
from vlm3_ros.language.wordings.depth import DepthWording, parse_depth

ARM = {arm.name: arm for arm in ARMS}
PROFILE = Profile(96.0, "pad", load_prompt_set("vlm3-short"))
DATA = DataConfig(questions=3, repeats=2)


@pytest.fixture(scope="module")
def processor() -> Any:
    return build_processor(build_tokenizer(PROFILE.prompts))


@pytest.fixture(scope="module")
def model(processor: Any) -> ModelInput:
    return model_input(processor, PROFILE)


def test_every_arm_belongs_to_a_finding_and_differs_from_the_first_in_one_thing() -> None:
    assert {name for finding in FINDINGS for name in finding.arms} == set(ARM)
    first = dataclasses.asdict(ARMS[0])
    for arm in ARMS[1:]:
        own = dataclasses.asdict(arm)
        choices = ("images", "pixels", "weights", "prompts")
        assert sum(own[choice] != first[choice] for choice in choices) == 1


def test_the_arm_that_others_are_compared_with_comes_first() -> None:
    order = [arm.name for arm in ARMS]
    for finding in FINDINGS:
        assert min(finding.arms, key=order.index) == finding.arms[0]


def test_an_unresized_image_enters_the_same_for_every_lens(processor: Any) -> None:
    limits = image_limits(processor)
    image = np.random.default_rng(0).integers(0, 255, (192, 256, 3)).astype(np.uint8)
    views = []
    for hfov in (45, 100):
        camera = arm_camera(ARM["as_they_are"], PinholeCamera.from_hfov(256, 192, hfov))
        unified = unify_focal(camera, PROFILE.focal, limits, PROFILE.fit)
        assert unified.metric_depth(3.0) == pytest.approx(3.0, rel=0.02)
        area = unified.content_width * unified.content_height
        assert area == pytest.approx(MEAN_AREA * PROFILE.focal**2, rel=0.03)
        views.append(unify_image(image, unified))
    assert np.array_equal(*views)


def test_both_ways_show_the_model_the_same_mean_number_of_pixels() -> None:
    rng = np.random.default_rng(0)
    cameras = [sample_camera(rng) for _ in range(4000)]
    areas = [c.width / c.fx * c.height / c.fy for c in cameras]
    assert np.mean(areas) == pytest.approx(MEAN_AREA, rel=0.05)


def test_all_arms_draw_the_same_scenes_and_the_same_answers(model: ModelInput) -> None:
    streams = {
        name: SampleStream(ArmQuestions(arm, model, DATA), DATA, 2) for name, arm in ARM.items()
    }
    text, arrows, as_it_is = (
        next(iter(streams[name].samples_of(4))) for name in ("vlm3", "arrow", "as_they_are")
    )
    ((image, pairs),) = text
    assert len(pairs) == len(arrows) == 3
    for (marked, [(question, answer)]), (coordinates, expected) in zip(arrows, pairs, strict=True):
        assert answer == expected
        assert re.findall(r"\d", question) == []
        assert re.findall(r"\d", coordinates)
        assert 0 < (marked != image).any(axis=-1).mean() < 0.05
    ((own_image, own_pairs),) = as_it_is
    assert own_image.shape != image.shape
    depths = [
        [parse_depth(answer, PROFILE.prompts[DepthWording]) for _, answer in asked]
        for asked in (own_pairs, pairs)
    ]
    # Metres, both: the decimals of answers, and sides of whole pixels.
    assert depths[0] == pytest.approx(depths[1], rel=0.02, abs=0.11)


def test_batches_of_all_arms_hold_as_many_labelled_pixels(model: ModelInput) -> None:
    answered = {}
    for name in ("vlm3", "arrow"):
        stream = SampleStream(ArmQuestions(ARM[name], model, DATA), DATA, 2)
        samples = [next(iter(stream.samples_of(index))) for index in (1, 2)]
        batch = pack_copies(model.packer, samples)
        answered[name] = int((batch["labels"] != IGNORE).sum())
        assert len(batch["image_grid_thw"]) == (2 if name == "vlm3" else 6)
    assert answered["vlm3"] == answered["arrow"]


def test_dense_depth_of_unresized_images_is_metric(model: ModelInput) -> None:
    data = DataConfig()
    stream = SampleStream(ArmDense(ARM["as_they_are"], model, data), data, 2)
    log_depth = next(iter(stream.samples_of(0))).log_depth.exp()
    view = stream.scene(0)
    known = view.depth[np.isfinite(view.depth)]
    assert np.nanmedian(log_depth) == pytest.approx(np.median(known), rel=0.25)


def test_seeds_change_weights_and_scenes_of_both_parts() -> None:
    config = TrainConfig()
    first, second = (arm_config(config, ARM["size"], seed) for seed in (0, 1))
    assert first == dataclasses.replace(
        config,
        data=dataclasses.replace(config.data, weights="size"),
        warmup=dataclasses.replace(
            config.warmup, data=dataclasses.replace(config.warmup.data, weights="size")
        ),
    )
    assert len({first.seed, second.seed}) == 2
    assert len({first.data.seed, second.data.seed}) == 2
    assert len({first.warmup.data.seed, second.warmup.data.seed}) == 2


@pytest.mark.parametrize(
    ("sources", "problem"),
    [
        ({}, "at least two sources"),
        ({"a": SourceConfig(scenes=2), "b": SourceConfig(weight=0.0)}, "at least two sources"),
        ({"a": SourceConfig(scenes=2), "b": SourceConfig()}, "data.sources.b has no size"),
    ],
)
def test_weights_by_size_of_endless_sources_are_refused(tmp_path, sources, problem) -> None:
    config = dataclasses.replace(TrainConfig(), data=DataConfig(sources=sources))
    with pytest.raises(ConfigError, match=problem):
        run_ablation(config, [ARM["size"]], tmp_path, 1, 2)


def test_a_model_that_learned_another_wording_is_not_reworded(tmp_path) -> None:
    """Its own vlm3.json would be used, and both arms would be asked alike."""
    model = tmp_path / "model"
    shape = TinyShape(vision_hidden=32, vision_depth=2, hidden=32, layers=2, position_grid=8)
    build_checkpoint(model, shape, PROFILE)
    write_profile(model, Profile(96.0, "pad", load_prompt_set("vlm3-last")))
    config = TrainConfig(model=str(model), optimiser=OptimiserConfig(steps=2))
    with pytest.raises(ConfigError, match=r"arm last: .* has learned a wording already"):
        run_ablation(config, [ARM["last"]], tmp_path / "out", 1, 2)


def test_a_recipe_with_other_tasks_is_refused(tmp_path) -> None:
    config = TrainConfig(data=DataConfig(tasks={"depth": 1.0, "pairs": 0.5}))
    with pytest.raises(ConfigError, match="all arms learn depth alone"):
        run_ablation(config, [ARM["vlm3"]], tmp_path, 1, 2)
