# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from vlm3_ros.cli import main


def test_help_names_every_command(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as left:
        main(["--help"])
    assert left.value.code == 0
    text = capsys.readouterr().out
    assert all(name in text for name in ("ask", "evaluate", "train", "bag-from-rgbd"))


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        ([], "required: COMMAND"),
        (["dance"], "invalid choice: 'dance'"),
        (["ask", "a.jpg", "--hfov", "wide", "--grid", "1x1"], "'wide' is not a number of degrees"),
        (["ask", "a.jpg", "--hfov", "60", "--grid", "16"], "'16' is not a grid size such as 16x12"),
        (["ask", "a.jpg", "--hfov", "60", "--grid", "0x3"], "'0x3' is not a grid size"),
        (["evaluate", "--synthetic", "0", "--out", "x"], "'0' is not a whole number of at least 1"),
        (
            ["evaluate", "--synthetic", "5", "--seed", "-1", "--out", "x"],
            "not a whole number of at least 0",
        ),
        (["demo", "--concurrency", "0"], "'0' is not a whole number from 1 to 4096"),
        (["demo", "--chunk", "1.5"], "'1.5' is not a whole number from 0 to 4096"),
        (["demo", "--frame-timeout", "nan"], "'nan' is not a number from 0.01 to 3600"),
        (["bag-from-rgbd", "a", "b", "--frame-rate", "no"], "'no' is not a number above 0"),
    ],
)
def test_wrong_usage_is_explained(
    arguments: list[str], complaint: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as left:
        main(arguments)
    assert left.value.code == 2
    assert complaint in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["ask", "{tmp}/no.jpg", "--hfov", "60", "--pixel", "1", "2"], "no.jpg: there is no such"),
        (["bag-from-rgbd", "{tmp}", "{tmp}/bag"], "intrinsics.json: No such file"),
        (["train", "{tmp}/no.yaml", "--out", "{tmp}/run"], "no.yaml: cannot be read"),
    ],
)
def test_an_error_that_a_user_can_fix_is_one_line_and_status_2(
    arguments: list[str], complaint: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([argument.format(tmp=tmp_path) for argument in arguments]) == 2
    error = capsys.readouterr().err
    assert complaint in error
    assert len(error.splitlines()) == 1
    assert error.startswith("vlm3: ")


@pytest.mark.skipif(sys.platform == "win32", reason="a pipe with a name")
def test_ctrl_c_ends_a_command_without_a_traceback(tmp_path: Path) -> None:
    """The command waits for a calibration that never comes: a named pipe without a writer."""
    pipe = tmp_path / "config.yaml"
    os.mkfifo(pipe)
    command = subprocess.Popen(
        [sys.executable, "-m", "vlm3_ros.cli", "train", str(pipe), "--out", str(tmp_path / "run")],
        stderr=subprocess.PIPE,
        text=True,
        # A test runner in the background may ignore SIGINT, and children inherit that.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    # Opening a pipe for writing without waiting works once there is a reader.
    while True:
        try:
            writer = os.open(pipe, os.O_WRONLY | os.O_NONBLOCK)
            break
        except OSError:
            assert command.poll() is None
            time.sleep(0.05)
    command.send_signal(signal.SIGINT)
    # Python raises KeyboardInterrupt between two calls into C: a signal that comes just before one
    # waits until that call returns, and a read of a pipe returns when the last writer is gone.
    os.close(writer)
    _, error = command.communicate()
    assert command.returncode == 130
    assert error == "vlm3: interrupted\n"
