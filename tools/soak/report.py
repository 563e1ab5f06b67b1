# SPDX-License-Identifier: Apache-2.0
"""The report of a run: a table to read, and a file for programs."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np

from soak.fault import Row
from soak.load import LoadReport

_SHOWN = 90


@dataclass(frozen=True)
class SoakReport:
    """The run under load, None if it was left out, and the results of all faults."""

    load: LoadReport | None
    rows: Sequence[Row]

    @property
    def losses(self) -> list[str]:
        """All losses, with their load or fault."""
        load = [f"load: {loss}" for loss in self.load.losses] if self.load else []
        return load + [
            f"{row.node}, {row.fault}: {loss}" for row in self.rows for loss in row.losses
        ]


def write_report(report: SoakReport, folder: Path) -> list[str]:
    """Write soak.md, soak.json and, after a run under load, memory.png. Return their names."""
    wrote = ["soak.md", "soak.json"]
    (folder / "soak.md").write_text(markdown(report))
    (folder / "soak.json").write_text(json.dumps(asdict(report), indent=1) + "\n")
    if report.load and report.load.memory:
        _draw_memory(report.load, folder / "memory.png")
        wrote.append("memory.png")
    return wrote


def markdown(report: SoakReport) -> str:
    """Return both tables and the losses."""
    parts = [_load_table(report.load)] if report.load else []
    if report.rows:
        parts.append(_fault_table(report.rows))
    losses = [f"- {loss}" for loss in report.losses]
    parts.append("\n".join(["Losses:", "", *losses]) if losses else "No loss.")
    return "\n\n".join(parts) + "\n"


def _load_table(load: LoadReport) -> str:
    medians = ", ".join(f"{median:.1f}" for median in load.medians)
    rate = load.images / load.seconds if load.seconds else 0.0
    values = {
        "images sent": f"{load.images:,} in {load.seconds:.0f} s ({rate:.1f} Hz)",
        "received by the node": f"{load.received:,}",
        "answered, dropped for a newer one, failed": f"{load.answered:,}, {load.dropped:,}, "
        f"{load.failed:,}",
        "answers received": f"{load.answers:,}",
        "from an image to its answer": f"{load.age_p50:.2f} s (median), {load.age_p95:.2f} s (p95)",
        "newer images when the next one was chosen": f"{load.stale_p95:.0f} (p95), "
        f"{load.stale_max} (maximum)",
        "memory (RSS), median of each fifth of the run": f"{medians} MB",
        "threads of the unconfigured node": f"{load.threads[0]} before, {load.threads[1]} after",
        "from SIGINT to the end": f"{load.ended_in:.1f} s",
    }
    rows = [f"| {name} | {value} |" for name, value in values.items()]
    return "\n".join(["| under load | |", "|---|---|", *rows])


def _fault_table(rows: Sequence[Row]) -> str:
    heading = [
        "| node | fault | images sent | answers | message | back after |",
        "|---|---|---|---|---|---|",
    ]
    return "\n".join([*heading, *map(_fault_row, rows)])


def _fault_row(row: Row) -> str:
    said = row.said.replace("|", "\\|")
    said = said if len(said) <= _SHOWN else f"{said[:_SHOWN]}..."
    back = "never" if row.back is None else f"{row.back:.1f} s"
    mark = " **loss**" if row.losses else ""
    return f"| {row.node} | {row.fault}{mark} | {row.images} | {row.answers} | {said} | {back} |"


def _draw_memory(load: LoadReport, path: Path) -> None:
    seconds, megabytes = np.array(load.memory).T
    figure, axes = plt.subplots(figsize=(7, 3))
    axes.plot(seconds, megabytes)
    axes.set(xlabel="seconds", ylabel="memory of the node (RSS), MB", ylim=(0, None))
    axes.grid(alpha=0.3)
    figure.tight_layout()
    figure.savefig(path, dpi=110)
    plt.close(figure)
