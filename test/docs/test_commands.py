# SPDX-License-Identifier: Apache-2.0
"""The programs accept the commands in the pages."""

from __future__ import annotations

import argparse
import ast
import re
from itertools import pairwise
from pathlib import Path

import pytest
from pages import PAGES, ROOT, commands, inline_commands, page_name

from vlm3_ros.engines.settings import ModelSettings
from vlm3_ros.parameters import parameter_specs

LAUNCHING = ROOT / "vlm3_ros" / "ros" / "launching.py"


def command_parsers() -> dict[str, argparse.ArgumentParser]:
    pytest.importorskip("transformers")
    from vlm3_ros.cli import build_parser

    actions = build_parser()._actions
    return next(a.choices for a in actions if isinstance(a, argparse._SubParsersAction))


def test_vlm3_accepts_the_fenced_commands(capsys):
    parsers = command_parsers()
    found = fenced("vlm3")
    assert found
    for page, command in found:
        try:
            parsers[command[1]].parse_args(command[2:])
        except SystemExit:
            pytest.fail(f"{page}: {' '.join(command)}: {capsys.readouterr().err}")


def test_vlm3_has_the_options_named_in_the_text():
    parsers = command_parsers()
    found = [
        (page_name(page), command)
        for page in PAGES
        for command in inline_commands(page)
        if command[0] == "vlm3" and command[1:] and re.match(r"[a-z]", command[1])
    ]
    assert found
    for page, (_, name, *words) in found:
        assert name in parsers, page
        known = parsers[name]._option_string_actions
        unknown = [word for word in words if word.startswith("--") and word not in known]
        assert unknown == [], f"{page}: vlm3 {name}"


def test_launch_files_accept_the_arguments():
    found = fenced("ros2", "launch", "vlm3_ros")
    assert found
    for page, command in found:
        file = ROOT / "launch" / command[3]
        given = {word.partition(":=")[0] for word in command[4:] if ":=" in word}
        assert given - launch_arguments(file) == set(), f"{page}: {' '.join(command)}"


@pytest.mark.parametrize(
    "file", sorted((ROOT / "launch").glob("*.launch.py")), ids=lambda f: f.name
)
def test_the_arguments_read_from_source_are_those_of_launch(file):
    launch_sources = pytest.importorskip("launch.launch_description_sources")
    from launch import LaunchContext

    source = launch_sources.PythonLaunchDescriptionSource(str(file))
    description = source.get_launch_description(LaunchContext())
    declared = {argument.name for argument in description.get_launch_arguments()}
    assert launch_arguments(file) == declared


def test_programs_and_parameters_exist():
    programs = (ROOT / "setup.py").read_text()
    runs, settings = fenced("ros2", "run", "vlm3_ros"), fenced("ros2", "param", "set")
    assert runs
    for page, command in runs:
        assert f'"{command[3]} = ' in programs, page
        given = {setting.partition(":=")[0] for flag, setting in pairwise(command) if flag == "-p"}
        assert given - parameters(command[3]) == set(), page
    for page, (*_, node, name, _) in settings:
        assert name in parameters(Path(node).name), page


def fenced(*words: str) -> list[tuple[str, list[str]]]:
    """Page and words of the fenced commands that begin with these words."""
    return [
        (page_name(page), command)
        for page in PAGES
        for command in commands(page)
        if command[: len(words)] == [*words]
    ]


def launch_arguments(file: Path) -> set[str]:
    """The arguments of a launch file, from its source: launch need not be installed."""
    common = {
        target.id: declared(node.value)
        for node in ast.parse(LAUNCHING.read_text()).body
        if isinstance(node, ast.Assign)
        for target in node.targets
        if isinstance(target, ast.Name)
    }
    common["MODEL"] |= {
        name for name, spec in parameter_specs(ModelSettings).items() if spec.launch
    }
    tree = ast.parse(file.read_text())
    used = {node.id for node in ast.walk(tree) if isinstance(node, ast.Name)}
    return declared(tree).union(
        *(names for name, names in common.items() if name in used | {"CAMERA", "PROCESS"})
    )


def declared(tree: ast.AST) -> set[str]:
    return {
        node.args[0].value
        for node in ast.walk(tree)
        if isinstance(node, ast.Call)
        and isinstance(node.func, ast.Name)
        and node.func.id in ("DeclareLaunchArgument", "Setting", "parameter_file")
        and isinstance(node.args[0], ast.Constant)
    }


def parameters(node: str) -> set[str]:
    pytest.importorskip("rclpy")
    pytest.importorskip("transformers")
    from interface_pages import CAMERA_NODES, parameter_class

    from vlm3_ros.nodes.bag_player import BagPlayer

    classes = {**CAMERA_NODES, "bag_player": BagPlayer}
    return {*parameter_specs(parameter_class(classes[node])), "use_sim_time"}
