# SPDX-License-Identifier: Apache-2.0
"""Answers about a pair are true, also if it is mirrored or exchanged."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from vlm3_lab.scenes.view_pairs import sample_pair, true_matches
from vlm3_lab.training.checkpoint import build_processor, build_tokenizer
from vlm3_lab.training.config import DataConfig
from vlm3_lab.training.samples import ModelInput, mirrored, sample_pixels
from vlm3_lab.training.streams import SampleStream, model_input
from vlm3_lab.training.tasks.pairs import Questions
from vlm3_lab.training.warmups.dense_depth import CELLS, WAVES
from vlm3_lab.training.warmups.dense_pairs import FLOW_CELLS, DensePairs, dense_flow, motion_code
from vlm3_ros.engines.base import Profile
from vlm3_ros.engines.processor import image_limits
from vlm3_ros.engines.profiles import shipped_profile
from vlm3_ros.geometry.camera import unify_focal
from vlm3_ros.geometry.epipolar import transferred_pixels
from vlm3_ros.geometry.motion import inverse, motion_from_parts
from vlm3_ros.language.prompts import load_prompt_set
from vlm3_ros.language.wordings.correspondence import CorrespondenceWording, parse_point
from vlm3_ros.language.wordings.pose import (
    PoseWording,
    parse_direction,
    parse_distance,
    parse_rotation,
)
from vlm3_ros.tasks.correspondence import CORRESPONDENCE
from vlm3_ros.tasks.pose import POSE
from vlm3_ros.tasks.task import true_pairs

PROFILE = Profile(128.0, "pad", load_prompt_set("vlm3-short"))
PROCESSOR = build_processor(build_tokenizer(PROFILE.prompts))
LIMITS = image_limits(PROCESSOR)


@pytest.fixture(scope="module", params=["room", "street"])
def pair(request):
    return sample_pair(np.random.default_rng(3), request.param)


MODEL = model_input(PROCESSOR, PROFILE)


def samples(**data):
    return Questions(MODEL, DataConfig(**data))


def unified(view):
    return unify_focal(view.camera, PROFILE.focal, LIMITS, PROFILE.fit)


@pytest.mark.parametrize("repeat", range(4))
def test_the_answers_about_every_variant_give_the_motion_between_its_views(pair, repeat):
    variant = samples().variant(pair, repeat)
    views = MODEL.views(variant.first, variant.second)
    pairs = true_pairs(POSE, PROFILE.prompts, views, None, variant.T_cam1_cam2)
    answers = [answer for _, answer in pairs]
    distance, direction, angles = (
        parse(text, PROFILE.prompts[PoseWording])
        for parse, text in zip(
            (parse_distance, parse_direction, parse_rotation), answers, strict=True
        )
    )
    answered = motion_from_parts(distance, direction, angles)
    assert answered == pytest.approx(variant.T_cam1_cam2, abs=0.02)
    # Independent of poses: what both views show lies where that motion puts it.
    first, second = variant.first, variant.second
    pixels = sample_pixels(first, 200, np.random.default_rng(1))
    matches = true_matches(first, second, pixels)
    seen = np.isfinite(matches[:, 0])
    assert seen.sum() > 20
    u, v = pixels[seen].astype(int).T
    moved = transferred_pixels(
        answered, first.camera, pixels[seen], first.depth[v, u], second.camera
    )
    assert np.median(np.linalg.norm(moved - matches[seen], axis=1)) < 3
    colours1 = first.image[v, u].astype(float)
    u2, v2 = np.round(matches[seen]).astype(int).T
    shuffled = np.random.default_rng(0).permutation(len(u2))
    same = np.abs(colours1 - second.image[v2, u2]).mean()
    other = np.abs(colours1 - second.image[v2[shuffled], u2[shuffled]]).mean()
    assert same < 0.7 * other, "matched pixels show the same"


def test_the_variants_are_mirrored_and_exchanged(pair):
    motions = [samples().variant(pair, repeat).T_cam1_cam2 for repeat in range(4)]
    mirror = np.diag([-1.0, 1, 1, 1])
    assert motions[1] == pytest.approx(mirror @ motions[0] @ mirror)
    assert motions[2] == pytest.approx(motions[0])
    assert motions[3] == pytest.approx(inverse(motions[1]))


def test_matches_of_a_mirrored_pair_are_the_mirrored_matches(pair):
    width1, width2 = pair.first.camera.width, pair.second.camera.width
    pixels = sample_pixels(pair.first, 100, np.random.default_rng(2))
    matches = true_matches(pair.first, pair.second, pixels)
    flipped = np.stack([width1 - 1 - pixels[:, 0], pixels[:, 1]], axis=-1)
    found = true_matches(mirrored(pair.first), mirrored(pair.second), flipped)
    found[:, 0] = width2 - 1 - found[:, 0]
    both = np.isfinite(matches[:, 0]) & np.isfinite(found[:, 0])
    assert both.sum() >= 0.95 * np.isfinite(matches[:, 0]).sum() > 0
    assert found[both] == pytest.approx(matches[both], abs=1e-6)


def test_match_answers_give_the_true_match(pair):
    pixels = sample_pixels(pair.first, 60, np.random.default_rng(4))
    matches = true_matches(pair.first, pair.second, pixels)
    seen = np.isfinite(matches[:, 0])
    views = MODEL.views(pair.first, pair.second)
    _, second = views.cameras
    asked = true_pairs(CORRESPONDENCE, PROFILE.prompts, views, pixels[seen], matches[seen])
    for (_, answer), pixel in zip(asked, matches[seen], strict=True):
        x, y = parse_point(
            answer, PROFILE.prompts[CorrespondenceWording], PROFILE.prompts.text_range
        )
        share = (second.to_view(pixel) + 0.5) / (second.view.width, second.view.height)
        assert np.floor(share * PROFILE.prompts.text_range) == pytest.approx([x, y])


def test_the_flow_of_cells_leads_to_their_match_in_the_first_view(pair):
    first, second = unified(pair.first), unified(pair.second)
    flow, places = dense_flow(pair, first, second, token=32)
    rows, columns = second.view.height // 32, second.view.width // 32
    assert flow.shape == (rows * columns, 2 * FLOW_CELLS**2)
    assert places.shape == (rows * columns, 2)
    cells = flow.reshape(rows, columns, FLOW_CELLS, FLOW_CELLS, 2)
    checked = 0
    for row, column, i, j in np.argwhere(np.isfinite(cells[..., 0]))[::7]:
        middle = np.array([column * 32 + j * 8 + 3.5, row * 32 + i * 8 + 3.5])
        source = np.round(second.to_source(middle))[None]
        truth = first.to_view(true_matches(pair.second, pair.first, source)[0])
        moved = second.to_view(source[0]) + 32 * cells[row, column, i, j]
        assert moved == pytest.approx(truth, abs=1e-6)
        checked += 1
    assert checked > 10
    shown = np.isfinite(places[:, 0])
    assert ((places[shown] >= 0) & (places[shown] <= 1)).all()


def test_a_still_camera_has_no_flow_and_no_motion(pair):
    first = unified(pair.first)
    still = type(pair)(pair.first, pair.first)
    flow, _ = dense_flow(still, first, first, token=32)
    assert np.nanmax(np.abs(flow)) < 1e-9
    assert motion_code(still.T_cam1_cam2, first) == pytest.approx(np.zeros(6), abs=1e-9)


def test_samples_hold_three_pose_questions_and_the_matches():
    data = DataConfig(matches=5, repeats=2)
    sample = next(iter(SampleStream(Questions(MODEL, data), data, batch_size=2)))
    assert 3 < len(sample.blocks) <= 8
    assert sample.image_grid_thw.shape == (2, 3)


def test_pose_and_matches_can_be_asked_separately(pair):
    asked = np.random.default_rng(0)
    assert len(samples(matches=0).sample(pair, asked).blocks) == 3
    assert len(samples(matches=6, pose=False).sample(pair, asked).blocks) == 6


def test_samples_for_the_released_checkpoints_have_their_questions_and_image_sizes(pair):
    rng = np.random.default_rng(0)
    pose = model_input(PROCESSOR, shipped_profile("vlm3-pose"))
    sample = Questions(pose, DataConfig(matches=0)).sample(pair, rng)
    assert len(sample.blocks) == 4
    camera = pair.first.camera
    expected = np.array([camera.height / camera.fy, camera.width / camera.fx]) * 750
    assert np.abs(sample.image_grid_thw[0, 1:].numpy() * 16 - expected).max() <= 16
    corr = model_input(PROCESSOR, shipped_profile("vlm3-corr"))
    sample = Questions(corr, DataConfig(matches=6, pose=False)).sample(pair, rng)
    assert len(sample.blocks) == 6
    assert sample.image_grid_thw[:, 1:].amax(dim=1).tolist() == [1024 // 16] * 2


def test_dense_samples_describe_every_token():
    data = DataConfig(matches=1, repeats=1)
    sample = next(iter(SampleStream(DensePairs(MODEL, data), data, batch_size=2)))
    of_first, of_second = (int(n) // 4 for n in sample.packed.image_grid_thw.prod(dim=1))
    assert sample.log_depth.shape == (of_first + of_second, CELLS**2)
    assert sample.flow.shape == (of_second, 2 * FLOW_CELLS**2)
    assert sample.match_places.shape == (of_second, 4 * len(WAVES))
    assert torch.equal(sample.is_second, torch.arange(of_first + of_second) >= of_first)


class Listing:
    """Packs nothing."""

    def pack(self, images, questions):
        return questions


def unscaled(pair):
    views = [replace(view, is_metric=False) for view in (pair.first, pair.second)]
    return type(pair)(*views)


def test_without_metric_scale_all_but_the_distance_is_taught(pair):
    listing = Questions(ModelInput(Listing(), PROFILE, LIMITS), DataConfig())
    metric, unknown = (
        listing.sample(one, np.random.default_rng(5)) for one in (pair, unscaled(pair))
    )
    (distance,) = [question for question in metric if question not in unknown]
    assert distance[0] == PROFILE.prompts[PoseWording].distance.question
    assert unknown == [question for question in metric if question != distance]


def test_without_metric_scale_dense_pairs_teach_matches_and_rotation():
    pair = sample_pair(np.random.default_rng(3), "room")
    dense = DensePairs(MODEL, DataConfig())
    metric, unknown = (
        dense.sample(one, np.random.default_rng(5)) for one in (pair, unscaled(pair))
    )
    assert torch.isnan(unknown.log_depth).all() and torch.isfinite(metric.log_depth).any()
    assert torch.isnan(unknown.motion[:, :3]).all()
    assert torch.equal(unknown.motion[:, 3:], metric.motion[:, 3:])
    assert torch.equal(unknown.flow.nan_to_num(9), metric.flow.nan_to_num(9))
