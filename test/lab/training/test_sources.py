# SPDX-License-Identifier: Apache-2.0
"""Scenes come from the named sources, in proportion to their weights."""

from __future__ import annotations

import logging
from collections import Counter

import numpy as np
import pytest
import torch
from dataset_folder import write_dataset
from torch.utils.data import DataLoader

from vlm3_lab.scenes.view_pairs import sample_pair
from vlm3_lab.training.checkpoint import build_processor, build_tokenizer
from vlm3_lab.training.config import (
    ConfigError,
    DataConfig,
    OptimiserConfig,
    SourceConfig,
    TrainConfig,
    TrainingError,
    WarmupConfig,
)
from vlm3_lab.training.samples import ModelInput, PairSamples, ViewSamples, sample_pixels
from vlm3_lab.training.sources import check_sources
from vlm3_lab.training.streams import SampleStream, model_input
from vlm3_lab.training.warmups.dense_depth import DenseDepth
from vlm3_lab.training.warmups.dense_pairs import DensePairs
from vlm3_ros.datasets.own import load_dataset
from vlm3_ros.datasets.views import View, ViewPair
from vlm3_ros.engines.base import Profile
from vlm3_ros.geometry.camera import PinholeCamera
from vlm3_ros.language.prompts import load_prompt_set

CAMERA = PinholeCamera(32, 24, 30.0, 30.0, 15.5, 11.5)


def plain_view(brightness, kind="room"):
    image = np.full((24, 32, 3), brightness, np.uint8)
    depth = np.full((24, 32), 1 + brightness / 100, np.float32)
    return View(image, depth, CAMERA, np.eye(4), kind, ())


class WholeViews(ViewSamples[View]):
    """The scenes themselves."""

    def sample(self, scene, rng):
        return scene

    def length(self, sample):
        return 0


class WholePairs(PairSamples[ViewPair]):
    """The scenes themselves."""

    def sample(self, scene, rng):
        return scene

    def length(self, sample):
        return 0


NO_MODEL = ModelInput(None, None, None)


def stream_of(sources, samples=WholeViews, start=0, **options):
    data = DataConfig(sources=sources, **options)
    return SampleStream(samples(NO_MODEL, data), data, batch_size=2, start=start)


@pytest.fixture
def plain_views(monkeypatch):
    """Rendered views have one colour each: these tests only ask which are drawn."""
    monkeypatch.setattr(
        "vlm3_lab.training.sources.sample_view",
        lambda rng, kind: plain_view(int(rng.integers(200)), kind),
    )


@pytest.mark.usefixtures("plain_views")
@pytest.mark.parametrize(("weights", "share"), [("given", 0.75), ("uniform", 0.5), ("size", 0.1)])
def test_each_source_is_drawn_from_as_its_weight_says(weights, share):
    sources = {
        "rooms": SourceConfig(kinds=("room",), scenes=10, weight=3.0),
        "streets": SourceConfig(kinds=("street",), scenes=90, weight=1.0),
        "nothing": SourceConfig(kinds=("yard",), scenes=5, weight=0.0),
    }
    stream = stream_of(sources, weights=weights)
    count = 600
    drawn = Counter(stream.scene(index).kind for index in range(count))
    assert drawn["room"] + drawn["street"] == count
    deviation = np.sqrt(share * (1 - share) / count)
    assert drawn["room"] / count == pytest.approx(share, abs=4 * deviation)


@pytest.mark.usefixtures("plain_views")
def test_a_limited_source_holds_the_same_scenes_for_every_seed_and_a_larger_one_more():
    def colours(scenes, seed, name="few"):
        stream = stream_of({name: SourceConfig(scenes=scenes)}, seed=seed)
        return [int(stream.scene(index).image[0, 0, 0]) for index in range(150)]

    few = colours(8, seed=1)
    assert 3 < len(set(few)) <= 8
    assert set(colours(8, seed=2)) == set(few) and colours(8, seed=2) != few
    assert set(few) < set(colours(16, seed=1)), "more scenes are the same and others"
    assert set(colours(8, seed=1, name="other")) != set(few)
    assert len(set(colours(0, seed=1))) > 50


