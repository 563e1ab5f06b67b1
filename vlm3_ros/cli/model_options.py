# SPDX-License-Identifier: Apache-2.0
"""Options of every command that asks a model, made from the engine settings."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import fields
from pathlib import Path
from typing import Any, get_args

from rich.console import Console

from vlm3_ros.cli.arguments import number_between, positive_number
from vlm3_ros.engines.base import Engine
from vlm3_ros.engines.settings import EngineSettings, chosen_settings
from vlm3_ros.parameters import ParameterSpec
from vlm3_ros.paths import Task


def add_model_options(parser: argparse.ArgumentParser) -> None:
    """Add an option for each engine setting."""
    groups: dict[str, argparse._ArgumentGroup] = {}
    for setting in fields(EngineSettings):
        spec: ParameterSpec = setting.metadata["spec"]
        if spec.group not in groups:
            groups[spec.group] = parser.add_argument_group(spec.group)
        _add_option(groups[spec.group], setting.name, setting.default, spec)


def _add_option(
    group: argparse._ArgumentGroup, name: str, default: Any, spec: ParameterSpec
) -> None:
    flag = f"--{name.replace('_', '-')}"
    if isinstance(default, bool):
        group.add_argument(
            flag,
            action=argparse.BooleanOptionalAction,
            default=default,
            help=spec.description.replace("%", "%%"),
        )
        return
    kind: Any = type(default)
    if spec.minimum is not None and spec.maximum is not None:
        kind = number_between(kind, spec.minimum, spec.maximum)
    group.add_argument(
        flag,
        type=kind,
        default=default,
        choices=spec.choices or None,
        metavar=spec.metavar or None,
        help=spec.description.replace("%", "%%")
        + (" (default: %(default)s)" if default != "" else ""),
    )


def add_focal_option(parser: argparse.ArgumentParser) -> None:
    """Add --focal, which trades accuracy for speed."""
    parser.add_argument(
        "--focal",
        type=positive_number,
        metavar="PX",
        help="unified focal length at which images enter the model; a smaller one is faster and "
        "coarser (default: the checkpoint's own)",
    )


def model_name(model: str) -> str:
    """Name of a model in results: a hub id as given, a folder without its path."""
    path = Path(model)
    return path.resolve().name if path.is_dir() else model


def model_label(options: argparse.Namespace) -> str:
    """Names in results of the models that the options choose, for depth and for pairs."""
    chosen = (chosen_settings(vars(options), task) for task in get_args(Task))
    return " and ".join(dict.fromkeys(model_name(s.model or s.engine) for s in chosen))


@contextmanager
def loaded_engines(options: argparse.Namespace) -> Iterator[tuple[Engine, Engine]]:
    """Load the engines for depth and for pairs: two if embedded models answer, else the same one.

    Raises:
        EngineError: if one cannot be loaded.
    """
    with loaded_engine(options) as engine:
        if chosen_settings(vars(options)) == chosen_settings(vars(options), "pairs"):
            yield engine, engine
        else:
            with loaded_engine(options, "pairs") as pair_engine:
                yield engine, pair_engine


@contextmanager
def loaded_engine(options: argparse.Namespace, task: Task = "depth") -> Iterator[Engine]:
    """Load the engine that the model options choose; close it at the end.

    Raises:
        EngineError: if it cannot be loaded.
    """
    from vlm3_ros.engines.load import load_engine

    with Console(stderr=True).status("loading") as status:
        engine = load_engine(chosen_settings(vars(options), task), status.update)
    try:
        yield engine
    finally:
        engine.close()
