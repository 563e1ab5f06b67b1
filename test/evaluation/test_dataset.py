# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import json
import math
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from authors_folder import write_sample
from memory_source import MemorySource
from truth import TruthEngine, exact_prompts, for_all_tasks
from wai_folder import write_scene

from vlm3_lab.scenes.view_pairs import RenderedPair, sample_pair
from vlm3_ros.datasets.authors import read_authors
from vlm3_ros.datasets.source import FrameSource
from vlm3_ros.datasets.views import View
from vlm3_ros.datasets.wai.source import read_wai
from vlm3_ros.engines.base import Engine
from vlm3_ros.errors import DatasetError, NoAnswersError, Vlm3Error
from vlm3_ros.evaluation.dataset.evaluate import (
    DataEvaluation,
    data_result,
    data_tasks,
    evaluate_data,
)
from vlm3_ros.evaluation.dataset.published import published, published_numbers
from vlm3_ros.evaluation.dataset.settings import DataSettings
from vlm3_ros.evaluation.json_file import write_json
from vlm3_ros.evaluation.parts.base import draw_pictures
from vlm3_ros.evaluation.result import result_json, result_tables, verdict
from vlm3_ros.geometry.motion import inverse
from vlm3_ros.paths import Task

PAIRS = [(0, 1), (2, 3), (4, 5)]


@pytest.fixture(scope="module")
def views() -> list[View]:
    """Two rooms and a yard, each seen twice."""
    rng = np.random.default_rng(4)
    pairs = [sample_pair(rng, kind) for kind in ("room", "room", "yard")]
    return [
        replace(view, kind=name)
        for name, pair in zip(("hall", "office", "yard"), pairs, strict=True)
        for view in (pair.first, pair.second)
    ]


@pytest.fixture(scope="module")
def oracle(views: list[View]) -> TruthEngine:
    return TruthEngine(views)


def evaluate(
    engine: Engine,
    source: FrameSource,
    tasks: Sequence[Task] = (),
    pairs: Path | None = None,
    **settings: Any,
) -> DataEvaluation:
    names = dict.fromkeys(("depth", "pose", "correspondence"), engine.name)
    data = data_tasks(source, tasks, pairs)
    names = {task: name for task, name in names.items() if task in data.tasks}
    return evaluate_data(
        for_all_tasks(engine),
        names,
        data,
        DataSettings(**settings),
        lambda name: nullcontext(lambda done, total: None),
    )


def metrics_of(evaluation: DataEvaluation, folder: Path, **options: Any) -> dict[str, Any]:
    result = data_result(evaluation, "memory", "memory", **options)
    write_json(folder / "metrics.json", result_json(result))
    content: dict[str, Any] = json.loads((folder / "metrics.json").read_text())
    return content


def test_true_answers_have_no_error(views: list[View], oracle: TruthEngine, tmp_path: Path) -> None:
    evaluation = evaluate(oracle, MemorySource(views, PAIRS), matches=4)
    metrics = metrics_of(evaluation, tmp_path)
    assert metrics["model"] == metrics["pair_model"] == "truth"
    assert "match_model" not in metrics
    assert (metrics["depth"]["delta1"], metrics["depth"]["pixels"]) == (1, 60)
    assert metrics["depth"]["abs_rel"] < 1e-6
    assert [metrics["pose"][f"auc{limit}"] for limit in (30, 15, 5, 3)] == [1, 1, 1, 1]
    assert metrics["pose"]["distance_error_m"]["median"] < 1e-6
    assert metrics["correspondence"]["epe_px"] < 0.01
    assert metrics["correspondence"]["matches"] == 12
    assert metrics["frames"] == {"used": 6, "skipped": {}}
    assert set(metrics["groups"]) == {"hall", "office", "yard"}
    assert metrics["groups"]["yard"]["pose"]["auc3"] == 1
    assert {"constant", "row", "identity", "constant_motion", "sift", "same_pixel"} == set(
        metrics["baselines"]
    )
    assert metrics["baselines"]["constant"]["depth"]["delta1"] < 1
    assert metrics["baselines"]["same_pixel"]["correspondence"]["epe_px"] > 1
    assert metrics["left_out"] == {}
    drawn = draw_pictures(evaluation.parts, evaluation.names, tmp_path)
    assert list(drawn) == ["views.png", "pairs.png"]
    for name in drawn:
        assert cv2.imread(str(tmp_path / name)) is not None


