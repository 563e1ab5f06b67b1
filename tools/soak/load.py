# SPDX-License-Identifier: Apache-2.0
"""A camera that is much faster than the model: memory, threads, and the age of answers."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import numpy as np

from soak.listener import Answer
from soak.stage import Stage
from soak.waiting import Loss, wait_for

PARTS = 5
"""Parts of the run between which memory is compared; the first one is the warm-up."""

MAX_RISE = 16e6
"""Bytes by which the median of the last part may exceed that of the second. Allocators keep what
they needed once, so memory rises in steps and stays; this allows 1 of 110 images (of 20,000) to
leak."""

FEWEST = 10
"""Least number of answers to judge from: a short run continues until they have arrived."""

STALE_FRAMES = 3
"""Images that may be newer than the answered one when the model becomes free, in 19 of 20 cases:
one is on its way, one waits for the thread, one for other processes of a busy machine."""

STALE_FRAMES_EVER = 30
"""The same in all cases: one second."""


@dataclass
class LoadReport:
    """The result of a run under load.

    Attributes:
        seconds: duration.
        images: sent.
        received, answered, failed, dropped, skipped: the node's own counts.
        answers: received here.
        memory: of the node: seconds, MB; shape (n, 2).
        medians: of the memory, MB, in equal parts of the run.
        threads: of the unconfigured node, before and after.
        stale_p95, stale_max: number of images newer than the answered one when the previous answer
            was published.
        age_p50, age_p95: seconds from an image to its answer.
        ended_in: seconds from SIGINT to the end of the process.
        losses: everything that must not happen and did.
    """

    seconds: float = 0.0
    images: int = 0
    received: int = 0
    answered: int = 0
    failed: int = 0
    dropped: int = 0
    skipped: int = 0
    answers: int = 0
    memory: list[tuple[float, float]] = field(default_factory=list)
    medians: list[float] = field(default_factory=list)
    threads: tuple[int, int] = (0, 0)
    stale_p95: float = 0.0
    stale_max: int = 0
    age_p50: float = 0.0
    age_p95: float = 0.0
    ended_in: float = 0.0
    losses: list[str] = field(default_factory=list)


def put_under_load(
    stage: Stage, images: int, progress: Callable[[int, int], None] = lambda done, total: None
) -> LoadReport:
    """Run the camera for a number of images, then stop the node.

    Args:
        stage: with an active node.
        images: of the camera.
        progress: is called with the number of images sent so far, and in total.
    """
    report = LoadReport()
    with _noted(report):
        threads = _threads_at_rest(stage)
        answers = _run(stage, images, report, progress)
        for check in (
            lambda: _count(stage, report),
            lambda: _check_memory(report),
            lambda: _check_freshness(stage, answers, report),
        ):
            with _noted(report):
                check()
        report.threads = threads, _threads_at_rest(stage)
        if report.threads[1] > threads:
            raise Loss(f"{report.threads[1] - threads} threads are left behind")
    with _noted(report):
        report.ended_in = stage.close()
    report.losses += stage.listener.wrong
    return report


@contextmanager
def _noted(report: LoadReport) -> Iterator[None]:
    try:
        yield
    except Loss as loss:
        report.losses.append(str(loss))


def _threads_at_rest(stage: Stage) -> int:
    """Count the threads of the unconfigured node, then configure and activate it again."""
    for label in ("deactivate", "cleanup"):
        if not stage.change_state(label):
            raise Loss(f"{label} fails")
    time.sleep(1)  # for threads that are about to end
    threads = stage.node.threads()
    for label in ("configure", "activate"):
        if not stage.change_state(label):
            raise Loss(f"{label} fails")
    stage.wait_for_answer(time.monotonic())
    return threads


def _run(
    stage: Stage, images: int, report: LoadReport, progress: Callable[[int, int], None]
) -> list[Answer]:
    """Run the camera; return the answers."""
    begin, first = time.monotonic(), stage.camera.count
    answers = stage.listener.answers
    answers_before = len(answers)
    while (sent := stage.camera.count - first) < images or len(answers) < answers_before + FEWEST:
        report.memory.append((time.monotonic() - begin, stage.node.resident_bytes() / 1e6))
        progress(min(sent, images), images)
        time.sleep(min(1.0, images / stage.camera.rate / 100))
    progress(images, images)
    report.seconds = time.monotonic() - begin
    report.images = sent
    came = answers[answers_before:]
    report.answers = len(came)
    return came


def _count(stage: Stage, report: LoadReport) -> None:
    """Read the node's counts once they account for all received frames."""
    names = ("received", "answered", "failed", "dropped", "skipped")
    stage.camera.is_silent = True

    def is_even() -> bool:
        values = stage.listener.values.get("frames", {})
        for name in names:
            setattr(report, name, int(values.get(f"frames {name}", 0)))
        rest = report.answered + report.failed + report.dropped + report.skipped
        return bool(report.received) and report.received == rest

    try:
        wait_for(is_even, "every received frame to be accounted for")
    finally:
        stage.camera.is_silent = False
    if report.failed:
        raise Loss(f"{report.failed} frames failed")


def _check_memory(report: LoadReport) -> None:
    parts = np.array_split([megabytes for _, megabytes in report.memory], PARTS)
    report.medians = [float(np.median(part)) for part in parts]
    rise = report.medians[-1] - report.medians[1]
    if rise * 1e6 > MAX_RISE:
        raise Loss(f"memory has risen by {rise:.1f} MB")


def _check_freshness(stage: Stage, answers: list[Answer], report: LoadReport) -> None:
    """Check that the free model got the newest image."""
    sent_at = np.sort([sent.at for sent in list(stage.camera.sent.values())])
    free = np.array([answer.at for answer in answers[:-1]])
    taken = np.array([answer.sent.at for answer in answers[1:]])
    stale = np.searchsorted(sent_at, free) - np.searchsorted(sent_at, taken, side="right")
    ages = [answer.at - answer.sent.at for answer in answers]
    report.stale_p95, report.stale_max = float(np.percentile(stale, 95)), int(stale.max())
    report.age_p50, report.age_p95 = (float(np.percentile(ages, p)) for p in (50, 95))
    if report.stale_p95 > STALE_FRAMES or report.stale_max > STALE_FRAMES_EVER:
        raise Loss(
            f"old images are answered: {report.stale_p95:.0f} (p95), {report.stale_max} (max) "
            "newer ones had arrived"
        )
