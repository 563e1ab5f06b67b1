from __future__ import annotations

from pathlib import Path

import pytest

from vlm3_ros.training.config import ConfigError, TrainConfig, load_config

SHIPPED = sorted((Path(__file__).parents[2] / "config" / "training").glob("*.yaml"))


def _config(tmp_path, text):
    path = tmp_path / "config.yaml"
    path.write_text(text)
    return path


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.stem)
def test_shipped_configurations_load(path):
    assert load_config(path) != TrainConfig()


def test_values_replace_defaults(tmp_path):
    config = load_config(
        _config(tmp_path, "optimiser: {learning_rate: 3e-4, steps: 7}\ndata: {kinds: [room]}")
    )
    assert config.optimiser.learning_rate == pytest.approx(3e-4)
    assert config.optimiser.steps == 7
    assert config.optimiser.batch_size == TrainConfig().optimiser.batch_size
    assert config.data.kinds == ("room",)


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("optimizer: {steps: 5}", "optimizer"),
        ("optimiser: {steps: many}", "steps"),
        ("optimiser: {steps: 0}", "steps"),
        ("optimiser: 5", "optimiser"),
        ("dtype: float8", "dtype"),
        ("data: {questions: -1}", "questions"),
        ("data: {kinds: [room, kitchen]}", "data.kinds holds 'kitchen'; known are room"),
        ("warmup: {data: {kinds: [kitchen]}}", "warmup.data.kinds"),
        ("profile: {fit: stretch}", "profile.fit is 'stretch'; use scale or pad"),
        ("- a list", "mapping"),
        ("a: [", "cannot be read"),
    ],
)
def test_mistakes_are_named_with_their_file(tmp_path, text, named):
    path = _config(tmp_path, text)
    with pytest.raises(ConfigError, match=named) as error:
        load_config(path)
    assert str(path) in str(error.value)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(ConfigError, match="nowhere"):
        load_config(tmp_path / "nowhere.yaml")
