# SPDX-License-Identifier: Apache-2.0
"""Run one fault: what the node published and reported, and when it answered again."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass, field

from soak.stage import Stage
from soak.waiting import Loss, wait_for

Provocation = Callable[[Stage], AbstractContextManager[None]]
"""Makes a context manager; the fault lasts while its body runs.

It raises Loss if the node reacts in a wrong way.
"""


@dataclass(frozen=True)
class Fault:
    """Something that goes wrong.

    Attributes:
        name: for the table.
        provoke: causes the fault.
        says: pattern of a message that the node must report meanwhile, on /diagnostics or in the
            log; empty if none is required.
        answers: True: frames must still be answered; False: no frame sent after the message may
            be answered; None: either.
    """

    name: str
    provoke: Provocation
    says: str = ""
    answers: bool | None = False


@dataclass
class Row:
    """The result of a fault.

    Attributes:
        node: under test.
        fault: its name.
        images, answers: numbers sent and published during the fault.
        said: the first message that reported it.
        back: seconds from its end to the first answer about a later image.
        losses: everything that must not happen and did.
    """

    node: str
    fault: str
    images: int = 0
    answers: int = 0
    said: str = ""
    back: float | None = None
    losses: list[str] = field(default_factory=list)


def run_fault(stage: Stage, fault: Fault, seconds: float) -> Row:
    """Cause a fault until it is reported, and for some seconds more; then wait for answers.

    After a loss the stage gets a new node.
    """
    row = Row(stage.setup.node, fault.name)
    wrong, line = len(stage.listener.wrong), len(stage.node.lines)
    sent, answered = stage.camera.count, len(stage.listener.answers)
    node, begin = stage.node, time.monotonic()
    try:
        with fault.provoke(stage):
            row.said = _watch(stage, fault, seconds, begin, line)
            row.images = stage.camera.count - sent
            row.answers = len(stage.listener.answers) - answered
        row.back = stage.wait_for_answer(time.monotonic())
    except Loss as loss:
        row.losses.append(str(loss))
        stage.renew_node()
    row.losses += stage.listener.wrong[wrong:]
    # A restarted node has a new log.
    lines = [*node.lines[line:], *(stage.node.lines if stage.node is not node else ())]
    row.losses += [f"log: {text}" for text in lines if "Traceback" in text]
    return row


def _watch(stage: Stage, fault: Fault, seconds: float, begin: float, line: int) -> str:
    """Wait until the fault is reported, and some seconds more. Return the message."""
    message = ""
    if fault.says:

        def is_reported() -> bool:
            nonlocal message
            message = stage.reported(fault.says, begin, line)
            return bool(message)

        wait_for(is_reported, f"a message with {fault.says!r}")
    answers = stage.listener.answers
    count, reported_at = len(answers), time.monotonic()
    time.sleep(seconds)
    if fault.answers:
        stage.wait_for_answer(begin)
    late = [answer for answer in answers[count:] if answer.sent.at > reported_at]
    if fault.answers is False and late:
        raise Loss(f"{len(late)} frames were answered despite the fault")
    return message
