# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from vlm3_lab.studies.tasks import task_evaluations
from vlm3_ros.language.wordings import WORDINGS


def test_every_task_that_can_be_worded_is_scored_in_the_order_of_reports() -> None:
    scored = [task.name for kind in task_evaluations() for task in kind.tasks]
    assert scored[:4] == ["depth", "pose", "correspondence", "objects"]
    assert sorted(scored) == sorted(WORDINGS)
