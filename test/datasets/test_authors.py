# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from authors_folder import write_sample
from numpy.typing import NDArray
from PIL import Image

from vlm3_lab.scenes import sample_view
from vlm3_lab.scenes.view_pairs import RenderedPair, sample_pair
from vlm3_ros.datasets.authors import DEPTH, MATCHES, OBJECTS, POSE, read_authors
from vlm3_ros.datasets.views import View, ViewPair
from vlm3_ros.engines.profiles import shipped_profile
from vlm3_ros.errors import DatasetError
from vlm3_ros.geometry.camera import ImageLimits
from vlm3_ros.geometry.motion import motion_parts, rotation_angle
from vlm3_ros.tasks.conversations import CONVERSATIONS, true_value
from vlm3_ros.tasks.correspondence import CORRESPONDENCE
from vlm3_ros.tasks.depth import DEPTH as DEPTH_TASK
from vlm3_ros.tasks.task import ModelViews, model_view


@pytest.fixture(scope="module")
def view() -> View:
    return sample_view(np.random.default_rng(2), "room")


@pytest.fixture(scope="module")
def pair() -> RenderedPair:
    return sample_pair(np.random.default_rng(3), "room")


@pytest.fixture
def folder(view: View, pair: RenderedPair, tmp_path: Path) -> Path:
    write_sample(tmp_path / "sample_data", view, pair)
    return tmp_path / "sample_data"


def test_the_labels_are_those_of_the_files(folder: Path, view: View, pair: ViewPair) -> None:
    source = read_authors(folder)
    assert source.contents.has_depth.tolist() == [True, False, False, False, False]
    assert source.contents.has_pose.tolist() == [False, True, True, False, False]
    assert source.notes == [
        f"{MATCHES} has no intrinsics: 60 degrees across are assumed",
        f"there is no {OBJECTS}",
    ]
    depth = source.read(0)
    assert depth.labels is not None
    assert depth.camera == view.camera
    u, v = depth.labels.pixels.astype(int).T
    np.testing.assert_allclose(depth.labels.depth, view.depth[v, u], rtol=1e-6)
    assert np.isfinite(depth.depth).sum() == len(u)
    motion = ViewPair(source.read(1), source.read(2)).T_cam1_cam2
    found, true = motion_parts(motion), motion_parts(pair.T_cam1_cam2)
    np.testing.assert_allclose(found.yaw_pitch_roll_deg, true.yaw_pitch_roll_deg, atol=1e-9)
    np.testing.assert_allclose(found.direction, true.direction, atol=0.01)
    assert found.distance == pytest.approx(true.distance)
    pairs = source.pairs()
    read, rng = source.read, np.random.default_rng(0)
    assert pairs.first.tolist() == [1, 3]
    assert [pairs.second(number, rng, read) for number in (0, 1)] == [2, 4]
    assert pairs.labels(0) is None
    labels = pairs.labels(1)
    assert labels is not None
    np.testing.assert_allclose(labels.pixels2, pair.matches(labels.pixels1))


def test_questions_are_the_authors_own_word_for_word(tmp_path: Path) -> None:
    """The first labels and the example prompt of the authors' label files."""

    def prompts(profile: str, task: Any, size: tuple[int, int], pixels: list[list[float]]) -> Any:
        known = shipped_profile(profile)
        write_labels(tmp_path, size, pixels)
        source = read_authors(tmp_path)
        views = [source.read(i) for i in range(len(source.contents))]
        cameras = [model_view(known, ImageLimits(32, 4096, 2**24), view.camera) for view in views]
        wording = known.prompts[task.wording]
        seen = ModelViews(tuple(cameras), known.prompts.text_range, known.prompts.text_rounding)
        asked = source.pairs().labels(0).pixels1 if len(views) == 2 else views[0].labels.pixels
        return [prompt.text for prompt in task.prompts(wording, seen, asked)]

    assert (
        "coordinates (16, 1061) from"
        in prompts("vlm3-depth", DEPTH_TASK, (1215, 920), [[10, 488]])[0]
    )
    assert prompts("vlm3-corr", CORRESPONDENCE, (1024, 683), [[450.56, 40.96]])[0] == (
        "Given these two images, what pixel in the second image corresponds to pixel (440, 60) in "
        "the first image? Report the answer as (x, y)."
    )


def write_labels(folder: Path, size: tuple[int, int], pixels: list[list[float]]) -> None:
    """Depths or matches at these pixels of grey images."""
    for name in (DEPTH, MATCHES):
        (folder / name).unlink(missing_ok=True)
    grey: NDArray[np.uint8] = np.full((size[1], size[0], 3), 90, np.uint8)
    Image.fromarray(grey).save(folder / "grey.png")
    if size == (1215, 920):
        camera = {"fx": 1000.0, "fy": 1000.0, "cx": 609.056, "cy": 458.132}
        samples = [{"pixel_coord_resized": pixel, "depth_meters": 14.0} for pixel in pixels]
        content = {
            "image": "grey.png",
            "intrinsics_after_focal_normalization_to_1000": camera,
            "samples": samples,
        }
        (folder / DEPTH).write_text(json.dumps(content))
        return
    matches = [{"img1_pixel_in_resized": p, "img2_pixel_in_resized": p} for p in pixels]
    content = {"image_1": "grey.png", "image_2": "grey.png", "correspondences": matches}
    (folder / MATCHES).write_text(json.dumps(content))


