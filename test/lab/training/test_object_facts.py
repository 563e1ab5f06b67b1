# SPDX-License-Identifier: Apache-2.0
"""The object warm-up reads facts about an object where its box ends in a question."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForImageTextToText

from vlm3_lab.scenes import sample_view
from vlm3_lab.scenes.seen_objects import quantity_of, seen_objects, true_answers
from vlm3_lab.training.checkpoint import (
    TinyShape,
    build_checkpoint,
    build_processor,
    build_tokenizer,
)
from vlm3_lab.training.config import (
    DataConfig,
    OptimiserConfig,
    ProfileConfig,
    TrainConfig,
    WarmupConfig,
)
from vlm3_lab.training.packing import PACKED_ATTENTION, Packer, packed_hidden, packed_loss
from vlm3_lab.training.samples import mirrored
from vlm3_lab.training.sft import train
from vlm3_lab.training.streams import model_input
from vlm3_lab.training.tasks.depth import Questions as DepthQuestions
from vlm3_lab.training.warmups.object_facts import (
    WEIGHTS,
    ObjectFacts,
    ObjectHead,
    collate,
    object_facts,
)
from vlm3_ros.engines.base import Profile
from vlm3_ros.engines.processor import load_processor
from vlm3_ros.engines.profiles import read_profile
from vlm3_ros.language.prompts import load_prompt_set
from vlm3_ros.language.wordings.objects import ObjectsWording, parse_length
from vlm3_ros.tasks.objects import OBJECTS, Direction, Quantity, Relation, question_boxes
from vlm3_ros.tasks.task import true_pairs

SHAPE = {
    "vision_hidden": 32,
    "vision_depth": 2,
    "vision_heads": 2,
    "hidden": 64,
    "layers": 2,
    "heads": 2,
    "kv_heads": 1,
    "intermediate": 96,
    "position_grid": 8,
}
SHORT = load_prompt_set("vlm3-short")


pytestmark = pytest.mark.slow


def _worded(region, **wording):
    objects = replace(SHORT[ObjectsWording], region=region, **wording)
    return replace(SHORT, wordings={**SHORT.wordings, "objects": objects})


WORDINGS = {
    "vlm3": load_prompt_set("vlm3"),
    "vlm3-short": SHORT,
    "vlm3-last": load_prompt_set("vlm3-last"),
    "bare": _worded("{xmax} {xmin} {ymin} {ymax}"),
    "b first": _worded(
        "box <{ymax}|{xmin}|{ymin}|{xmax} px> of it",
        relations={
            **SHORT[ObjectsWording].relations,
            "below": "Seen from {b}, is {a} further down?",
        },
        direction="In which hour lies {b}, from {a}?",
        yes="It is.",
        no="It is not.",
    ),
}


@pytest.fixture(scope="module")
def view():
    views = (sample_view(np.random.default_rng([8, i]), "street") for i in range(50))
    return next(view for view in views if len(seen_objects(view)) >= 3)


def _samples(prompts, constants_are_tokens=True, count=40):
    processor = build_processor(build_tokenizer(prompts, constants_are_tokens))
    profile = Profile(128.0, "pad", prompts)
    model = model_input(processor, profile)
    return processor, model, ObjectFacts(model, DataConfig(object_questions=count))


def _asked(samples, view, seed, count):
    """The questions of a sample drawn with a seed, and the sample."""
    asked = true_answers(seen_objects(view), np.random.default_rng(seed))[:count]
    return [question for question, _ in asked], samples.sample(view, np.random.default_rng(seed))


def _check_ends(processor, model, prompts, view, questions, sample):
    """Each end is the token that completes a region, and has the facts of its object."""
    views = model.views(view)
    (unified,) = views.cameras
    facts = {tuple(thing.box): object_facts(thing, unified) for thing in seen_objects(view)}
    found = iter(zip(sample.ends, sample.facts, strict=True))
    for index, question in enumerate(questions):
        ids = [*sample.prefix_ids, *sample.blocks[index]]
        boxes = [box for box in (question.a, question.b) if box is not None]
        texts = question_boxes(question, views)
        for box, (xmin, ymin, xmax, ymax) in zip(boxes, texts, strict=True):
            region = prompts[ObjectsWording].region.format(
                xmin=xmin, ymin=ymin, xmax=xmax, ymax=ymax
            )
            (of, token), read = next(found)
            at = len(sample.prefix_ids) + token
            before, after = (processor.tokenizer.decode(ids[:end]) for end in (at, at + 1))
            assert of == index
            assert after.count(region) == before.count(region) + 1
            assert np.array_equal(read, facts[box])
    assert next(found, None) is None


@pytest.mark.parametrize("constants_are_tokens", [True, False])
@pytest.mark.parametrize("wording", WORDINGS)
def test_facts_are_read_where_the_text_of_a_box_ends(wording, constants_are_tokens, view):
    prompts = WORDINGS[wording]
    processor, model, samples = _samples(prompts, constants_are_tokens)
    questions, sample = _asked(samples, view, 4, 40)
    assert {type(question) for question in questions} == {Relation, Quantity, Direction}
    _check_ends(processor, model, prompts, view, questions, sample)


def test_a_box_that_all_questions_start_with_ends_in_the_prefix(view):
    processor, model, samples = _samples(SHORT, constants_are_tokens=False, count=2)
    things = seen_objects(view)

    def is_shared(seed):
        (one, _), (other, _), *_ = true_answers(things, np.random.default_rng(seed))
        return isinstance(one, Relation) and isinstance(other, Relation) and one.a == other.a

    questions, sample = _asked(samples, view, next(filter(is_shared, range(1000))), 2)
    assert (sample.ends[:, 1] < 0).tolist() == [True, False, True, False]
    _check_ends(processor, model, SHORT, view, questions, sample)


@pytest.mark.parametrize(
    ("wording", "constants_are_tokens", "decisive"),
    [
        ("vlm3-short", True, {"Yes.", "No."}),
        ("vlm3", False, {"Yes", "No"}),
        ("vlm3-last", False, {"Yes", "No"}),
        ("b first", False, {".", " not"}),
    ],
)
def test_one_token_distinguishes_yes_from_no(wording, constants_are_tokens, decisive, view):
    processor, _, samples = _samples(WORDINGS[wording], constants_are_tokens)
    questions, sample = _asked(samples, view, 4, 40)
    relations = [i for i, question in enumerate(questions) if isinstance(question, Relation)]
    assert sample.decisions[:, 0].tolist() == relations
    decisions = [sample.labels[index][token] for index, token in sample.decisions]
    assert {processor.tokenizer.decode([token]) for token in decisions} == decisive


def test_facts_lead_back_to_the_object_and_agree_with_answers(view):
    _, model, _ = _samples(SHORT)
    views = model.views(view)
    (unified,) = views.cameras
    ahead = view.T_world_camera[:3, 2] * (1, 1, 0)
    ahead /= np.linalg.norm(ahead)
    axes = np.stack([np.cross(ahead, (0, 0, 1)), (0, 0, 1), ahead])
    for thing in seen_objects(view):
        scale = 1 / unified.metric_depth(1.0)
        facts = object_facts(thing, unified)
        far, width, height, near, size = np.exp(facts[[0, 3, 4, 5, 6]])
        seen = far * np.array([facts[1], facts[2], 1.0])
        centre = view.T_world_camera[:3, 3] + seen / scale @ axes
        here = [box for box in view.objects if np.allclose(box.centre, centre, atol=1e-6)]
        assert [str(box.kind) for box in here] == [thing.kind]
        assert size == pytest.approx(thing.volume ** (1 / 3))
        assert near == pytest.approx(scale * thing.nearest)
        for name, metres in (("width", width), ("height", height)):
            question = Quantity(name, tuple(thing.box.tolist()))
            truth = quantity_of(name, thing)
            ((_, answer),) = true_pairs(OBJECTS, SHORT, views, [question], [truth])
            assert parse_length(answer) == pytest.approx(metres, abs=0.0051)


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    folder = tmp_path_factory.mktemp("checkpoint")
    build_checkpoint(folder, TinyShape(**SHAPE), Profile(80.0, "pad", SHORT), seed=3)
    model = AutoModelForImageTextToText.from_pretrained(folder, dtype=torch.float32)
    model.set_attn_implementation(PACKED_ATTENTION)
    return model, load_processor(folder), read_profile(folder)


def _batch(maker, processor, views):
    samples = [maker.sample(view, np.random.default_rng(i)) for i, view in enumerate(views)]
    return samples, collate(Packer(processor), samples)


def test_the_loss_combines_answers_relations_and_facts(checkpoint, view):
    model, processor, profile = checkpoint
    maker = ObjectFacts(model_input(processor, profile), DataConfig(object_questions=12))
    samples, batch = _batch(maker, processor, [view, mirrored(view)])
    ids, labels = batch["batch"]["input_ids"], batch["batch"]["labels"]
    expected = [
        np.concatenate([s.prefix_ids, s.blocks[index]])[len(s.prefix_ids) + token]
        for s in samples
        for index, token in s.ends
    ]
    assert ids[tuple(batch["ends"].T)].tolist() == expected
    words = processor.tokenizer.convert_tokens_to_ids(
        [SHORT[ObjectsWording].yes, SHORT[ObjectsWording].no]
    )
    assert torch.equal(batch["is_decision"], torch.isin(labels, torch.tensor(words)))

    head = ObjectHead(model)
    with torch.no_grad():
        torch.nn.init.normal_(head.read.weight, std=0.1)
        parts = head(**batch)
        hidden = packed_hidden(model, batch["batch"])
        read = head.read(hidden[tuple(batch["ends"].T)])
        logits = model.lm_head(hidden).log_softmax(-1)
        rows, columns = batch["is_decision"].nonzero().T
        chosen = logits[rows, columns - 1, labels[rows, columns]]
        assert parts["answers"].item() == pytest.approx(packed_loss(model, batch["batch"]).item())
    assert parts["relations"].item() == pytest.approx(-chosen.mean().item(), rel=1e-5)
    assert parts["facts"].item() == pytest.approx((read - batch["facts"]).abs().mean().item())
    total = sum(weight * parts[name] for name, weight in WEIGHTS.items())
    assert parts["loss"].item() == pytest.approx(total.item())


def test_batches_of_depth_have_the_loss_of_their_answers(checkpoint, view):
    model, processor, profile = checkpoint
    maker = DepthQuestions(model_input(processor, profile), DataConfig())
    _, batch = _batch(maker, processor, [view])
    with torch.no_grad():
        losses = ObjectHead(model)(**batch)
        expected = packed_loss(model, batch["batch"])
    assert losses.keys() == {"loss", "answers"}
    assert losses["loss"].item() == pytest.approx(expected.item())


def test_a_run_with_the_warm_up_ends_in_a_checkpoint_without_its_head(tmp_path):
    config = TrainConfig(
        shape=SHAPE,
        profile=ProfileConfig(focal=80.0, fit="pad", prompts="vlm3-short"),
        object_warmup=WarmupConfig(
            DataConfig(tasks={"objects": 2.0, "depth": 1.0}, object_questions=4, workers=0),
            OptimiserConfig("muon", batch_size=1, steps=2),
        ),
        data=DataConfig(questions=4, workers=0),
        optimiser=OptimiserConfig("muon", batch_size=1, steps=1),
        dtype="float32",
        evaluate_every=1,
    )
    final = train(config, tmp_path)
    log = json.loads((tmp_path / "object_warmup" / "log.json").read_text())
    parts = [{key for key in entry if key.endswith("_loss")} for entry in log if "loss" in entry]
    # Of two batches the second one is of depth.
    assert parts == [{"answers_loss", "relations_loss", "facts_loss"}, {"answers_loss"}]
    assert read_profile(final).prompts[ObjectsWording] == SHORT[ObjectsWording]
    start = load_file(tmp_path / "start" / "model.safetensors")
    warmed = load_file(tmp_path / "object_warmup" / "final" / "model.safetensors")
    assert load_file(final / "model.safetensors").keys() == warmed.keys() == start.keys()
    assert not all(torch.equal(start[name], warmed[name]) for name in start)
    assert "object_warmup.optimiser.steps" in (final / "README.md").read_text()
