# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import json

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from vlm3_ros.engines.base import (
    AnswerUncertainty,
    EngineError,
    Profile,
    load_profile,
    profile_json,
    write_profile,
)
from vlm3_ros.language.prompts import PromptSet, load_prompt_set
from vlm3_ros.language.wordings.depth import DepthWording

AUTHORS = Profile(1000.0, "scale", load_prompt_set("vlm3"))


def test_missing_profile_is_the_authors(tmp_path):
    assert load_profile(tmp_path) == AUTHORS


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    focal=st.floats(1, 1e5),
    fit=st.sampled_from(["scale", "pad"]),
    words=st.text(min_size=1).filter(lambda text: text.strip() and "{" not in text),
    text_range=st.integers(1, 10_000),
    std_scale=st.floats(0.01, 100),
    match_deg=st.floats(0.01, 100),
)
def test_written_profile_loads_unchanged(
    tmp_path, focal, fit, words, text_range, std_scale, match_deg
):
    prompts = PromptSet(
        words, text_range, {"depth": DepthWording(words + "{x}{y}", words + "{value} m", 3)}
    )
    uncertainty = AnswerUncertainty(rotation_deg=1.5, match_deg=match_deg)
    profile = Profile(focal, fit, prompts, std_scale, uncertainty)
    write_profile(tmp_path, profile)
    assert load_profile(tmp_path) == profile


def test_profile_may_name_a_prompt_set(tmp_path):
    (tmp_path / "vlm3.json").write_text('{"focal": 500, "fit": "pad", "prompts": "vlm3"}')
    assert load_profile(tmp_path) == Profile(500.0, "pad", AUTHORS.prompts)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"focal": 0}, "focal must be a positive number"),
        ({"focal": "500"}, "focal must be a positive number"),
        ({"focal": True}, "focal must be a positive number"),
        ({"focal": float("nan")}, "focal must be a positive number"),
        ({"fit": "crop"}, "fit must be"),
        ({"prompts": "unheard-of"}, "no prompt set is called 'unheard-of'"),
        ({"prompts": "../elsewhere.json"}, "shipped prompt set"),
        ({"prompts": {"name": "x"}}, "the prompt set must hold"),
        ({"prompts": None}, "the prompt set must be an object"),
        ({"std_scale": 0}, "std_scale must be a positive factor"),
        ({"std_scale": "2"}, "std_scale must be a positive factor"),
        ({"uncertainty": 3}, "uncertainty must be an object of direction_deg, "),
        ({"uncertainty": {"depth": 1}}, "uncertainty must be an object of direction_deg, "),
        ({"uncertainty": {"match_deg": -1}}, "match_deg must be a positive number"),
        ({"extra": 1}, "holds focal, fit and prompts"),
    ],
)
def test_invalid_profile_is_explained(tmp_path, changes, message):
    path = tmp_path / "vlm3.json"
    path.write_text(json.dumps({**profile_json(AUTHORS), **changes}))
    with pytest.raises(EngineError, match=message) as refused:
        load_profile(tmp_path)
    assert str(refused.value).startswith(str(path))
