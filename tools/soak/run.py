# SPDX-License-Identifier: Apache-2.0
"""Run the load and the faults, one node after another."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from soak.fault import Row, run_fault
from soak.load import LoadReport, put_under_load
from soak.stage import Setup, staged
from soak.table import Group
from soak.waiting import Loss

Progress = Callable[[int, int], None]
"""Is called with the number of steps done so far, and in total."""


def run_load(setup: Setup, images: int, folder: Path, progress: Progress) -> LoadReport:
    """Run a node under load for a number of images; logs go to the folder."""
    with staged(setup, folder, "load") as stage:
        return put_under_load(stage, images, progress)


def run_faults(
    groups: Sequence[Group], seconds: float, folder: Path, progress: Progress
) -> list[Row]:
    """Run each group's node through all faults of the group.

    Args:
        groups: of faults.
        seconds: duration of each fault after it was reported.
        folder: for the logs.
        progress: is called with the number of faults done so far, and in total.
    """
    rows: list[Row] = []
    total = sum(len(group.faults) for group in groups)
    for group in groups:
        try:
            with staged(group.setup, folder, group.name) as stage:
                for fault in group.faults:
                    progress(len(rows), total)
                    rows.append(run_fault(stage, fault, seconds))
                    if not stage.node.is_running:
                        raise Loss("the node has ended")
                stage.close()
        except Loss as loss:
            rows.append(Row(group.setup.node, f"all of {group.name}", losses=[str(loss)]))
    progress(len(rows), total)
    return rows