def test_the_authors_rotation_is_read_in_their_convention(tmp_path: Path, folder: Path) -> None:
    """The angle that their label file states beside yaw, pitch and roll."""
    labels = json.loads((folder / POSE).read_text())
    labels["ground_truth_pose"] |= {
        "yaw_deg": 89.60077227075526,
        "pitch_deg": 2.598684372865458,
        "roll_deg": 6.072327841623985,
        "translation_unit_vector": "(-0.69, +0.02, +0.72)",
        "translation_distance_m": 1.9806591332884265,
    }
    (folder / POSE).write_text(json.dumps(labels))
    source = read_authors(folder)
    motion = ViewPair(source.read(1), source.read(2)).T_cam1_cam2
    assert np.degrees(rotation_angle(motion)) == pytest.approx(89.6547345694857, abs=1e-6)
    assert motion_parts(motion).distance == pytest.approx(1.98066, abs=1e-5)
    assert motion[0, 3] < 0 < motion[2, 3]


def test_the_question_about_objects_is_the_authors_own_word_for_word(tmp_path: Path) -> None:
    """With the content of their label file."""
    Image.fromarray(np.full((851, 1134, 3), 90, np.uint8)).save(tmp_path / "spatialrgpt.jpeg")
    camera = {"fx": 1000.0, "fy": 998.8106998731977, "cx": 566.657, "cy": 425.209}
    content = {
        "image": "spatialrgpt.jpeg",
        "image_size_resized": {"width": 1134, "height": 851},
        "intrinsics_after_focal_normalization_to_1000": camera,
        "bboxes": [
            {"region_id": 0, "bbox_normalized_1000": [0, 39, 652, 999]},
            {"region_id": 1, "bbox_normalized_1000": [6, 380, 228, 562]},
        ],
        "qa_info": {"category": "small_predicate", "type": "qualitative"},
        "raw_user_msg": "<image>\n Can you confirm if <mask> is smaller than <mask>?",
        "raw_assistant_msg": "Incorrect, Region [0] is not smaller in size than Region [1].",
    }
    (tmp_path / OBJECTS).write_text(json.dumps(content))
    source = read_authors(tmp_path)
    assert source.has_conversations
    view = source.read(0)
    (conversation,) = view.conversations
    assert true_value(conversation.question, conversation.answer) is False
    known = shipped_profile("vlm3-object")
    unified = model_view(known, ImageLimits(32, 4096, 2**24), view.camera)
    seen = ModelViews((unified,), known.prompts.text_range, known.prompts.text_rounding)
    wording = known.prompts[CONVERSATIONS.wording]
    (prompt,) = CONVERSATIONS.prompts(wording, seen, [conversation.question])
    assert prompt.text == (
        "Can you confirm if bounding box region (0, 39, 652, 999) is smaller than bounding box "
        "region (6, 380, 228, 562)?"
    )


def test_files_may_be_missing(folder: Path) -> None:
    (folder / DEPTH).unlink()
    (folder / MATCHES).unlink()
    source = read_authors(folder)
    assert len(source.contents) == 2
    assert source.notes == [f"there is no {file}" for file in (DEPTH, MATCHES, OBJECTS)]
    (folder / POSE).unlink()
    with pytest.raises(DatasetError, match=f"it holds none of {DEPTH}"):
        read_authors(folder)


@pytest.mark.parametrize(
    ("file", "changed", "complaint"),
    [
        (DEPTH, {"samples": [{"pixel_coord_resized": [1, 2]}]}, "KeyError.*depth_meters"),
        (DEPTH, {"samples": 3}, "TypeError"),
        (POSE, {"ground_truth_pose": {}}, "KeyError.*translation_unit_vector"),
        (MATCHES, {"correspondences": [{"img1_pixel_in_resized": [1]}]}, "cannot reshape"),
    ],
)
def test_a_wrong_label_file_is_named(
    folder: Path, file: str, changed: dict[str, Any], complaint: str
) -> None:
    content = json.loads((folder / file).read_text())
    (folder / file).write_text(json.dumps({**content, **changed}))
    with pytest.raises(DatasetError, match=complaint) as raised:
        read_authors(folder)
    assert str(raised.value).startswith(f"{folder / file}: it cannot be used")


def test_a_label_outside_of_its_image_is_named(folder: Path) -> None:
    content = json.loads((folder / DEPTH).read_text())
    content["samples"][0]["pixel_coord_resized"] = [5000, 3]
    (folder / DEPTH).write_text(json.dumps(content))
    with pytest.raises(DatasetError, match=r"depth.png, \d+x\d+ px: .*out of bounds"):
        read_authors(folder).read(0)
