# SPDX-License-Identifier: Apache-2.0
"""A declared setting is a command line option and a node parameter without further code."""

from __future__ import annotations

import argparse
from dataclasses import asdict, fields
from typing import get_args

import pytest

from vlm3_ros.cli.model_options import add_model_options
from vlm3_ros.engines.settings import (
    EngineSettings,
    ModelSettings,
    given_settings,
    model_setting,
    task_settings,
)
from vlm3_ros.parameters import parameter_specs
from vlm3_ros.paths import Task, default_model

TASKS: tuple[Task, ...] = get_args(Task)

OTHER = ModelSettings(
    model="other",
    engine="openai",
    dtype="float16",
    device="cuda:1",
    attn_implementation="eager",
    offline=True,
    force_answers=False,
    max_new_tokens=7,
    chunk=3,
    base_url="http://robot:1/v1",
    api_key_variable="KEY",
    profile="profile.json",
    concurrency=2,
    request_timeout=1.5,
    frame_timeout=2.5,
    image_encoding="jpeg",
    jpeg_quality=80,
    token_probabilities=False,
    recording="answers.jsonl",
    record_to="more.jsonl",
    depth_model="a",
    pose_model="b",
    match_model="c",
    object_model="d",
    depth_profile="e",
    pose_profile="f",
    match_profile="g",
    object_profile="h",
    depth_base_url="http://i/v1",
    pose_base_url="http://j/v1",
    match_base_url="http://k/v1",
    object_base_url="http://l/v1",
)
"""Every value differs from its default."""


def parsed(*arguments: str) -> ModelSettings:
    parser = argparse.ArgumentParser()
    add_model_options(parser)
    return given_settings(vars(parser.parse_args(arguments)))


def test_every_setting_is_an_option():
    assert parsed() == ModelSettings()
    defaults, arguments = asdict(ModelSettings()), []
    for name, value in asdict(OTHER).items():
        assert value != defaults[name]
        flag = name.replace("_", "-")
        if isinstance(value, bool):
            arguments.append(f"--{flag}" if value else f"--no-{flag}")
        else:
            arguments += [f"--{flag}", str(value)]
    assert parsed(*arguments) == OTHER


@pytest.mark.parametrize(
    "arguments",
    [["--chunk", "-1"], ["--chunk", "4097"], ["--request-timeout", "0"], ["--dtype", "int8"]],
)
def test_options_refuse_what_parameters_refuse(arguments, capsys):
    with pytest.raises(SystemExit):
        parsed(*arguments)
    assert arguments[0] in capsys.readouterr().err


def test_every_setting_is_a_node_parameter():
    pytest.importorskip("rclpy")
    from vlm3_ros.ros.node_parameters import CameraModelParameters

    parameters = {field.name: field for field in fields(CameraModelParameters)}
    for field in fields(ModelSettings):
        assert parameters[field.name].default == field.default
        assert parameters[field.name].metadata == field.metadata


def test_every_setting_is_described():
    for field, spec in zip(
        fields(ModelSettings), parameter_specs(ModelSettings).values(), strict=True
    ):
        assert spec.description.endswith(".")
        assert spec.group
        assert spec.metavar or spec.choices or isinstance(field.default, bool)
        is_number = isinstance(field.default, (int, float)) and not isinstance(field.default, bool)
        assert (spec.minimum is not None) == is_number


OF_A_TASK = ("model", "profile", "base_url")


def test_settings_that_are_launch_arguments():
    launched = {name for name, spec in parameter_specs(ModelSettings).items() if spec.launch}
    own = {f"{t}_{s}" for t in ("depth", "pose", "match", "object") for s in OF_A_TASK}
    assert launched == {"engine", "recording", "record_to", *OF_A_TASK, *own}


EMBEDDED = {task: str(default_model(task)) for task in TASKS}


@pytest.mark.parametrize(
    ("given", "models"),
    [
        ({}, EMBEDDED.values()),
        ({"model": "m"}, "mmmm"),
        ({"depth_model": "d", "pose_model": "p", "match_model": "c", "object_model": "o"}, "dpco"),
        ({"depth_model": "d"}, ("d", EMBEDDED["pose"], EMBEDDED["pose"], "d")),
        ({"pose_model": "p"}, (EMBEDDED["depth"], "p", "p", EMBEDDED["depth"])),
        ({"match_model": "c"}, (EMBEDDED["depth"], EMBEDDED["pose"], "c", EMBEDDED["depth"])),
        ({"model": "m", "object_model": "o"}, "mmmo"),
        ({"model": "m", "pose_model": "p", "object_model": "o"}, "mppo"),
        ({"model": "m", "depth_model": "d", "match_model": "c"}, "dmcd"),
        ({"engine": "openai"}, ("", "", "", "")),
        ({"engine": "openai", "model": "m", "pose_base_url": "http://p/v1"}, ("m", "", "", "m")),
        ({"model": "m", "pose_base_url": "http://p/v1"}, "mmmm"),  # of no use in this process
    ],
)
def test_the_model_of_each_task(given, models):
    settings = ModelSettings(**given)
    assert [task_settings(settings, task).model for task in TASKS] == list(models)


def test_a_model_of_its_own_does_not_inherit_the_profile_of_another():
    settings = ModelSettings(model="m", profile="x", pose_model="p", object_profile="y")
    profiles = {task: task_settings(settings, task).profile for task in TASKS}
    assert profiles == {"depth": "x", "pose": "", "correspondence": "", "objects": "y"}
    settings = ModelSettings(match_model="c", match_profile="z", pose_profile="y", profile="x")
    profiles = {task: task_settings(settings, task).profile for task in TASKS}
    assert profiles == {"depth": "x", "pose": "y", "correspondence": "z", "objects": "x"}


def test_each_model_may_have_a_server_of_its_own():
    settings = ModelSettings(
        engine="openai", base_url="http://a/v1", pose_base_url="http://b/v1", match_model="c"
    )
    urls = {task: task_settings(settings, task).base_url for task in TASKS}
    a, b = "http://a/v1", "http://b/v1"
    assert urls == {"depth": a, "pose": b, "correspondence": a, "objects": a}


def test_tasks_with_one_model_have_equal_settings_for_one_engine():
    settings = ModelSettings(model="m", depth_model="d", object_model="d", pose_model="m")
    assert len({task_settings(settings, task) for task in TASKS}) == 2
    assert {type(task_settings(settings, task)) for task in TASKS} == {EngineSettings}
    assert task_settings(ModelSettings(chunk=3), "pose").chunk == 3


def test_recordings_of_several_models_do_not_mix():
    settings = ModelSettings(model="m", match_model="c", record_to="a/b.jsonl", recording="b")
    files = {task: task_settings(settings, task).record_to for task in TASKS}
    assert files == {
        "depth": "a/b.jsonl",
        "pose": "a/b.jsonl",
        "correspondence": "a/b-match.jsonl",
        "objects": "a/b.jsonl",
    }
    assert task_settings(settings, "correspondence").recording == "b-match"


def test_the_setting_that_chooses_the_model_of_a_task():
    names = [model_setting(task) for task in TASKS]
    assert names == ["depth_model", "pose_model", "match_model", "object_model"]
    assert set(names) <= {field.name for field in fields(ModelSettings)}
    assert model_setting("planning") == "model"