def test_a_limited_scene_is_the_same_picture_every_time():
    stream = stream_of({"one": SourceConfig(kinds=("room",), scenes=1)})
    first, second = stream.scene(0), stream.scene(1)
    assert np.array_equal(first.image, second.image) and np.array_equal(first.depth, second.depth)
    assert first.image.std() > 0


@pytest.mark.usefixtures("plain_views")
def test_a_source_that_never_shows_enough_is_named():
    stream = stream_of({"small": SourceConfig(kinds=("room",))}, questions=24 * 32 + 1)
    with pytest.raises(TrainingError, match="source small: of 600 rendered scenes, none"):
        stream.scene(0)


@pytest.fixture(scope="module")
def pair():
    return sample_pair(np.random.default_rng(5), "room")


@pytest.fixture
def folder(tmp_path, pair):
    """Two real views and two plain ones; the last one is held out."""
    views = [pair.first, pair.second, plain_view(20), plain_view(40)]
    write_dataset(tmp_path / "own", views, pairs=[(0, 1)], held_out=[3])
    return tmp_path / "own"


@pytest.mark.parametrize(
    ("frames", "known"), [("train", [1.2]), ("held_out", [1.4]), ("all", [1.2, 1.4])]
)
def test_views_of_a_dataset_are_the_frames_of_its_split(folder, frames, known):
    stream = stream_of({"own": SourceConfig(dataset=str(folder), frames=frames)})
    views = [stream.scene(index) for index in range(40)]
    plain = {round(float(view.depth[0, 0]), 3) for view in views if view.depth.shape == (24, 32)}
    assert sorted(plain) == pytest.approx(known)
    assert {view.kind for view in views} == {"walk"}


def test_pairs_of_a_dataset_move_and_match_as_recorded(folder, pair):
    scene = stream_of({"own": SourceConfig(dataset=str(folder))}, WholePairs).scene(3)
    assert scene.T_cam1_cam2 == pytest.approx(pair.T_cam1_cam2)
    pixels = sample_pixels(pair.first, 200, np.random.default_rng(1))
    true, found = pair.matches(pixels), scene.matches(pixels)
    both = np.isfinite(true[:, 0]) & np.isfinite(found[:, 0])
    assert both.sum() > 0.9 * np.isfinite(true[:, 0]).sum() > 20
    assert found[both] == pytest.approx(true[both], abs=0.3)  # depth in whole millimetres
    turned = WholePairs(NO_MODEL, DataConfig()).variant(scene, 3)
    backwards = turned.matches(sample_pixels(turned.first, 200, np.random.default_rng(2)))
    assert np.isfinite(backwards[:, 0]).sum() > 20, "mirrored and exchanged, it still matches"


def test_a_dataset_has_what_the_warm_ups_learn(folder):
    profile = Profile(128.0, "pad", load_prompt_set("vlm3-short"))
    processor = build_processor(build_tokenizer(profile.prompts))
    model = model_input(processor, profile)
    data = DataConfig(sources={"own": SourceConfig(dataset=str(folder), frames="train")})
    of_pairs = next(SampleStream(DensePairs(model, data), data, 1).samples_of(0))
    assert torch.isfinite(of_pairs.flow).float().mean() > 0.25
    assert torch.isfinite(of_pairs.log_depth).any() and torch.isfinite(of_pairs.motion).all()
    of_views = next(SampleStream(DenseDepth(model, data), data, 1).samples_of(0))
    assert torch.isfinite(of_views.log_depth).any()


