# SPDX-License-Identifier: Apache-2.0
"""Options of every command that asks a model, made from the engine settings."""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import fields
from typing import Any

from rich.console import Console

from vlm3_ros.cli.arguments import number_between, positive_number
from vlm3_ros.engines.base import Engine
from vlm3_ros.engines.settings import (
    EngineSettings,
    ModelSettings,
    given_settings,
    model_name,
    model_setting,
    profile_setting,
    task_settings,
)
from vlm3_ros.errors import CommandError
from vlm3_ros.evaluation.result import joined_names
from vlm3_ros.parameters import ParameterSpec
from vlm3_ros.paths import Task, default_model


def add_model_options(
    parser: argparse.ArgumentParser,
    table: type[EngineSettings] = ModelSettings,
    own_defaults: Mapping[str, str] | None = None,
) -> None:
    """Add an option for each setting of a table.

    Args:
        parser: of the command.
        table: `EngineSettings` is that of a single model.
        own_defaults: settings that the command chooses if the option is missing (None), with the
            words of the help for what it chooses.
    """
    groups: dict[str, argparse._ArgumentGroup] = {}
    for setting in fields(table):
        spec: ParameterSpec = setting.metadata["spec"]
        if spec.group not in groups:
            groups[spec.group] = parser.add_argument_group(spec.group)
        default = (own_defaults or {}).get(setting.name)
        _add_option(groups[spec.group], setting.name, setting.default, spec, default)


def _add_option(
    group: argparse._ArgumentGroup,
    name: str,
    default: Any,
    spec: ParameterSpec,
    own_default: str | None,
) -> None:
    """Add an option; its default is None if `own_default` says what the command chooses."""
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
        default=default if own_default is None else None,
        choices=spec.choices or None,
        metavar=spec.metavar or None,
        help=spec.description.replace("%", "%%")
        + (f" (default: {own_default or '%(default)s'})" if default != "" else ""),
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


def model_label(options: argparse.Namespace, *tasks: Task) -> str:
    """Names in results of the models that the options choose for some tasks."""
    chosen = (task_settings(given_settings(vars(options)), task) for task in tasks)
    return joined_names(model_name(engine.model or engine.engine) for engine in chosen)


@contextmanager
def loaded_engines(options: argparse.Namespace, *tasks: Task) -> Iterator[dict[str, Engine]]:
    """Load the engines that the options choose for some tasks; close them at the end.

    Says on stderr what was loaded and how it is asked, unless the embedded models answer.

    Yields:
        Engines by the name of their task; tasks with equal settings share one.

    Raises:
        CommandError: if the options describe a model that is not asked.
        EngineError: if one cannot be loaded.
    """
    from vlm3_ros.engines.load import check_names, load_engine
    from vlm3_ros.engines.memory import report_memory

    given = given_settings(vars(options))
    needed = {task: task_settings(given, task) for task in tasks}
    _check_profile_is_used(given.profile, needed)
    for settings in needed.values():  # before the first one loads, which takes minutes
        check_names(settings)
    console = Console(stderr=True, highlight=False, markup=False, emoji=False, soft_wrap=True)
    engines: dict[EngineSettings, Engine] = {}
    lines: list[str] = []
    with ExitStack() as loaded:
        with console.status("loading") as status:

            def tell(line: str) -> None:
                lines.append(line)
                status.update(line)

            for report in report_memory(needed.values()):
                tell(report.text)
            for settings in dict.fromkeys(needed.values()):
                engines[settings] = load_engine(settings, tell)
                loaded.callback(engines[settings].close)
        if _are_chosen(needed):  # after loading: an error stands alone
            console.print(*lines, sep="\n")
        yield {task: engines[settings] for task, settings in needed.items()}


def check_chosen(
    options: argparse.Namespace, engines: Mapping[str, Engine], wanted: Sequence[str] = ()
) -> None:
    """Check that models learned what they were chosen for, and what is wanted.

    Others may leave tasks out.

    Args:
        options: of the command line.
        engines: by the name of their task.
        wanted: tasks that must not be left out.

    Raises:
        CommandError: if one did not.
        EngineError: if two models seem to be swapped.
    """
    from vlm3_ros.tasks.correspondence import CORRESPONDENCE
    from vlm3_ros.tasks.depth import DEPTH
    from vlm3_ros.tasks.learned import check_not_swapped, why_unlearned
    from vlm3_ros.tasks.objects import OBJECTS
    from vlm3_ros.tasks.pose import POSE

    if POSE.name in engines and CORRESPONDENCE.name in engines:
        check_not_swapped((engines["pose"], POSE), (engines["correspondence"], CORRESPONDENCE))
    reasons = [
        why_unlearned(engines[task.name], task)
        for task in (DEPTH, POSE, CORRESPONDENCE, OBJECTS)
        if task.name in engines
        and (task.name in wanted or getattr(options, model_setting(task.name)))
    ]
    if any(reasons):
        raise CommandError("; ".join(filter(None, reasons)))


def _check_profile_is_used(profile: str, needed: Mapping[Task, EngineSettings]) -> None:
    """Refuse a `--profile` that no model has, since each task has a model of its own."""
    if not profile or any(settings.profile == profile for settings in needed.values()):
        return
    task, settings = next(iter(needed.items()))
    option = profile_setting(task).replace("_", "-")
    raise CommandError(
        f"--profile {profile} describes --model, which is not asked here: set --{option} to what "
        f"{settings.model} was trained for"
    )


def _are_chosen(needed: Mapping[Task, EngineSettings]) -> bool:
    """Return whether the user chose a model or a profile, whose conventions are then told."""
    return any(
        settings.profile
        or settings.engine == "openai"
        or (settings.engine == "transformers" and settings.model != str(default_model(task)))
        for task, settings in needed.items()
    )


@contextmanager
def loaded_engine(options: argparse.Namespace, task: Task) -> Iterator[Engine]:
    """Load the engine for one task; see `loaded_engines`."""
    with loaded_engines(options, task) as engines:
        yield engines[task]
