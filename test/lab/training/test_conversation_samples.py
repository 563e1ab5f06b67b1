# SPDX-License-Identifier: Apache-2.0
"""Conversations are taught in the data set's words, with the checkpoint's names of boxes."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
import yaml
from spatialrgpt_files import open_spatial_entries, views_of_objects, write_open_spatial

from vlm3_lab.training.checkpoint import build_processor, build_tokenizer
from vlm3_lab.training.config import ConfigError, DataConfig, SourceConfig, load_config
from vlm3_lab.training.sft import train
from vlm3_lab.training.sources import Sources
from vlm3_lab.training.streams import model_input
from vlm3_lab.training.tasks.objects import Questions
from vlm3_lab.training.warmups.object_facts import ObjectFacts
from vlm3_ros.datasets.photo_cameras import PhotoCameras
from vlm3_ros.datasets.spatialrgpt import read_spatialrgpt
from vlm3_ros.engines.base import Profile
from vlm3_ros.geometry.calibration_files import GivenCamera
from vlm3_ros.language.prompts import load_prompt_set
from vlm3_ros.paths import default_model

PROMPTS = load_prompt_set("vlm3-object")


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    views = views_of_objects(3)
    path = tmp_path_factory.mktemp("open_spatial") / "convs.json"
    write_open_spatial(path, views, open_spatial_entries(views, turns=12))
    return path


@pytest.fixture(scope="module")
def maker():
    processor = build_processor(build_tokenizer(PROMPTS))
    model = model_input(processor, Profile(128.0, "pad", PROMPTS))
    return Questions(model, DataConfig(object_questions=4))


def pairs_of(maker, view, rng, monkeypatch):
    packed = []
    monkeypatch.setattr(maker._model.packer, "pack", lambda images, pairs: packed.extend(pairs))
    maker.sample(view, rng)
    monkeypatch.undo()
    return packed


def test_a_sample_has_some_of_the_questions_of_its_image(file, maker, monkeypatch):
    view = read_spatialrgpt(file, cameras=PhotoCameras(GivenCamera(hfov=60.0))).read(0)
    assert maker.is_enough(view)
    words = {one.question.text.split("Region")[0] for one in view.conversations}
    drawn = [pairs_of(maker, view, np.random.default_rng(s), monkeypatch) for s in range(4)]
    for pairs in drawn:
        assert len(pairs) == 4 and len(set(pairs)) == 4
        for question, answer in pairs:
            assert question.split("bounding box region (")[0] in words
            assert "Region [" not in question + answer and "<mask>" not in question
    assert len({tuple(pairs) for pairs in drawn}) == 4, "every sample draws anew"


def test_left_stays_left(file, maker):
    view = read_spatialrgpt(file, cameras=PhotoCameras(GivenCamera(hfov=60.0))).read(0)
    assert maker.variant(view, 1) is view


def test_lengths_are_left_out_where_the_image_cannot_enter_at_the_focal_length(file, maker):
    """The words do not say which lengths lie along the view."""
    view = read_spatialrgpt(file, cameras=PhotoCameras(GivenCamera(hfov=60.0))).read(0)
    units = ("meters", "feet", "inches", "centimeters")

    def has_length(conversations):
        return any(unit in one.answer for one in conversations for unit in units)

    assert has_length(view.conversations)
    assert len(maker._conversations(view)) == len(view.conversations)
    # A tele lens: the image would have to enter with less than the smallest side.
    camera = replace(view.camera, fx=3e3, fy=3e3)
    kept = maker._conversations(replace(view, camera=camera))
    assert kept and not has_length(kept)
    lengths = tuple(one for one in view.conversations if has_length([one]))
    assert not maker.is_enough(replace(view, camera=camera, conversations=lengths))


def test_the_warm_up_of_objects_needs_boxes_in_the_world(file):
    source = SourceConfig(spatialrgpt=str(file), hfov=60.0)
    sources = Sources(DataConfig(sources={"open": source}, tasks={"objects": 1.0}))
    assert str(Questions.scenes(sources)) == "open 100.0% (3)"
    with pytest.raises(ConfigError, match="frames with boxes of objects and a pose"):
        ObjectFacts.scenes(sources)


def test_a_source_without_cameras_is_refused_by_its_key(file):
    data = DataConfig(sources={"open": SourceConfig(spatialrgpt=str(file))})
    with pytest.raises(ConfigError, match=r"sources\.open\.spatialrgpt: .* camera is unknown"):
        Sources(data)


@pytest.mark.slow
def test_ten_steps_of_the_embedded_model(file, tmp_path):
    recipe = {
        "model": str(default_model("objects")),
        "profile": {"focal": 128.0, "fit": "pad", "prompts": "vlm3-short"},
        "data": {
            "tasks": {"objects": 1.0},
            "sources": {
                "open": {"spatialrgpt": str(file), "images": str(file.parent), "hfov": 60.0}
            },
            "object_questions": 6,
            "workers": 0,
        },
        "optimiser": {"batch_size": 4, "steps": 10, "learning_rate": 1e-3},
        "evaluate_every": 10,
        "evaluation_views": 0,
    }
    path = tmp_path / "recipe.yaml"
    path.write_text(yaml.safe_dump(recipe))
    train(load_config(path), tmp_path / "run")
    log = json.loads((tmp_path / "run" / "log.json").read_text())
    losses = [entry["loss"] for entry in log if "loss" in entry]
    assert losses and np.isfinite(losses).all()
    assert (tmp_path / "run" / "final" / "vlm3.json").is_file()
