# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import pytest

from vlm3_ros.cli.progress import progress_bar


def test_an_error_before_the_first_step_stands_alone(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(KeyError), progress_bar("images"):
        raise KeyError
    assert capsys.readouterr().err == ""


def test_the_bar_stays_once_there_was_a_step(capsys: pytest.CaptureFixture[str]) -> None:
    with progress_bar("images") as progress:
        progress(1, 2)
        progress(2, 2)
    assert "2/2" in capsys.readouterr().err
