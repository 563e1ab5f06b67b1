# SPDX-License-Identifier: Apache-2.0
"""Progress bars."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)


@contextmanager
def progress_bar(description: str) -> Iterator[Callable[[int, int], None]]:
    """Open a bar on stderr; the yielded function takes the number of steps done, and of all.

    Until the first step it shows the time on a terminal, and leaves nothing behind, so that an
    earlier error stands alone.
    """
    console = Console(stderr=True)
    progress = Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        console=console,
        transient=True,
    )
    task = progress.add_task(description, total=None)

    def show(done: int, total: int) -> None:
        progress.live.transient = False
        progress.start()
        progress.update(task, completed=done, total=total)

    try:
        if console.is_terminal:
            progress.start()
        yield show
    finally:
        if progress.live.is_started:
            progress.stop()
