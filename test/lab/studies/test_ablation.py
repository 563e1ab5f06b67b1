# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from vlm3_lab.scenes import KINDS
from vlm3_lab.studies.ablation.results import (
    ArmScore,
    Finding,
    ablation_json,
    ablation_markdown,
    baselines,
    draw_ablation,
    finding_rows,
    pooled_mean,
    read_score,
    write_score,
)
from vlm3_ros.evaluation.json_file import write_json
from vlm3_ros.evaluation.scores.depth import ScoredView

FINDING = Finding("pixels", "How a pixel is named", ("text", "arrow"), {"text": 0.85})
WORDS = {"text": "coordinates", "arrow": "arrows"}


def test_the_interval_of_a_share_is_that_of_the_binomial() -> None:
    hits = np.arange(400) % 2
    estimate = pooled_mean(hits, np.ones(400))
    half = 1.96 * np.sqrt(0.5 * 0.5 / 400)
    assert estimate.value == 0.5
    assert estimate.high - 0.5 == pytest.approx(half, rel=0.1)
    assert 0.5 - estimate.low == pytest.approx(half, rel=0.1)


def test_agreeing_pixels_of_one_image_count_as_one() -> None:
    alone = pooled_mean(np.arange(400) % 2, np.ones(400))
    ten_alike = pooled_mean(10 * (np.arange(40) % 2), np.full(40, 10))
    ratio = (ten_alike.high - ten_alike.low) / (alone.high - alone.low)
    assert ratio == pytest.approx(np.sqrt(10), rel=0.15)


def test_images_with_more_pixels_weigh_more() -> None:
    assert pooled_mean([9, 0], [9, 1]).value == 0.9


@pytest.mark.parametrize("share", [0, 1])
def test_constant_values_have_an_interval_of_no_width(share: int) -> None:
    estimate = pooled_mean(np.full(5, 3 * share), np.full(5, 3))
    assert (estimate.value, estimate.low, estimate.high) == (share, share, share)


def test_differences_are_paired() -> None:
    """Both arms fail on the same hard images: each is uncertain, their difference is not."""
    hard = np.random.default_rng(0).random(100) < 0.5
    better, worse = np.where(hard, 1, 9), np.where(hard, 0, 8)
    counts = np.full(100, 10)
    difference = pooled_mean(better - worse, counts)
    assert difference.value == pytest.approx(0.1)
    assert (difference.low, difference.high) == pytest.approx((0.1, 0.1))
    single = pooled_mean(better, counts)
    assert single.high - single.low > 0.1


def _score(arm: str, hits: NDArray[np.bool_], seed: int = 0) -> ArmScore:
    """Answers that are right where `hits` says so; views of all kinds, two pixels each."""
    views = []
    for index, right in enumerate(hits):
        truth = np.array([2.0, 4.0])
        views.append(
            ScoredView(
                index=index,
                group=KINDS[index % len(KINDS)],
                predicted=np.where(right, truth, [np.nan, 99.0]),
                std=np.full(2, np.nan),
                truth=truth,
                rows=np.array([0.2, 0.8]),
            )
        )
    return ArmScore(arm, seed, tuple(views), labels=640, warmup_seconds=5.0, seconds=8.0)


def _scores() -> list[ArmScore]:
    right = np.ones((12, 2), bool)
    half = right & [True, False]
    return [_score("text", right), _score("arrow", half), _score("arrow", ~right, seed=1)]


def test_rows_compare_with_the_first_arm_on_seeds_that_both_have() -> None:
    text, arrow = finding_rows(FINDING, _scores())
    assert text.delta1.value == 1.0
    assert text.difference is None
    assert text.paper == 0.85
    assert arrow.paper is None
    assert arrow.by_seed == (0.5, 0.0)
    assert arrow.delta1.value == 0.25
    assert arrow.difference is not None
    assert arrow.difference.value == -0.5
    assert arrow.unanswered == 12
    assert arrow.labels_per_s == 80
    assert arrow.by_kind == dict.fromkeys(KINDS, 0.25)


def test_without_its_first_arm_a_finding_has_no_rows() -> None:
    assert finding_rows(FINDING, _scores()[1:]) == []


def test_scores_survive_their_file(tmp_path: Path) -> None:
    score = _scores()[1]
    write_score(score, tmp_path / "score.json")
    read = read_score(tmp_path / "score.json")
    assert (read.arm, read.seed, read.labels, read.seconds) == ("arrow", 0, 640, 8.0)
    for one, other in zip(read.views, score.views, strict=True):
        assert (one.index, one.group) == (other.index, other.group)
        for name in ("predicted", "std", "truth", "rows"):
            assert np.array_equal(getattr(one, name), getattr(other, name), equal_nan=True)


def test_tables_json_and_picture_agree(tmp_path: Path) -> None:
    scores = _scores()
    absent = Finding("mixture", "Mixtures", ("other", "text"), {})
    table = ablation_markdown([FINDING, absent], scores, WORDS)
    assert "| arrows | 0.250 [" in table
    assert "| -0.500 [-0.500, -0.500] |" in table
    assert "0.500, 0.000" in table
    assert "Mixtures" not in table
    rows = [line for line in table.splitlines() if line.startswith("|")]
    assert len({line.count("|") for line in rows}) == 1
    write_json(tmp_path / "ablation.json", ablation_json([FINDING, absent], scores, WORDS))
    content = json.loads((tmp_path / "ablation.json").read_text())
    assert content["findings"]["mixture"] == []
    assert content["findings"]["pixels"][1]["difference"]["value"] == -0.5
    assert content["baselines"] == baselines(scores[0].views) == {"constant": 0.5, "row": 1.0}
    draw_ablation([FINDING, absent], scores, WORDS, tmp_path / "ablation.png")
    assert cv2.imread(str(tmp_path / "ablation.png")) is not None
