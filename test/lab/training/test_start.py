# SPDX-License-Identifier: Apache-2.0
"""How a checkpoint that a run starts from is asked."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Callable
from pathlib import Path

import pytest

from vlm3_lab.training.checkpoint import TinyShape, build_checkpoint
from vlm3_lab.training.config import (
    DataConfig,
    OptimiserConfig,
    ProfileConfig,
    TrainConfig,
    TrainingError,
    WarmupConfig,
    load_config,
)
from vlm3_lab.training.start import starting_checkpoint
from vlm3_ros.engines.base import Profile
from vlm3_ros.engines.profiles import PROFILE_FILE, read_profile, shipped_profile
from vlm3_ros.language.prompts import load_prompt_set
from vlm3_ros.paths import share_folder
from vlm3_ros.tasks.correspondence import CORRESPONDENCE
from vlm3_ros.tasks.depth import DEPTH
from vlm3_ros.tasks.pose import POSE

SHAPE = {"vision_hidden": 32, "vision_depth": 2, "vision_heads": 2, "hidden": 64, "layers": 2}
RECIPES = {
    "paper_depth": "vlm3-depth",
    "paper_pose": "vlm3-pose",
    "paper_correspondence": "vlm3-corr",
    "paper_objects": "vlm3-object",
}
PAIRS = DataConfig(tasks={"pairs": 1.0})
MATCHES = DataConfig(tasks={"pairs": 1.0}, pose=False)
CORR = ProfileConfig(None, 1024, prompts="vlm3-corr")


def _shipped(name: str) -> Profile:
    """What a model learns whose profile is a shipped one."""
    return dataclasses.replace(shipped_profile(name), checkpoint="")


def _recipe(name: str, *settings: str) -> TrainConfig:
    path = share_folder() / "config" / "training" / f"{name}.yaml"
    return dataclasses.replace(load_config(path, settings), model="", shape=SHAPE)


@pytest.fixture
def model(tmp_path: Path) -> Callable[..., str]:
    """Build a model, with a vlm3.json if it is given a profile."""

    def build(name: str, profile: Profile | None = None) -> str:
        folder = tmp_path / name
        made = profile or Profile(60.0, "scale", load_prompt_set("vlm3-short"))
        build_checkpoint(folder, TinyShape(**SHAPE), made)
        if profile is None:
            (folder / PROFILE_FILE).unlink()
        return str(folder)

    return build


@pytest.mark.parametrize(("recipe", "name"), RECIPES.items())
def test_the_recipes_of_the_paper_teach_the_conventions_of_the_released_checkpoints(
    tmp_path: Path, recipe: str, name: str
) -> None:
    start = starting_checkpoint(_recipe(recipe), tmp_path)
    assert start.profile == _shipped(name) == read_profile(tmp_path)


@pytest.mark.parametrize("recipe", RECIPES)
def test_the_recipes_of_the_paper_can_teach_the_paper_s_wording(
    tmp_path: Path, recipe: str
) -> None:
    paper = shipped_profile("vlm3")
    profile = starting_checkpoint(_recipe(recipe, "profile.name=vlm3"), tmp_path / "a").profile
    assert (profile.focal, profile.prompts.text_range) == (paper.focal, 2000)
    assert profile.prompts.wordings.items() <= paper.prompts.wordings.items()
    profile = starting_checkpoint(_recipe(recipe, "profile.prompts=vlm3"), tmp_path / "b").profile
    assert profile.prompts.wordings.items() <= paper.prompts.wordings.items()
    named = shipped_profile(RECIPES[recipe])
    assert (profile.focal, profile.longest_side) == (named.focal, named.longest_side)


@pytest.mark.parametrize("recipe", RECIPES)
def test_the_recipes_of_the_paper_can_teach_coordinates_last(tmp_path: Path, recipe: str) -> None:
    profile = starting_checkpoint(_recipe(recipe, "profile.prompts=vlm3-last"), tmp_path).profile
    assert profile.prompts.wordings.items() <= load_prompt_set("vlm3-last").wordings.items()
    named = shipped_profile(RECIPES[recipe])
    assert set(profile.prompts.wordings) >= set(named.prompts.wordings)
    assert (profile.focal, profile.longest_side) == (named.focal, named.longest_side)


def test_a_model_is_asked_as_its_file_then_its_name_then_the_configuration_says(
    model: Callable[..., str], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    config = TrainConfig(profile=ProfileConfig(96.0, prompts="vlm3-short"))

    def profile_of(folder: str) -> Profile:
        caplog.clear()
        start = starting_checkpoint(dataclasses.replace(config, model=folder), tmp_path / "start")
        assert start.folder == Path(folder)
        return start.profile

    own = Profile(80.0, "pad", load_prompt_set("vlm3-short").without("pose"))
    assert profile_of(model("one/VLM3-depth", own)) == own
    assert "focal length of 80 px" in caplog.text
    assert "(by its vlm3.json)" in caplog.text
    assert profile_of(model("two/VLM3-depth")) == _shipped("vlm3-depth")
    assert "focal length of 1000 px" in caplog.text
    assert "(by the checkpoint's name)" in caplog.text
    assert profile_of(model("three/other")).focal == 96.0
    assert "(as configured, as it has no vlm3.json)" in caplog.text


def test_a_model_keeps_its_wording_when_it_learns_more(
    model: Callable[..., str], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    config = TrainConfig(model("VLM3-depth"), data=PAIRS, profile=ProfileConfig(prompts="vlm3"))
    start = starting_checkpoint(config, tmp_path / "start")
    known, learned = shipped_profile("vlm3-depth"), start.profile.prompts
    assert learned.wordings == {
        DEPTH.name: known.prompts.wordings[DEPTH.name],
        **{task.name: load_prompt_set("vlm3")[task.wording] for task in (POSE, CORRESPONDENCE)},
    }
    assert (learned.text_range, learned.text_rounding) == (2000, known.prompts.text_rounding)
    assert start.profile.max_new_tokens == known.max_new_tokens
    assert "correspondence, pose as configured" in caplog.text


def test_a_pose_checkpoint_that_is_asked_no_matches_learns_no_new_wording(
    model: Callable[..., str], tmp_path: Path
) -> None:
    motions = dataclasses.replace(PAIRS, matches=0)
    start = starting_checkpoint(TrainConfig(model("VLM3-pose"), data=motions), tmp_path / "start")
    assert start.profile == _shipped("vlm3-pose")


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"data": PAIRS, "profile": CORR}, "teaches pose, for which prompt set 'vlm3-corr' has no"),
        (
            {"data": PAIRS, "profile": ProfileConfig(None, 1024)},
            "pose: metric answers need a unified focal length",
        ),
        (
            {
                "data": MATCHES,
                "profile": CORR,
                "pair_warmup": WarmupConfig(optimiser=OptimiserConfig(steps=1)),
            },
            "pair_warmup: metric answers need",
        ),
        (
            {"profile": ProfileConfig(750.0, prompts="vlm3-pose")},
            "teaches depth, for which prompt set 'vlm3-pose' has no questions",
        ),
    ],
)
def test_what_a_profile_cannot_teach_is_named(
    tmp_path: Path, changes: dict[str, object], named: str
) -> None:
    config = dataclasses.replace(TrainConfig(shape=SHAPE), **changes)
    with pytest.raises(TrainingError, match=named):
        starting_checkpoint(config, tmp_path)
    # Before a download, too.
    with pytest.raises(TrainingError, match=named):
        starting_checkpoint(dataclasses.replace(config, model="owner/name"), tmp_path)


@pytest.mark.parametrize(
    ("name", "data", "named"),
    [
        ("VLM3-corr", PAIRS, "pose: metric answers need a unified focal length"),
        (
            "VLM3-object",
            MATCHES,
            r"in \[0, 1000\), and prompt set 'vlm3' has \[0, 2000",
        ),
    ],
)
def test_what_a_checkpoint_cannot_learn_as_it_is_asked_is_named(
    model: Callable[..., str], tmp_path: Path, name: str, data: DataConfig, named: str
) -> None:
    with pytest.raises(TrainingError, match=named):
        starting_checkpoint(TrainConfig(model(name), data=data), tmp_path / "start")
