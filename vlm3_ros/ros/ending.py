# SPDX-License-Identifier: Apache-2.0
"""Ends a process in time, whatever its threads do."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

ENDING_SIGNALS = (signal.SIGINT, signal.SIGTERM)

PATIENCE = 3.0
"""Seconds from a signal until the process ends without its threads. launch waits 5 s."""

MARGIN = 1.0
"""Seconds after which the process is killed if it has not ended by itself then."""

_GUARD = """
import os, select, signal, sys, time
process, patience, *signals = map(float, sys.argv[1:])
heard = b""
while not set(heard) & set(signals):
    heard = os.read(0, 1)
    if not heard:
        sys.exit()
end = time.monotonic() + patience
while (left := end - time.monotonic()) > 0:
    if select.select([0], [], [], left)[0] and not os.read(0, 1):
        sys.exit()
os.kill(int(process), signal.SIGKILL)
"""
"""Kills a process some seconds after one of the signals came, whose numbers it reads from standard
input, unless its end closes the pipe before."""


@contextmanager
def ending_in_time(
    on_signal: Callable[[], None],
    on_timeout: Callable[[], None],
    patience: float = PATIENCE,
    margin: float = MARGIN,
) -> Iterator[Callable[[int], None]]:
    """Handle signals so that the process ends soon after one, or by itself within the body.

    A thread that waits in C for a model lets Python run, so a timer can end the process. One that
    computes in C without releasing Python's lock lets nothing run, not even signal handlers: then
    another process, which Python's C code tells about the signal, ends this one. In the main thread
    only.

    Args:
        on_signal: is called by the handler of SIGINT and SIGTERM.
        on_timeout: is called before the timer ends the process.
        patience: seconds from a signal until the timer ends the process.
        margin: seconds that the other process waits longer.

    Yields:
        A function that starts the timer, to call when the process begins to end; its argument is
        the exit status of a process that the timer ends.
    """
    # Inherited: the guard ignores what a terminal or launch sends to the whole group.
    for number in ENDING_SIGNALS:
        signal.signal(number, signal.SIG_IGN)
    listening, telling = os.pipe()
    os.set_blocking(telling, False)
    numbers = [str(int(number)) for number in ENDING_SIGNALS]
    arguments = [str(os.getpid()), str(patience + margin), *numbers]
    guard = subprocess.Popen(
        [sys.executable, "-I", "-S", "-c", _GUARD, *arguments],
        stdin=listening,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    os.close(listening)
    former = signal.set_wakeup_fd(telling, warn_on_full_buffer=False)
    for number in ENDING_SIGNALS:
        signal.signal(number, lambda *_: on_signal())
    timers = []

    def begin(status: int) -> None:
        def end() -> None:
            on_timeout()
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(status)

        timer = threading.Timer(patience, end)
        timer.daemon = True
        timer.start()
        timers.append(timer)

    try:
        yield begin
    finally:
        for timer in timers:
            timer.cancel()
        signal.set_wakeup_fd(former)
        os.close(telling)
        guard.wait()
        # Python restores the default handlers when it exits; another SIGINT would kill it then.
        for number in ENDING_SIGNALS:
            signal.signal(number, signal.SIG_IGN)
