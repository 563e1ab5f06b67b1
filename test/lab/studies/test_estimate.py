# SPDX-License-Identifier: Apache-2.0
"""The computed cost against what the engine really reads and multiplies."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode
from transformers import GenerationConfig, Qwen3VLForConditionalGeneration

from vlm3_lab.scenes import sample_view
from vlm3_lab.studies.bench import architectures
from vlm3_lab.studies.bench.calls import Call, call_passes, engine_call, tree_tokens
from vlm3_lab.studies.bench.estimate import FOLLOWED, estimate_task, examples, followed
from vlm3_lab.studies.bench.hardware import HARDWARE
from vlm3_lab.studies.bench.roofline import model_work
from vlm3_lab.studies.bench.work import DeviceSpeed, ModelWork
from vlm3_lab.training.checkpoint import TinyShape, build_processor, build_tokenizer, model_config
from vlm3_ros.engines import cascade
from vlm3_ros.engines.load import load_engine
from vlm3_ros.engines.model import LoadedModel
from vlm3_ros.engines.processor import encode_questions
from vlm3_ros.engines.profiles import shipped_profile
from vlm3_ros.engines.settings import EngineSettings
from vlm3_ros.engines.transformers import TransformersEngine
from vlm3_ros.geometry.camera import PinholeCamera
from vlm3_ros.language.wordings.depth import DepthWording, depth_question
from vlm3_ros.paths import default_model
from vlm3_ros.tasks.depth import ask_depth, uniform_grid

CAMERA = PinholeCamera(640, 480, 600.0, 600.0, 319.5, 239.5)
PROFILE = shipped_profile("vlm3-depth")
ANSWER_TOKENS = 5


@pytest.fixture(scope="module")
def model():
    """A random model that asks like VLM3-depth and never ends an answer."""
    tokenizer = build_tokenizer(PROFILE.prompts, constants_are_tokens=False)
    shape = TinyShape(vision_hidden=64, vision_depth=2, hidden=256, intermediate=1024, layers=2)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        made = Qwen3VLForConditionalGeneration(model_config(shape, tokenizer)).eval()
    made.generation_config = GenerationConfig(
        do_sample=False, pad_token_id=tokenizer.pad_token_id, eos_token_id=[]
    )
    made.set_attn_implementation("eager")  # torch counts its products on every device
    return LoadedModel(made.requires_grad_(False), build_processor(tokenizer), PROFILE)


@pytest.fixture
def ask(model, monkeypatch):
    """Ask 24 questions; return the tokens of each pass of the language half, and all FLOPs."""
    monkeypatch.setattr(cascade, "FUSED", {})
    rng = np.random.default_rng(0)
    prompts = PROFILE.prompts
    questions = [
        depth_question(prompts[DepthWording], xy, prompts.text_range)
        for xy in rng.integers(1000, 2000, (24, 2))
    ]
    image = np.zeros((96, 128, 3), np.uint8)
    read = []

    def record(module, arguments, options):
        read.append(options["inputs_embeds"].shape[1])

    def make(template):
        engine = TransformersEngine(
            model, EngineSettings("random", device="cpu", max_new_tokens=ANSWER_TOKENS)
        )
        if template is not None:
            engine.force(template)
        language = model.model.model.language_model
        handle = language.register_forward_pre_hook(record, with_kwargs=True)
        try:
            with FlopCounterMode(display=False) as counter:
                engine.ask([image], questions, template)
        finally:
            handle.remove()
        encoded = encode_questions(model.processor, [image], questions)
        return SimpleNamespace(read=read, flops=counter.get_total_flops(), encoded=encoded)

    return make


def test_free_answers_read_the_tokens_and_multiply_as_computed(ask, model):
    asked = ask(None)
    call = engine_call(model.processor, asked.encoded, [""] * 24)
    call = replace(call, decoded=((1.0,) * (ANSWER_TOKENS - 1),) * 24)
    prefix, own, *steps = asked.read
    assert (prefix, own) == (call.prefix, tree_tokens(call.own))
    assert steps == [24] * (ANSWER_TOKENS - 1)
    passes = call_passes(model_work(model.model), call)
    assert sum(one.flops for one in passes.all) == pytest.approx(asked.flops, rel=0.03)


def test_forced_answers_read_the_tokens_and_multiply_as_computed(ask, model):
    template = PROFILE.prompts[DepthWording].answer
    asked = ask(template)
    prefix, own, *steps = asked.read
    branches = [count / 24 for count in steps]
    call = engine_call(model.processor, asked.encoded, [""] * 24, template, branches)
    assert (prefix, own) == (call.prefix, tree_tokens(call.own))
    passes = call_passes(model_work(model.model), call)
    assert sum(one.flops for one in passes.all) == pytest.approx(asked.flops, rel=0.03)


def test_alternatives_are_those_of_the_embedded_model(monkeypatch):
    """The constant says what vlm3-tiny does, whose answers have one decimal."""
    engine = load_engine(EngineSettings(str(default_model()), device="cpu"))
    read: list[int] = []
    language = engine._model.model.language_model
    language.register_forward_pre_hook(
        lambda module, arguments, options: read.append(options["inputs_embeds"].shape[1]),
        with_kwargs=True,
    )
    rng = np.random.default_rng(3)
    followed_by_step: Counter[int] = Counter()
    views = [sample_view(rng, "room") for _ in range(9)]
    for i, view in enumerate(views):
        read.clear()
        ask_depth(engine, view.image, view.camera, uniform_grid(view.camera, 16, 12))
        if i:  # the first call also learns the form
            for step, count in enumerate(read[2:]):
                followed_by_step[step] += count
    means = [followed_by_step[step] / 192 / (len(views) - 1) for step in range(len(FOLLOWED))]
    assert means == pytest.approx(FOLLOWED, rel=0.1)
    assert len(followed_by_step) == len(FOLLOWED) == len(followed(1))
    assert (followed(0), followed(3)) == (FOLLOWED[:1], (*FOLLOWED, 1, 1))


def test_common_beginnings_count_once():
    assert tree_tokens([(1, 2, 3), (1, 2, 4), (1, 5), (6,)]) == 6
    assert tree_tokens([(1, 2), (1, 2)]) == 2
    sequences = [tuple(row) for row in np.random.default_rng(0).integers(0, 3, (40, 5)).tolist()]
    nodes = {sequence[: i + 1] for sequence in sequences for i in range(5)}
    assert tree_tokens(sequences) == len(nodes)


def test_tokens_of_a_tree_attend_to_the_prefix_and_the_tokens_above_them():
    work = ModelWork(0, 0, 0, 0.0, 0.0, token_flops=0.0, pair_flops=1.0, output_flops=0.0)
    call = Call((), 0, 10, ((1, 2, 3), (1, 2, 4)), ((), ()), is_forced=True)
    (own,) = call_passes(work, call).own
    assert own.flops == (10 + 1) + (10 + 2) + 2 * (10 + 3)
    (own,) = call_passes(work, call, as_tree=False).own
    assert own.flops == 2 * ((10 + 1) + (10 + 2) + (10 + 3))


def test_questions_are_read_in_equal_chunks_and_weights_once_per_pass():
    work = ModelWork(7, 100, 10, 0.0, 0.0, 1.0, 0.0, 1.0)
    own = tuple((1, 2, i) for i in range(12))
    free = Call((4,), 1, 10, own, ((1.0,),) * 11 + ((1.0, 1.0),), is_forced=False)
    passes = call_passes(work, free, chunk=5)
    assert [len(chunk.own) for chunk in free.chunks(5)] == [4, 4, 4]
    assert [one.weight_bytes for one in passes.images + passes.prefix] == [7, 100]
    assert [one.weight_bytes for one in passes.own] == [110] * 3
    # Two steps where an answer has two tokens; the output layer chooses after each token.
    assert [one.flops for one in passes.decoding] == [8, 8, 8, 2]
    assert [one.flops for one in passes.own] == [2 + 4 + 4] * 3


@pytest.fixture(scope="module")
def estimates():
    """VLM3-depth at the 4B shape, 640x480 px at 600 px, by grid."""
    tokenizer = build_tokenizer(PROFILE.prompts, constants_are_tokens=False)
    config = architectures.shape_config("4b", tokenizer)
    work = model_work(architectures.model_without_weights(config, torch.bfloat16))
    return {
        grid: estimate_task(
            work,
            build_processor(tokenizer),
            PROFILE,
            CAMERA,
            examples(grid, (8, 6))["depth"],
        )
        for grid in ((16, 12), (32, 24))
    }


def test_the_questions_are_the_cost_of_the_4b_model(estimates):
    one = estimates[16, 12]
    assert (one.sizes, one.questions, one.steps) == (((1056, 800),), 192, 4)
    assert one.calls[0].visual_tokens == 825
    parts = [one.part_flops(part) / 1e12 for part in ("images", "prefix", "decoding")]
    assert parts == pytest.approx([3.3, 6.3, 11.7], abs=0.1)
    assert one.apart_flops / 1e12 == pytest.approx(117, abs=2)
    assert one.flops == pytest.approx(sum(parts) * 1e12 + one.part_flops("own"))
    assert 0.9 < one.part_flops("own") / one.apart_flops < 0.95


def test_four_times_the_questions_take_nearly_four_times_the_work(estimates):
    small, large = estimates[16, 12], estimates[32, 24]
    assert large.steps == 3 * 4  # chunks of 256
    assert 3.5 < large.flops / small.flops < 4
    assert large.tree_tokens < small.tree_tokens


@pytest.mark.parametrize(
    ("device", "seconds"), [("H100", 0.133), ("RTX 4090", 0.78), ("AGX Orin 64GB", 3.04)]
)
def test_published_speeds_give_the_floors(estimates, device, seconds):
    assert estimates[16, 12].seconds(HARDWARE[device].speed) == pytest.approx(seconds, rel=0.02)


def test_a_slow_memory_makes_decoding_the_cost(estimates):
    one = estimates[16, 12]
    slow = DeviceSpeed(bytes_per_second=1.0, flops_per_second=1e30)
    assert one.seconds(slow) == pytest.approx(one.weight_bytes)
    assert one.weight_bytes == pytest.approx(0.83e9 + 6 * 7.27e9, rel=0.01)
