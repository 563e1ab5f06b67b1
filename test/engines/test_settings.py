# SPDX-License-Identifier: Apache-2.0
"""A declared setting is a command line option and a node parameter without further code."""

from __future__ import annotations

import argparse
from dataclasses import asdict, fields

import pytest

from vlm3_ros.cli.model_options import add_model_options
from vlm3_ros.engines.settings import EngineSettings, given_settings
from vlm3_ros.parameters import parameter_specs

OTHER = EngineSettings(
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
    recording="answers.jsonl",
    record_to="more.jsonl",
)
"""Every value differs from its default."""


def parsed(*arguments: str) -> EngineSettings:
    parser = argparse.ArgumentParser()
    add_model_options(parser)
    return given_settings(vars(parser.parse_args(arguments)))


def test_every_setting_is_an_option():
    assert parsed() == EngineSettings()
    defaults, arguments = asdict(EngineSettings()), []
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
    for field in fields(EngineSettings):
        assert parameters[field.name].default == field.default
        assert parameters[field.name].metadata == field.metadata


def test_every_setting_is_described():
    for field, spec in zip(
        fields(EngineSettings), parameter_specs(EngineSettings).values(), strict=True
    ):
        assert spec.description.endswith(".")
        assert spec.group
        assert spec.metavar or spec.choices or isinstance(field.default, bool)
        is_number = isinstance(field.default, (int, float)) and not isinstance(field.default, bool)
        assert (spec.minimum is not None) == is_number


def test_settings_that_are_launch_arguments():
    launched = {name for name, spec in parameter_specs(EngineSettings).items() if spec.launch}
    assert launched == {"engine", "model", "base_url", "profile", "recording", "record_to"}
