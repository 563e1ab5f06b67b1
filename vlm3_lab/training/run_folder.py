# SPDX-License-Identifier: Apache-2.0
"""The folder of a run: which run it belongs to, and which of its checkpoints are whole.

Everything that takes time to write is written below `unfinished/` and renamed when it is whole.
So every `checkpoint-N` or `final` that exists can be used, no matter what killed the run.
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

from vlm3_lab.training.config import ProfileConfig, TrainConfig, TrainingError

UNFINISHED = "unfinished"
RUN_FILE = "run.json"
KEPT = 2
"""Checkpoints that are kept: the last one and the one before."""


def claim(folder: Path, config: TrainConfig, processes: int) -> None:
    """Record in a folder which run it belongs to.

    Raises:
        TrainingError: if it belongs to another run; names what differs.
    """
    # Scoring does not change a run.
    scoring = {"evaluate_every", "evaluation_views"}
    ours = {**asdict(config), "processes": processes}
    ours = json.loads(json.dumps({k: v for k, v in ours.items() if k not in scoring}))
    path = folder / RUN_FILE
    if path.is_file():
        try:
            theirs = json.loads(path.read_text())
        except ValueError as error:
            raise TrainingError(f"{path} cannot be read ({error}): choose another --out") from error
        # Earlier versions knew fewer parts of a profile; they asked as the default says.
        there, now = {**flat(asdict(ProfileConfig()), "profile."), **flat(theirs)}, flat(ours)
        differing = [
            f"{key} is {there.get(key)!r} there and {now.get(key)!r} now"
            for key in sorted(there.keys() | now.keys())
            if there.get(key) != now.get(key)
        ]
        if differing:
            raise TrainingError(
                f"{folder} holds a run of another configuration: {'; '.join(differing)}. Choose "
                "another --out, or continue with the configuration that the run started with"
            )
        return
    folder.mkdir(parents=True, exist_ok=True)
    replace_text(path, json.dumps(ours, indent=1))


def flat(content: Any, prefix: str = "") -> dict[str, Any]:
    """Flatten a nested mapping to `key.path`s, each after `prefix`."""
    if not isinstance(content, dict) or not content:
        return {prefix.removesuffix("."): content}
    return {
        key: value
        for name in content
        for key, value in flat(content[name], f"{prefix}{name}.").items()
    }


def checkpoints(folder: Path) -> list[Path]:
    """The whole checkpoints of a run, sorted by step."""
    folders = [path for path in folder.glob("checkpoint-*") if path.name[11:].isdigit()]
    return sorted(folders, key=step_of)


def step_of(checkpoint: Path) -> int:
    """The number of steps before a checkpoint."""
    return int(checkpoint.name.rsplit("-", 1)[1])


def drop_old_checkpoints(folder: Path) -> None:
    """Delete all checkpoints except the last `KEPT`."""
    for checkpoint in checkpoints(folder)[:-KEPT]:
        shutil.rmtree(checkpoint)


def drop_unfinished(folder: Path) -> None:
    """Delete what a killed run had begun to write."""
    shutil.rmtree(folder / UNFINISHED, ignore_errors=True)


@contextmanager
def writing(folder: Path, what: str) -> Iterator[None]:
    """Turn a failed write, for example on a full disk, into an error that says what to do.

    Raises:
        TrainingError: in place of the libraries' errors.
    """
    try:
        yield
    # If a file cannot grow, torch raises RuntimeError and safetensors its own error.
    except (OSError, RuntimeError, SafetensorError) as error:
        drop_unfinished(folder)
        kept = checkpoints(folder)
        safe = f"{kept[-1]} is whole, and" if kept else "There is no checkpoint yet, but"
        raise TrainingError(
            f"{what} could not be written to {folder} ({error}). {safe} the same command continues "
            "from there: make room on the disk and run it again"
        ) from error


def replace_text(path: Path, text: str) -> None:
    """Replace a file so that it always holds either its old content or all of the new text."""
    new = path.with_name(f"{path.name}.new")
    new.write_text(text)
    new.replace(path)
