# SPDX-License-Identifier: Apache-2.0
"""`make soak` in its short form: each fault once, and a camera that is faster than the model."""

from __future__ import annotations

import pytest

pytest.importorskip("transformers")

from soak.report import SoakReport, markdown
from soak.run import run_faults, run_load
from soak.server_faults import ModelServer
from soak.table import SHORT, groups

pytestmark = pytest.mark.slow

GROUPS = ("depth", "depth_compressed", "depth_clock", "depth_server", "pose", "query")


def ignored(done: int, total: int) -> None:
    """Ignores progress."""


@pytest.fixture
def server(tmp_path):
    server = ModelServer(tmp_path)
    yield server
    server.kill()


# Each group has its own node, so each worker can run one group.
@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=pytest.mark.xdist_group(f"soak {name}")) for name in GROUPS]
)
def test_no_fault_is_a_loss(tmp_path, server, name):
    table = groups(SHORT, tmp_path, server)
    assert [group.name for group in table] == list(GROUPS)
    (group,) = (group for group in table if group.name == name)
    rows = run_faults([group], SHORT.seconds, tmp_path, ignored)
    assert len(rows) == len(group.faults) > 0
    report = SoakReport(None, rows)
    assert report.losses == [], markdown(report)


@pytest.mark.xdist_group("soak load")
def test_a_camera_that_is_faster_than_the_model(tmp_path):
    report = run_load(SHORT.load, SHORT.images, tmp_path, ignored)
    assert report.losses == []
    assert report.images >= SHORT.images
    assert 0 < report.answers < report.images
    assert report.dropped > 0
