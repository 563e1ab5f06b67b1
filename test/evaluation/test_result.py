# SPDX-License-Identifier: Apache-2.0
"""One result for every source: metrics.json, tables, verdict and page."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated

import numpy as np
import pytest
from rich.console import Console

from vlm3_ros.evaluation.answer_counts import count_answers
from vlm3_ros.evaluation.metrics.declared import (
    Metric,
    headline_text,
    headlines,
    metric_cells,
    metric_json,
    metric_titles,
)
from vlm3_ros.evaluation.metrics.objects import Asked
from vlm3_ros.evaluation.output import print_result, write_result
from vlm3_ros.evaluation.result import Result, result_json, result_tables, verdict
from vlm3_ros.evaluation.scores.base import (
    TaskScores,
    best_median_worst,
    by_group,
    score_by_group,
)
from vlm3_ros.evaluation.scores.depth import ScoredView, depth_scores
from vlm3_ros.evaluation.scores.matches import ScoredMatches, match_scores
from vlm3_ros.evaluation.scores.objects import ScoredObjects, object_scores
from vlm3_ros.tasks.objects import Quantity
from vlm3_ros.tasks.reading import Missing, fault


def view(index: int, group: str, factor: float) -> ScoredView:
    """Two pixels at 1 m and 4 m; answers are off by a factor."""
    truth = np.array([1.0, 4.0])
    return ScoredView(index, group, truth * factor, np.full(2, np.nan), truth, np.array([0.9, 0.1]))


@pytest.fixture
def result() -> Result:
    pixels, step = np.array([[10.0, 10.0], [20.0, 20.0]]), np.array([3, 4])
    moved = [
        ScoredMatches(group, pixels, pixels + offset, pixels + step, 100)
        for group, offset in (("room", step), ("yard", np.zeros(2)))
    ]
    views = [view(0, "room", 1.0), view(1, "yard", 2.0)]
    return Result(
        models={"model": "some model"},
        title="some model on data",
        source={"kind": "scenes", "name": "data"},
        scores={
            "depth": score_by_group(views, depth_scores),
            "correspondence": score_by_group(moved, match_scores),
        },
        left_out={"pose": "it was not learned", "objects": "it was not learned"},
        notes={"a note": "its text"},
    )


def test_tasks_baselines_and_groups_have_their_places(result: Result) -> None:
    content = result_json(result)
    assert list(content) == [
        "model",
        "source",
        "depth",
        "correspondence",
        "baselines",
        "groups",
        "left_out",
        "notes",
    ]
    assert content["depth"]["delta1"] == 0.5
    assert content["correspondence"]["epe_px"] == 2.5
    assert content["correspondence"]["epe_share"] == pytest.approx(0.025)
    assert content["baselines"]["row"]["depth"]["delta1"] == 1
    assert content["baselines"]["same_pixel"]["correspondence"]["epe_px"] == 5
    room, yard = content["groups"]["room"], content["groups"]["yard"]
    assert (room["depth"]["delta1"], yard["depth"]["delta1"]) == (1, 0)
    assert (room["correspondence"]["epe_px"], yard["correspondence"]["epe_px"]) == (0, 5)
    assert yard["baselines"]["constant"]["depth"]["pixels"] == 2
    assert content["left_out"]["pose"] == "it was not learned"
    assert content["notes"]["left out: pose, objects"] == "it was not learned"


def test_terminal_page_and_file_show_the_same(
    result: Result, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert write_result(result, tmp_path) == ["metrics.json", "report.html"]
    print_result(Console(width=80), result)
    printed, page = capsys.readouterr().out, (tmp_path / "report.html").read_text()
    content = json.loads((tmp_path / "metrics.json").read_text())
    tables = result_tables(result)
    assert [table.title for table in tables] == [
        "depth: 4 pixels of 2 images",
        "depth by group",
        "depth by distance",
        "correspondence: 4 matches",
        "correspondence by group",
    ]
    for table in tables:
        assert table.title in printed
        assert table.title in page
        assert all(len(row) == len(table.columns) for row in table.rows)
    assert f"{content['depth']['abs_rel']:.3f}" == tables[0].rows[0][2]
    rows = [line for line in printed.splitlines() if line != verdict(result)]
    assert max(map(len, rows)) <= 80
    for text in (verdict(result), "its text", "it was not learned"):
        assert text in printed.replace("\n", " ")
        assert text in page


def test_missing_answers_are_counted_and_lead_the_verdict(result: Result) -> None:
    missing = [Missing("cut off", "it is"), fault("http://a/v1 cannot be reached (refused)")]
    result = replace(result, answers={"depth": count_answers(4, missing)})
    content = result_json(result)
    assert list(content)[-3:] == ["answers", "left_out", "notes"]
    assert content["answers"]["depth"]["answered"] == 2
    assert verdict(result).startswith(
        "Incomplete: 1 of 4 questions had no answer from the engine: http://a/v1 cannot be"
    )
    assert result_tables(result)[-1].rows == (("depth", "4", "2", "1", "1"),)
    assert list(result.all_notes)[:2] == [
        "unreadable answers: depth",
        "questions without an answer: depth",
    ]


def test_the_verdict_names_what_was_not_scored(result: Result) -> None:
    assert verdict(result) == (
        "Depth: δ1 0.50 against 1.00 for the best guess that ignores the image. "
        "Matches: EPE 2.5 px against 5.0 px for the same pixel. Not scored: pose, objects."
    )
    assert verdict(replace(result, scores={}, left_out={})) == ""


def test_groups_keep_their_order_and_items_without_a_group_are_left_out() -> None:
    views = [view(i, group, 1.0) for i, group in enumerate(("b", "", "a", "b"))]
    groups = by_group(views)
    assert list(groups) == ["b", "a"]
    assert [one.index for one in groups["b"]] == [0, 3]
    assert not score_by_group([view(0, "", 1.0)], depth_scores).groups


def test_best_median_and_worst_are_chosen_by_error() -> None:
    assert best_median_worst([5, 1, 4, 2, 3], lambda x: x) == {"best": 1, "median": 3, "worst": 5}
    assert best_median_worst([7], lambda x: x) == {"best": 7, "median": 7, "worst": 7}


@dataclass(frozen=True)
class Measured:
    share: Annotated[float, Metric("share %", ".1%", is_headline=True)]
    angle: Annotated[float, Metric("angle", ".2f", "angle_deg/median")]
    above: Annotated[dict[float, float], Metric("above {:g} m", ".1f", "above/{:g}_m", "{:g} m")]
    count: int


def test_a_declared_metric_is_in_tables_json_and_captions() -> None:
    measured = Measured(0.25, 3.0, {0.5: 1.0, 2.0: 3.0}, 9)
    assert metric_titles(measured) == ("share %", "angle", "above 0.5 m", "2 m")
    assert metric_cells(measured) == ("25.0%", "3.00", "1.0", "3.0")
    assert metric_json(measured) == {
        "share": 0.25,
        "angle_deg": {"median": 3.0},
        "above": {"0.5_m": 1.0, "2_m": 3.0},
        "count": 9,
    }
    assert headlines(measured) == {"share": 0.25}
    assert headline_text(measured) == "share % 25.0%"


def test_brackets_in_names_are_printed(result: Result, capsys: pytest.CaptureFixture[str]) -> None:
    name = "drive[red].mcap"
    scores = result.scores["depth"].overall
    named = replace(
        result,
        title=name,
        scores={"depth": TaskScores(scores, {f"group of {name}": scores})},
        left_out={"pose": f"no poses in {name}"},
        notes={f"part of {name}": f"{name} is cut off"},
    )
    print_result(Console(width=100), named)
    assert capsys.readouterr().out.count(name) == 5


def test_a_model_that_answers_nothing(result: Result) -> None:
    pixels, nan = np.array([[10.0, 10.0]]), np.full((1, 2), np.nan)
    silent = replace(
        result,
        scores={
            "depth": score_by_group([view(0, "room", np.nan)], depth_scores),
            "correspondence": score_by_group(
                [ScoredMatches("room", pixels, nan, pixels, 100)], match_scores
            ),
        },
    )
    assert verdict(silent) == (
        "Depth: δ1 0.00 against 1.00 for the best guess that ignores the image. "
        "Matches: no answer could be read. Not scored: pose, objects."
    )
    assert "depth by distance" not in [table.title for table in result_tables(silent)]


def test_the_verdict_on_objects_leaves_out_what_was_not_asked() -> None:
    width = Asked(Quantity("width", (0.0, 0.0, 5.0, 5.0)), 1.0, 1.1)
    assert object_scores([ScoredObjects(0, "", (width,))]).verdict() == (
        "Objects: 100% of the lengths and directions right against 100% for the best constant "
        "answer."
    )
