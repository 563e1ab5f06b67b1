# SPDX-License-Identifier: Apache-2.0
"""One fault at a time: what was published meanwhile, what was said, when answers were back."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass, field

from soak.stage import Stage
from soak.waiting import Loss, wait_for

Provocation = Callable[[Stage], AbstractContextManager[None]]
"""Makes a context manager in whose body something is wrong.

It raises Loss where the node does not take it as it should.
"""


@dataclass(frozen=True)
class Fault:
    """Something that goes wrong.

    Attributes:
        name: what.
        provoke: makes it so.
        says: a pattern of what must be read meanwhile, on /diagnostics or in the log; empty if
            nothing has to be said.
        answers: whether frames must go on being answered; False: none that comes after the words
            may be, None: either.
    """

    name: str
    provoke: Provocation
    says: str = ""
    answers: bool | None = False


@dataclass
class Row:
    """What came of a fault.

    Attributes:
        node: under test.
        fault: its name.
        images, answers: sent, and published, while it lasted.
        said: the first line that told of it.
        back: seconds from its end to the first answer about a later image.
        losses: what must not have happened.
    """

    node: str
    fault: str
    images: int = 0
    answers: int = 0
    said: str = ""
    back: float | None = None
    losses: list[str] = field(default_factory=list)


def suffer(stage: Stage, fault: Fault, seconds: float) -> Row:
    """Let a fault last for some seconds, and until it has been told; then wait for answers.

    After a loss the stage gets a new node.
    """
    row = Row(stage.setup.node, fault.name)
    wrong, line = len(stage.listener.wrong), len(stage.node.lines)
    sent, answered = stage.camera.count, len(stage.listener.answers)
    node, begin = stage.node, time.monotonic()
    try:
        with fault.provoke(stage):
            row.said = _while_it_lasts(stage, fault, seconds, begin, line)
            row.images = stage.camera.count - sent
            row.answers = len(stage.listener.answers) - answered
        row.back = stage.wait_for_answer(time.monotonic())
    except Loss as loss:
        row.losses.append(str(loss))
        stage.renew_node()
    row.losses += stage.listener.wrong[wrong:]
    # A node that was killed and started anew has a log of its own.
    lines = [*node.lines[line:], *(stage.node.lines if stage.node is not node else ())]
    row.losses += [f"log: {text}" for text in lines if "Traceback" in text]
    return row


def _while_it_lasts(stage: Stage, fault: Fault, seconds: float, begin: float, line: int) -> str:
    """Wait until it has been told, and on. Returns the words."""
    said = ""
    if fault.says:

        def is_told() -> bool:
            nonlocal said
            said = stage.said(fault.says, begin, line)
            return bool(said)

        wait_for(is_told, f"a word about it ({fault.says!r})")
    answers = stage.listener.answers
    told, told_at = len(answers), time.monotonic()
    time.sleep(seconds)
    if fault.answers:
        stage.wait_for_answer(begin)
    late = [answer for answer in answers[told:] if answer.sent.at > told_at]
    if fault.answers is False and late:
        raise Loss(f"{len(late)} frames were answered nevertheless")
    return said
