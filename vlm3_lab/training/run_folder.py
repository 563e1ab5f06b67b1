# SPDX-License-Identifier: Apache-2.0
"""The folder of a run: whose it is, and which of its checkpoints are whole.

Everything that takes time to write is written below `unfinished/` and renamed when it is whole:
whatever kills a run, a `checkpoint-N` or `final` that is there can be used.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

from safetensors import SafetensorError

from vlm3_lab.training.config import TrainConfig, TrainingError

UNFINISHED = "unfinished"
RUN_FILE = "run.json"
KEPT = 2
"""Checkpoints that stay: the last one, and one before it."""


def claim(folder: Path, config: TrainConfig, processes: int) -> None:
    """Note in a folder which run it is of.

    Raises:
        TrainingError: naming what differs, when it is another one's.
    """
    # How often a run is looked at does not change it.
    looks = {"evaluate_every", "evaluation_views"}
    ours = {**asdict(config), "processes": processes}
    ours = json.loads(json.dumps({k: v for k, v in ours.items() if k not in looks}))
    path = folder / RUN_FILE
    if path.is_file():
        try:
            theirs = json.loads(path.read_text())
        except ValueError as error:
            raise TrainingError(f"{path} cannot be read ({error}): choose another --out") from error
        there, now = flat(theirs), flat(ours)
        differing = [
            f"{key} is {there.get(key)!r} there and {now.get(key)!r} now"
            for key in sorted(there.keys() | now.keys())
            if there.get(key) != now.get(key)
        ]
        if differing:
            raise TrainingError(
                f"{folder} holds a run of another configuration: {'; '.join(differing)}. Choose "
                "another --out, or go on with the configuration that it was started with"
            )
        return
    folder.mkdir(parents=True, exist_ok=True)
    replace_text(path, json.dumps(ours, indent=1))


def flat(content: Any, prefix: str = "") -> dict[str, Any]:
    """A nested mapping as one of `key.path`s; `prefix` goes before each."""
    if not isinstance(content, dict) or not content:
        return {prefix.removesuffix("."): content}
    return {
        key: value
        for name in content
        for key, value in flat(content[name], f"{prefix}{name}.").items()
    }


def checkpoints(folder: Path) -> list[Path]:
    """The whole checkpoints of a run, the last one at the end."""
    found = [path for path in folder.glob("checkpoint-*") if path.name[11:].isdigit()]
    return sorted(found, key=step_of)


def step_of(checkpoint: Path) -> int:
    """The steps that led to a checkpoint."""
    return int(checkpoint.name.rsplit("-", 1)[1])


def drop_old_checkpoints(folder: Path) -> None:
    """Delete all checkpoints but the last ones."""
    for checkpoint in checkpoints(folder)[:-KEPT]:
        shutil.rmtree(checkpoint)


def drop_unfinished(folder: Path) -> None:
    """Delete what a run that was killed had begun to write."""
    shutil.rmtree(folder / UNFINISHED, ignore_errors=True)


@contextmanager
def writing(folder: Path, what: str) -> Iterator[None]:
    """Tell what to do when something of a run cannot be written, on a full disk, say.

    Raises:
        TrainingError: in place of what the libraries that write raise.
    """
    try:
        yield
    # torch raises RuntimeError, and safetensors an error of its own, where a file cannot grow.
    except (OSError, RuntimeError, SafetensorError) as error:
        drop_unfinished(folder)
        kept = checkpoints(folder)
        safe = f"{kept[-1]} is whole, and" if kept else "There is no checkpoint yet, but"
        raise TrainingError(
            f"{what} could not be written to {folder} ({error}). {safe} the same command goes on "
            "from there: make room on the disk and give it again"
        ) from error


def replace_text(path: Path, text: str) -> None:
    """Write a file so that it holds what it held or all of the new text, whatever happens."""
    new = path.with_name(f"{path.name}.new")
    new.write_text(text)
    new.replace(path)