def test_a_model_that_sees_nothing_is_no_better_than_the_guesses(
    views: list[View], tmp_path: Path
) -> None:
    """It answers about every frame as if it were the first one, seen from where it stands."""
    first = views[0]
    blind = TruthEngine(
        [
            replace(
                first,
                image=view.image,
                camera=view.camera,
                depth=cv2.resize(first.depth, (view.camera.width, view.camera.height)),
            )
            for view in views
        ]
    )
    metrics = metrics_of(evaluate(blind, MemorySource(views, PAIRS), ["depth", "pose"]), tmp_path)
    best = metrics["baselines"]["row"]["depth"]["delta1"]
    assert metrics["depth"]["delta1"] <= best + 0.1
    assert metrics["pose"]["auc30"] == 0


def test_frames_that_cannot_be_read_are_skipped_and_named(
    views: list[View], oracle: TruthEngine, tmp_path: Path
) -> None:
    unknown = replace(views[4], depth=np.full_like(views[4].depth, np.nan))
    source = MemorySource([*views[:4], unknown, views[5]], PAIRS, {1: "hall/1.png: broken"})
    source.contents.has_depth[4] = True  # as a data set whose depth image is empty
    evaluation = evaluate(oracle, source)
    result = data_result(evaluation, "memory", "memory")
    metrics = metrics_of(evaluation, tmp_path)
    assert metrics["depth"]["images"] == 4
    assert metrics["pose"]["pairs"] == 2
    assert metrics["frames"]["skipped"] == {
        "hall/1.png": "hall/1.png: broken",
        "yard/4.png": "no pixel has a depth",
    }
    assert "Skipped: 2 frames or pairs." in verdict(result)
    assert "2: hall/1.png: broken; yard/4.png: no pixel" in result.all_notes["skipped"]


def test_it_is_an_error_if_all_frames_are_skipped(views: list[View], oracle: TruthEngine) -> None:
    source = MemorySource(views, PAIRS, dict.fromkeys(range(6), "no such image"))
    with pytest.raises(DatasetError, match="memory: no frame with depth could be used: hall/0"):
        evaluate(oracle, source, ["depth"])
    with pytest.raises(
        DatasetError, match=r"memory: no pair of frames could be used: .*such image"
    ):
        evaluate(oracle, source, ["pose"])


def test_frames_pixels_and_pairs_are_drawn_by_seed(views: list[View], oracle: TruthEngine) -> None:
    source = MemorySource(views, PAIRS)

    def asked(seed: int) -> tuple[list[int], list[int]]:
        evaluation = evaluate(oracle, source, frames=2, pixels=3, matches=1, seed=seed)
        depth, pairs = evaluation.parts
        frames = [view.index for view in depth.depth.overall.views]
        rows = np.concatenate([view.rows for view in depth.depth.overall.views])
        assert len(rows) == 6
        assert len(pairs.pairs) == 2
        return frames, rows.tolist()

    assert asked(1) == asked(1)
    assert asked(1) != asked(2)


def test_held_out_frames_alone_are_asked_about(
    views: list[View], oracle: TruthEngine, tmp_path: Path
) -> None:
    evaluation = evaluate(oracle, MemorySource(views, PAIRS, held_out=(0, 1)))
    metrics = metrics_of(evaluation, tmp_path)
    assert (metrics["depth"]["images"], metrics["pose"]["pairs"]) == (2, 1)
    assert metrics["notes"]["held out"] == "only 2 held-out frames of 6 are asked about"
    assert metrics["groups"] == {}, "one scene alone"


def test_without_metric_scale_neither_depth_nor_distance_is_scored(
    views: list[View], oracle: TruthEngine, tmp_path: Path
) -> None:
    def scaled(view: View) -> View:
        pose = view.T_world_camera.copy()
        pose[:3, 3] *= 7
        return replace(view, T_world_camera=pose, depth=7 * view.depth, is_metric=False)

    source = MemorySource([scaled(view) for view in views], PAIRS)
    with pytest.raises(DatasetError, match="memory: no frame has depth in metres"):
        evaluate(oracle, source, ["depth", "pose"])
    evaluation = evaluate(oracle, source, matches=4)
    metrics = metrics_of(evaluation, tmp_path)
    assert metrics["pose"]["auc3"] == 1
    assert metrics["pose"]["direction_deg"]["median"] < 1e-4
    assert metrics["pose"]["distance_error_m"]["median"] is None
    assert metrics["correspondence"]["epe_px"] < 0.01
    assert metrics["left_out"] == {
        "depth": "memory: no frame has depth in metres",
        "consistency": "no motion has a metric scale",
    }
    (table,) = (t for t in result_tables(data_result(evaluation, "", "")) if "3 pairs" in t.title)
    assert "3 pairs has no metric scale: no distance is scored" in table.note
    draw_pictures(evaluation.parts, evaluation.names, tmp_path)
    assert cv2.imread(str(tmp_path / "pairs.png")) is not None


