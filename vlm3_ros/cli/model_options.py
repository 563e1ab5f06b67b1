"""Options of every command that asks a model."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import get_args

from rich.console import Console

from vlm3_ros.engines.base import Engine
from vlm3_ros.engines.settings import Attention, Dtype, EngineSettings
from vlm3_ros.paths import default_model


def add_model_options(parser: argparse.ArgumentParser) -> None:
    """Add --model, --dtype, --device, --attn-implementation and --offline."""
    group = parser.add_argument_group("model")
    group.add_argument(
        "--model",
        metavar="MODEL",
        help="checkpoint of the Qwen3-VL family: a folder, or a Hugging Face id such as "
        "facebook/VLM3-depth, which is downloaded (default: the embedded vlm3-tiny)",
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


def engine_settings(options: argparse.Namespace) -> EngineSettings:
    """The settings that the model options ask for."""
    return EngineSettings(
        model=options.model or str(default_model()),
        dtype=options.dtype,
        device=options.device,
        attn_implementation=options.attn_implementation,
        offline=options.offline,
    )


def model_name(model: str) -> str:
    """How results call a model: a hub id as it is, a folder by its own name."""
    path = Path(model)
    return path.resolve().name if path.is_dir() else model


@contextmanager
def loaded_engine(options: argparse.Namespace) -> Iterator[Engine]:
    """The engine that the model options ask for, closed in the end.

    Raises:
        EngineError: when it cannot be loaded.
    """
    from vlm3_ros.engines.load import load_engine

    with Console(stderr=True).status("loading") as status:
        engine = load_engine(engine_settings(options), status.update)
    try:
        yield engine
    finally:
        engine.close()
