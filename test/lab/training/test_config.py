# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import re
from pathlib import Path

import pytest

from vlm3_lab.training.config import (
    ConfigError,
    ProfileConfig,
    SourceConfig,
    TrainConfig,
    load_config,
)

SHIPPED = sorted((Path(__file__).parents[3] / "config" / "training").glob("*.yaml"))


def _config(tmp_path, text):
    path = tmp_path / "config.yaml"
    path.write_text(text)
    return path


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.stem)
def test_shipped_configurations_load(path):
    assert load_config(path) != TrainConfig()


def test_values_replace_defaults(tmp_path):
    config = load_config(
        _config(
            tmp_path,
            "optimiser: {learning_rate: 3e-4, steps: 7}\n"
            "data: {sources: {rooms: {kinds: [room], scenes: 5}}}",
        )
    )
    assert config.optimiser.learning_rate == pytest.approx(3e-4)
    assert config.optimiser.steps == 7
    assert config.optimiser.batch_size == TrainConfig().optimiser.batch_size
    assert config.data.sources == {"rooms": SourceConfig(kinds=("room",), scenes=5)}
    assert config.data.tasks == {"depth": 1.0}


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("optimizer: {steps: 5}", "optimizer"),
        ("optimiser: {steps: many}", "steps"),
        ("optimiser: {steps: 0}", "steps"),
        ("warmup: {optimiser: {steps: -1}}", "warmup.optimiser.steps is -1"),
        ("evaluation_views: -1", "evaluation_views is -1"),
        ("seed: -1", "seed is -1; it must not be negative"),
        ("profile: {focal: 0}", "profile.focal is 0.0; it must be positive"),
        ("profile: {focal: 0, prompts: vlm3-short}", "profile.focal is 0.0; it must be positive"),
        ("profile: {focal: wide}", "profile: focal is 'wide'; expected a float"),
        ("profile: {longest_side: 0}", "profile.longest_side is 0; it must be positive"),
        ("profile: {longest_side: 99.5}", "profile: longest_side is 99.5; expected a int"),
        ("profile: {focal: 60, longest_side: 96}", "profile: give focal or longest_side, not both"),
        ("profile: {focal: null}", "profile: focal is None; expected a float"),
        ("profile: {axes: fy}", "profile.axes is 'fy'; use each or fx"),
        ("profile: {max_new_tokens: 0}", "profile.max_new_tokens is 0; it must be positive"),
        ("profile: {prompts: vlm4}", "profile.prompts: no prompt set is called 'vlm4': use one of"),
        ("profile: {prompts: gone.json}", "profile.prompts: prompt set gone.json: No such file"),
        ("profile: {name: vlm3-pos}", "profile.name is 'vlm3-pos'; use one of vlm3, vlm3-corr,"),
        ("profile: {name: [vlm3]}", r"profile.name is \['vlm3'\]; use one of"),
        ("profile: {nam: vlm3}", "profile: unknown key 'nam'; known are name, focal, longest_side"),
        (
            "profile: vlm3-pose",
            "profile: expected a mapping such as {name: vlm3-pose}, found 'vlm3",
        ),
        ("optimiser: 5", "optimiser"),
        ("dtype: float8", "dtype"),
        ("data: {questions: -1}", "questions"),
        ("data: {workers: -1}", "data.workers is -1"),
        ("data: {seed: -1}", "data.seed is -1"),
        ("data: {matches: 0, pose: false}", "data.matches is 0 .* nothing is asked about pairs"),
        ("data: {tasks: {depht: 1}}", "data.tasks holds 'depht'; known are depth"),
        ("data: {tasks: {depth: -1}}", "data.tasks.depth is -1.0; a share must be 0 or more"),
        ("data: {tasks: {depth: .nan}}", "data.tasks.depth is nan"),
        ("data: {tasks: {depth: much}}", "tasks: depth is 'much'"),
        ("data: {tasks: {depth: 0, pairs: 0}}", "data.tasks: nothing is drawn"),
        ("data: {tasks: {}}", "data.tasks: nothing is drawn"),
        ("data: {sources: [rooms]}", "sources is .* expected a dict"),
        ("data: {sources: {rooms: 3}}", "rooms: expected a mapping"),
        ("data: {sources: {rooms: {kind: [room]}}}", "rooms: unknown key 'kind'"),
        (
            "data: {sources: {rooms: {kinds: [room, kitchen]}}}",
            "data.sources.rooms.kinds holds 'kitchen'; known are room",
        ),
        ("warmup: {data: {sources: {a: {kinds: [kitchen]}}}}", "warmup.data.sources.a.kinds"),
        ("data: {sources: {rooms: {scenes: -3}}}", "data.sources.rooms.scenes is -3"),
        ("data: {sources: {rooms: {weight: -0.5}}}", "data.sources.rooms.weight is -0.5"),
        ("data: {sources: {rooms: {weight: .inf}}}", "data.sources.rooms.weight is inf"),
        ("data: {sources: {a: {weight: 0}, b: {weight: 0}}}", "data.sources: nothing is drawn"),
        ("data: {sources: {own: {dataset: d, frames: test}}}", "own.frames is 'test'; use train"),
        ("data: {sources: {own: {dataset: d, scenes: 5}}}", "own is a data set .dataset., and"),
        ("data: {sources: {a: {frames: held_out}}}", "data.sources.a has frames, and no data set"),
        ("warmup: {data: {tasks: {pairs: 1}}}", "warmup.data.tasks: this warm-up has a fixed task"),
        (
            "object_warmup: {data: {tasks: {pairs: 1, objects: 1}}}",
            "object_warmup.data.tasks: this",
        ),
        (
            "object_warmup: {data: {tasks: {depth: 1}}}",
            "object_warmup.data.tasks: this warm-up has",
        ),
        ("data: {weights: equal}", "data.weights is 'equal'; use given, uniform or size"),
        ("data: {weights: size, sources: {a: {}}}", "data.sources.a has no size"),
        ("profile: {fit: stretch}", "profile.fit is 'stretch'; use scale or pad"),
        ("optimiser: {accumulate: 0}", "optimiser.accumulate is 0; it must be positive"),
        ("optimiser: {learning_rate: .inf}", "optimiser.learning_rate is inf"),
        ("optimiser: {warmup: 1.5}", r"optimiser.warmup is 1.5; it must be in \[0, 1\]"),
        ("optimiser: {warmup: 0.5, decay: 0.6}", "warmup 0.5 and decay 0.6 are shares"),
        ("warmup: {optimiser: {schedule: linear}}", "warmup.optimiser.schedule is 'linear'"),
        ("lora: {rank: -1}", "lora.rank is -1"),
        ("lora: {rank: 4, targets: []}", "lora.targets"),
        ("lora: {rank: 4, dropout: 1}", "lora.dropout is 1.0"),
        ("- a list", "mapping"),
        ("a: [", "cannot be read"),
    ],
)
def test_mistakes_are_named_with_their_file(tmp_path, text, named):
    path = _config(tmp_path, text)
    with pytest.raises(ConfigError, match=named) as error:
        load_config(path)
    assert str(path) in str(error.value)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("{}", ProfileConfig(1000.0)),
        ("{prompts: vlm3-short, fit: pad}", ProfileConfig(1000.0, fit="pad", prompts="vlm3-short")),
        ("{name: vlm3}", ProfileConfig()),
        ("{name: vlm3-pose}", ProfileConfig(750.0, prompts="vlm3-pose", max_new_tokens=512)),
        (
            "{name: vlm3-pose, focal: 60}",
            ProfileConfig(60.0, None, "each", "scale", "vlm3-pose", 512),
        ),
        ("{name: vlm3-corr}", ProfileConfig(None, 1024, "each", "scale", "vlm3-corr", 256)),
        (
            "{name: vlm3-corr, longest_side: 96}",
            ProfileConfig(None, 96, "each", "scale", "vlm3-corr", 256),
        ),
        (
            "{name: vlm3-corr, focal: 60, max_new_tokens: 9}",
            ProfileConfig(60.0, None, "each", "scale", "vlm3-corr", 9),
        ),
        (
            "{longest_side: 96, axes: fx, prompts: vlm3-corr}",
            ProfileConfig(None, 96, "fx", "scale", "vlm3-corr"),
        ),
    ],
)
def test_a_profile_is_a_shipped_one_with_the_given_parts(tmp_path, text, expected):
    assert load_config(_config(tmp_path, f"profile: {text}")).profile == expected