@pytest.mark.parametrize("workers", [0, 2])
def test_an_unreadable_image_is_skipped_named_once_and_counted(folder, caplog, workers):
    (folder / "images" / "2.jpg").write_bytes(b"torn")
    stream = stream_of({"own": SourceConfig(dataset=str(folder))})
    loader = DataLoader(stream, batch_size=None, num_workers=workers)
    views = [view for view, _ in zip(loader, range(60), strict=False)]
    assert {view.image.shape for view in views} == {(*pair_shape(folder), 3)}
    if not workers:
        (warning,) = caplog.messages
        assert "source own" in warning and "2.jpg" in warning
    caplog.clear()
    stream.sources.log_unreadable()
    assert caplog.messages == ["source own: 1 of 4 images could not be read"]


def pair_shape(folder):
    """Height and width of its real views."""
    dataset = load_dataset(folder)
    return dataset.frames[0].camera.height, dataset.frames[0].camera.width


def test_a_source_without_a_readable_scene_is_named(folder):
    for image in (folder / "images").iterdir():
        image.unlink()
    stream = stream_of({"own": SourceConfig(dataset=str(folder))})
    with pytest.raises(TrainingError, match="source own: of 3 scenes, none"):
        stream.scene(0)


@pytest.mark.usefixtures("plain_views")
def test_a_resumed_stream_draws_the_next_scenes(folder):
    sources = {"own": SourceConfig(dataset=str(folder)), "few": SourceConfig(scenes=5)}

    def pictures(start, count):
        stream = stream_of(sources, start=start)
        return [view.image for view, _ in zip(stream, range(count), strict=False)]

    whole, rest = pictures(0, 10), pictures(6, 4)
    assert all(np.array_equal(a, b) for a, b in zip(whole[6:], rest, strict=True))


def test_the_sources_of_each_task_are_logged(folder, caplog):
    caplog.set_level(logging.INFO)
    data = DataConfig(
        tasks={"depth": 1, "pairs": 1, "objects": 1},
        sources={
            "rooms": SourceConfig(kinds=("room",)),
            "own": SourceConfig(dataset=str(folder), weight=3),
            "flat": SourceConfig(dataset=str(folder.parent / "flat"), weight=4),
        },
    )
    write_dataset(folder.parent / "flat", [plain_view(20)])
    check_sources(TrainConfig(data=data), "run.yaml")
    assert caplog.messages == [
        "data: depth from rooms 12.5% (endless), own 37.5% (3), flat 50.0% (1)",
        "data: pairs from rooms 25.0% (endless), own 75.0% (1), flat has none",
        "data: objects from rooms 25.0% (endless), own 75.0% (2), flat has none",
    ]


def test_datasets_that_lack_what_a_task_needs_are_named(tmp_path, pair):
    write_dataset(tmp_path / "own", [plain_view(20)], has_poses=False)
    own = {"own": SourceConfig(dataset=str(tmp_path / "own"))}
    warmed = WarmupConfig(DataConfig(sources=own), OptimiserConfig(steps=3))
    gone = DataConfig(sources={"own": SourceConfig(dataset=str(tmp_path / "gone"))})
    held_out = DataConfig(
        sources={"own": SourceConfig(dataset=str(tmp_path / "own"), frames="held_out")}
    )
    for config, named in (
        (TrainConfig(data=gone), "run.yaml: data.sources.own.dataset: .*gone.*vlm3 dataset"),
        (TrainConfig(data=held_out), "run.yaml: data.tasks asks for depth, but own has no"),
        (
            TrainConfig(data=DataConfig(tasks={"pairs": 1}, sources=own)),
            "run.yaml: data.tasks asks for pairs, but own has no pairs .* poses",
        ),
        (
            TrainConfig(data=DataConfig(tasks={"objects": 1}, sources=own)),
            "run.yaml: data.tasks asks for objects, but own has no frames with boxes",
        ),
        (TrainConfig(pair_warmup=warmed), "run.yaml: pair_warmup.data.tasks asks for pairs"),
    ):
        with pytest.raises(ConfigError, match=named):
            check_sources(config, "run.yaml")
