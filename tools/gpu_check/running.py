# SPDX-License-Identifier: Apache-2.0
"""Run the parts of a check in processes of their own, each within its time."""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from importlib import import_module
from multiprocessing import get_context
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

Row = dict[str, Any]

PRELOADED = ["torch", "transformers", "vlm3_ros.engines.transformers"]
"""Modules that are imported once for all parts: they take seconds, on a bare machine ten."""


@dataclass(frozen=True)
class Part:
    """One part of a check.

    Attributes:
        name: one word.
        limit_s: seconds after which it is ended.
        measure: "module:function", which yields the measured rows. Not the function itself: the
            process that waits for it then needs none of its imports.
        arguments: of that function.
    """

    name: str
    limit_s: int
    measure: str
    arguments: tuple[Any, ...] = ()


@dataclass(frozen=True)
class Outcome:
    """What came of a part.

    Attributes:
        rows: those that were measured before it ended.
        failure: why it ended too early; None if it is complete.
        seconds: that it took.
    """

    name: str
    rows: list[Row]
    failure: str | None
    seconds: float


def run_parts(parts: Sequence[Part], folder: Path, total_s: int) -> Iterator[Outcome]:
    """Run parts one after the other; a part that fails does not stop the others.

    Args:
        folder: gets what the parts print, as NAME.log.
        total_s: seconds for all of them.
    """
    context = get_context("forkserver")  # it never initialises CUDA itself
    context.set_forkserver_preload(PRELOADED)
    end = time.monotonic() + total_s
    for part in parts:
        start = time.monotonic()
        limit = min(part.limit_s, end - start)
        results, log = folder / f"{part.name}.jsonl", folder / f"{part.name}.log"
        results.write_text("")
        failure: str | None = "no time was left"
        if limit > 0:
            process = context.Process(target=_measure, args=(part, results, log))
            process.start()
            process.join(limit)
            failure = _failure(process, limit, results)
        rows = [json.loads(line) for line in results.read_text().splitlines() if line]
        results.unlink()
        rows = [row for row in rows if "failure" not in row]
        yield Outcome(part.name, rows, failure, round(time.monotonic() - start, 1))


def _failure(process: BaseProcess, limit: float, results: Path) -> str | None:
    """Return why a process did not end well; end it if it still runs."""
    if process.is_alive():
        _kill(process)
        return f"took longer than {limit:.0f} s"
    _kill(process)  # what it may have started and left
    if process.exitcode == 0:
        return None
    lines = results.read_text().splitlines()
    last = json.loads(lines[-1]) if lines else {}
    if "failure" in last:
        return str(last["failure"])
    return f"was killed (exit status {process.exitcode}), probably because memory ran out"


def _kill(process: BaseProcess) -> None:
    assert process.pid is not None
    try:
        os.killpg(process.pid, signal.SIGKILL)
    except ProcessLookupError:  # its group is gone, or not there yet
        process.kill()
    process.join()


def _measure(part: Part, results: Path, log: Path) -> None:
    """Write the rows of a part, then the reason if it fails; in the part's own process."""
    os.setsid()  # a group of its own, to be ended with its own processes
    with log.open("w") as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    with results.open("a") as file:
        try:
            module, _, function = part.measure.partition(":")
            measure: Callable[..., Iterator[Row]] = getattr(import_module(module), function)
            for row in measure(*part.arguments):
                print(json.dumps(row), file=file, flush=True)
        except Exception as error:
            reason = " ".join(str(error).split())[:300]
            row = {"failure": f"{type(error).__name__}: {reason}"}
            print(json.dumps(row), file=file, flush=True)
            sys.excepthook(type(error), error, error.__traceback__)
            sys.exit(1)
