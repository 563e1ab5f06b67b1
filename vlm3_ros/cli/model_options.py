# SPDX-License-Identifier: Apache-2.0
"""Options of every command that asks a model."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import get_args

from rich.console import Console

from vlm3_ros.cli.arguments import positive_integer, positive_number
from vlm3_ros.engines.base import Engine
from vlm3_ros.engines.settings import (
    API_KEY_VARIABLE,
    LOCAL_SERVER,
    Attention,
    Dtype,
    EngineKind,
    EngineSettings,
    chosen_settings,
)
from vlm3_ros.paths import Task


def add_model_options(parser: argparse.ArgumentParser) -> None:
    """Add the options that say which model answers, where and how."""
    group = parser.add_argument_group("model")
    group.add_argument(
        "--model",
        default="",
        metavar="MODEL",
        help="checkpoint of the Qwen3-VL family: a folder, or a Hugging Face id such as "
        "facebook/VLM3-depth, which is downloaded (default: the embedded vlm3-tiny, and "
        "vlm3-tiny-pairs for motions and matches)",
    )
    group.add_argument(
        "--engine",
        choices=get_args(EngineKind),
        default="transformers",
        help="who answers: a model in this process, a server, or a recording",
    )
    group.add_argument("--dtype", choices=get_args(Dtype), default="auto", help="of the weights")
    group.add_argument("--device", default="auto", help="auto, cpu, cuda or cuda:N")
    group.add_argument(
        "--attn-implementation",
        choices=get_args(Attention),
        default="auto",
        help="attention of the image encoder and the shared prompt, as transformers names it",
    )
    group.add_argument("--offline", action="store_true", help="never look on the network")
    server = parser.add_argument_group("server, for --engine openai (see docs/serving.md)")
    server.add_argument(
        "--base-url",
        default=LOCAL_SERVER,
        metavar="URL",
        help=f"up to and with /v1 (default: {LOCAL_SERVER}); --model is the server's name for its "
        "model, if it has several",
    )
    server.add_argument(
        "--api-key-variable",
        default=API_KEY_VARIABLE,
        metavar="NAME",
        help=f"environment variable with the server's key (default: {API_KEY_VARIABLE})",
    )
    server.add_argument(
        "--profile",
        default="",
        metavar="PATH",
        help="what its model was trained for: a vlm3.json, or a folder with one, such as a copy "
        "of the checkpoint (default: the authors')",
    )
    server.add_argument(
        "--concurrency",
        type=positive_integer,
        default=EngineSettings.concurrency,
        metavar="N",
        help="questions at the same time (default: %(default)s)",
    )
    for name, what in (("request", "one answer"), ("frame", "all answers about an image")):
        server.add_argument(
            f"--{name}-timeout",
            type=positive_number,
            default=getattr(EngineSettings, f"{name}_timeout"),
            metavar="SECONDS",
            help=f"for {what} (default: %(default)g)",
        )
    recordings = parser.add_argument_group("recordings")
    recordings.add_argument(
        "--recording", default="", metavar="FILE", help="to replay, for --engine recorded"
    )
    recordings.add_argument(
        "--record-to", default="", metavar="FILE", help="add all questions and answers to this file"
    )


def add_focal_option(parser: argparse.ArgumentParser) -> None:
    """Add --focal, the trade of accuracy for speed."""
    parser.add_argument(
        "--focal",
        type=positive_number,
        metavar="PX",
        help="unified focal length at which images enter the model (default: the checkpoint's "
        "own); a smaller one is faster and coarser",
    )


def model_name(model: str) -> str:
    """How results call a model: a hub id as it is, a folder by its own name."""
    path = Path(model)
    return path.resolve().name if path.is_dir() else model


def model_label(options: argparse.Namespace) -> str:
    """How results call what the model options choose, for depth and for pairs."""
    names = (chosen_settings(vars(options), task) for task in get_args(Task))
    return " and ".join(dict.fromkeys(model_name(some.model or some.engine) for some in names))


@contextmanager
def loaded_engines(options: argparse.Namespace) -> Iterator[tuple[Engine, Engine]]:
    """The engines for depth and for pairs; the same one unless the embedded models are asked.

    Raises:
        EngineError: when one cannot be loaded.
    """
    with loaded_engine(options) as engine:
        if chosen_settings(vars(options)) == chosen_settings(vars(options), "pairs"):
            yield engine, engine
        else:
            with loaded_engine(options, "pairs") as pair_engine:
                yield engine, pair_engine


@contextmanager
def loaded_engine(options: argparse.Namespace, task: Task = "depth") -> Iterator[Engine]:
    """The engine that the model options ask for, closed in the end.

    Raises:
        EngineError: when it cannot be loaded.
    """
    from vlm3_ros.engines.load import load_engine

    with Console(stderr=True).status("loading") as status:
        engine = load_engine(chosen_settings(vars(options), task), status.update)
    try:
        yield engine
    finally:
        engine.close()