@pytest.mark.parametrize(
    ("tasks", "asked"), [(["pose"], {"pose"}), (["correspondence"], {"correspondence"})]
)
def test_what_is_not_wanted_is_not_asked(
    views: list[View], oracle: TruthEngine, tmp_path: Path, tasks: list[Task], asked: set[str]
) -> None:
    metrics = metrics_of(evaluate(oracle, MemorySource(views, PAIRS), tasks), tmp_path)
    assert set(metrics["answers"]) == asked
    assert {"depth", "pose", "correspondence"} & set(metrics) == asked
    assert metrics["left_out"] == {}


def test_a_task_that_cannot_be_served_is_named(views: list[View], oracle: TruthEngine) -> None:
    with pytest.raises(DatasetError, match="memory: there are no pairs of frames"):
        evaluate(oracle, MemorySource(views), ["pose"])
    assert "pose" in evaluate(oracle, MemorySource(views)).left_out
    bare = [replace(view, depth=np.full_like(view.depth, np.nan)) for view in views]
    with pytest.raises(DatasetError, match="no frame has depth in metres; memory: there are no"):
        evaluate(oracle, MemorySource(bare))
    with pytest.raises(NoAnswersError, match="could not be read"):
        evaluate(TruthEngine(bare), MemorySource(views), ["depth"])


def test_what_a_model_did_not_learn_is_left_out(views: list[View]) -> None:
    engine = TruthEngine(views, exact_prompts().without("pose", "correspondence"))
    left_out = evaluate(engine, MemorySource(views, PAIRS)).left_out
    assert left_out["pose"].startswith("truth did not learn")
    with pytest.raises(Vlm3Error, match="truth did not learn"):
        evaluate(engine, MemorySource(views, PAIRS), ["pose"])


def test_a_list_names_pairs_by_name_by_its_end_and_by_number(
    views: list[View], oracle: TruthEngine, tmp_path: Path
) -> None:
    listed = tmp_path / "pairs.json"
    listed.write_text('[["hall/1.png", "0.png"], [3, 2]]')
    evaluation = evaluate(oracle, MemorySource(views), ["pose"], listed)
    (part,) = evaluation.parts
    motions = {pair.group: pair.motion for pair in part.pairs}
    assert set(motions) == {"hall", "office"}
    expected = inverse(views[1].T_world_camera) @ views[0].T_world_camera
    np.testing.assert_allclose(motions["hall"].truth, expected)
    assert motions["hall"].error_deg < 1e-3


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        ("{", "it is not JSON"),
        ("{}", "expected a list of pairs"),
        ("[]", "expected a list of pairs"),
        ("[[0, 1], [0]]", r"pair 1: expected two frames, found \[0\]"),
        ("[[0, 6]]", "pair 0: there is no frame 6: memory has 6"),
        ("[[0, true]]", "pair 0: true is no name or number of a frame"),
        (
            '[["hall/0.png", "hall/7.png"]]',
            "memory has no frame called 'hall/7.png'; its first one is",
        ),
        ("[[0, 5]]", "pair 0: frame yard/5.png has no pose"),
    ],
)
def test_a_wrong_list_of_pairs_is_refused(
    views: list[View], tmp_path: Path, content: str, complaint: str
) -> None:
    listed = tmp_path / "pairs.json"
    listed.write_text(content)
    lost = replace(views[5], T_world_camera=np.full((4, 4), np.nan))
    with pytest.raises(DatasetError, match=complaint) as raised:
        data_tasks(MemorySource([*views[:5], lost]), (), listed)
    assert str(raised.value).startswith(str(listed))


def test_a_pair_of_two_scenes_is_skipped(
    views: list[View], oracle: TruthEngine, tmp_path: Path
) -> None:
    listed = tmp_path / "pairs.json"
    listed.write_text("[[0, 1], [1, 2]]")
    evaluation = evaluate(oracle, MemorySource(views), ["pose"], listed)
    assert evaluation.reader.skipped == {
        "hall/1.png and office/2.png": "its frames are of two scenes: hall and office"
    }