def test_settings_replace_parts_of_a_named_profile(tmp_path):
    path = _config(tmp_path, "profile: {name: vlm3-pose}")
    assert load_config(path, ["profile.focal=60"]).profile.focal == 60.0
    assert load_config(path, ["profile.prompts=vlm3"]).profile.focal == 750.0
    assert load_config(path, ["profile.name=vlm3"]).profile == ProfileConfig()


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(ConfigError, match="nowhere"):
        load_config(tmp_path / "nowhere.yaml")


def test_a_file_that_takes_no_settings_is_named(tmp_path):
    path = _config(tmp_path, "- a list")
    with pytest.raises(ConfigError, match=re.escape(f"{path}: expected a mapping")):
        load_config(path, ["optimiser.steps=3"])


def test_settings_replace_single_values_of_the_file(tmp_path):
    path = _config(tmp_path, "optimiser: {steps: 7, warmup: 0.1}\ndata:\n")
    config = load_config(
        path, ["optimiser.steps=200", "data.seed=3", "lora.rank=8", "lora.targets=[q_proj]"]
    )
    assert (config.optimiser.steps, config.optimiser.warmup) == (200, 0.1)
    assert config.data.seed == 3
    assert (config.lora.rank, config.lora.targets) == (8, ("q_proj",))


@pytest.mark.parametrize(
    ("setting", "named"),
    [
        ("optimiser.steps=0", "optimiser.steps is 0"),
        ("optimiser.stops=1", "unknown key 'stops'"),
        ("optimiser.steps=many", "steps is 'many'; expected a int"),
        ("seed.first=1", "'seed.first=1': seed holds no keys"),
        ("optimiser.steps", "'optimiser.steps' sets nothing; write key.path=value"),
        ("optimiser..steps=3", "sets nothing"),
        ("optimiser.steps=[", "value cannot be read"),
    ],
)
def test_invalid_settings_are_named(tmp_path, setting, named):
    path = _config(tmp_path, "seed: 1")
    with pytest.raises(ConfigError, match=re.escape(named)):
        load_config(path, [setting])
