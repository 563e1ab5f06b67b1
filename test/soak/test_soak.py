# SPDX-License-Identifier: Apache-2.0
"""`make soak` in its short form: each fault once, and a camera that is faster than the model."""

from __future__ import annotations

import pytest

pytest.importorskip("transformers")

from soak.report import SoakReport, markdown
from soak.run import run_faults, run_load
from soak.server_faults import ModelServer
from soak.table import SHORT, groups


def ignored(done: int, total: int) -> None:
    """A progress that nobody watches."""


def test_a_camera_that_is_faster_than_the_model(tmp_path):
    report = run_load(SHORT.images, tmp_path, ignored)
    assert report.losses == []
    assert report.images >= SHORT.images
    assert 0 < report.answers < report.images
    assert report.dropped > 0


def test_no_fault_is_a_loss(tmp_path):
    server = ModelServer(tmp_path)
    try:
        table = groups(SHORT, tmp_path, server)
        rows = run_faults(table, SHORT.seconds, tmp_path, ignored)
    finally:
        server.kill()
    assert len(rows) == sum(len(group.faults) for group in table)
    report = SoakReport(None, rows)
    assert report.losses == [], markdown(report)