def test_the_paper_s_numbers_stand_in_tables_of_their_own(
    views: list[View], oracle: TruthEngine, tmp_path: Path
) -> None:
    evaluation = evaluate(oracle, MemorySource(views, PAIRS), ["correspondence"])
    plain = metrics_of(evaluation, tmp_path)
    metrics = metrics_of(evaluation, tmp_path, with_published=True)
    shown = metrics.pop("published")
    assert metrics == plain, "measured numbers are as without"
    assert set(shown) == {"source", "remarks", "correspondence"}
    tables = published(["correspondence"]).tables({})
    assert [table.title for table in tables] == [
        "published, correspondence: EPE in px at UFM's scale, lower is better"
    ] * 2
    assert tables[1].rows[1] == ("UFM", "3.83", "7.28", "12.56", "7.89")
    assert all("Not measured here. Source: VLM3" in table.note for table in tables)


def test_averages_of_the_paper_s_numbers_are_those_of_their_rows() -> None:
    as_printed = {("depth", "Qwen3-VL-4B"), ("correspondence", "DKM")}  # other averages
    for task, allowed in {"depth": 6e-4, "pose": 0.051, "correspondence": 0.0051}.items():
        for table in published_numbers()[task]:
            for method, values in table["rows"].items():
                assert len(values) == len(table["columns"]), method
                has_average = table["columns"][-1] == "average" and None not in values
                if has_average and (task, method) not in as_printed:
                    mean = math.fsum(values[:-1]) / (len(values) - 1)
                    assert mean == pytest.approx(values[-1], abs=allowed), method


def test_the_authors_sample_is_scored(views: list[View], tmp_path: Path) -> None:
    """Their direction has two decimals, and the pair with matches no intrinsics."""
    pair = RenderedPair(views[0], views[1])
    write_sample(tmp_path / "sample_data", views[2], pair)
    source = read_authors(tmp_path / "sample_data")
    oracle = TruthEngine(views)
    prompts = exact_prompts().without("depth", "pose", "objects")
    matcher = TruthEngine(views, prompts, None, longest_side=512, name="corr")
    evaluation = evaluate_data(
        {"depth": oracle, "pose": oracle, "correspondence": matcher},
        {"depth": "truth", "pose": "truth", "correspondence": "corr"},
        data_tasks(source),
        DataSettings(),
        lambda name: nullcontext(lambda done, total: None),
    )
    metrics = metrics_of(evaluation, tmp_path, protocol="the authors")
    assert metrics["source"]["protocol"] == "the authors"
    assert (metrics["depth"]["delta1"], metrics["depth"]["pixels"]) == (1, 6)
    assert (metrics["pose"]["auc3"], metrics["pose"]["pairs"]) == (1, 1)
    assert metrics["pose"]["direction_deg"]["median"] < 0.4
    assert metrics["correspondence"]["matches"] == 6
    assert metrics["correspondence"]["epe_px"] < 0.01
    assert metrics["match_model"] == "corr"
    assert metrics["left_out"] == {}
    draw_pictures(evaluation.parts, evaluation.names, tmp_path)
    assert cv2.imread(str(tmp_path / "pairs.png")) is not None


@pytest.mark.parametrize("scale_type", ["metric", "colmap"])
def test_true_answers_about_wai_scenes_have_no_error(
    views: list[View], tmp_path: Path, scale_type: str
) -> None:
    for name, at in (("hall", 0), ("office", 2)):
        scene = tmp_path / "wai" / name
        write_scene(scene, views[at : at + 2], scale_type=scale_type, matrix="v0")
    source = read_wai(tmp_path / "wai")
    listed = tmp_path / "pairs.json"
    listed.write_text('[["hall/00000000", "hall/00000001"], [2, 3]]')
    known = [source.read(index) for index in range(4)]
    metrics = metrics_of(evaluate(TruthEngine(known), source, (), listed), tmp_path)
    is_metric = scale_type == "metric"
    assert ("depth" in metrics) == is_metric
    if is_metric:
        assert metrics["depth"]["delta1"] == 1
        assert metrics["depth"]["abs_rel"] < 1e-6
    assert (metrics["pose"]["auc3"], metrics["pose"]["pairs"]) == (1, 2)
    assert (metrics["pose"]["distance_error_m"]["median"] is None) == (not is_metric)
    assert metrics["correspondence"]["epe_px"] < 0.1
    assert set(metrics["groups"]) == {"hall", "office"}
    assert ("without metric scale" in metrics["notes"].get("the data set", "")) == (not is_metric)
