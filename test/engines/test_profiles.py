# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import json
from dataclasses import asdict

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from vlm3_ros.engines.base import AnswerUncertainty, EngineError, Profile
from vlm3_ros.engines.load import check_names
from vlm3_ros.engines.profiles import (
    authors_checkpoints,
    check_model_name,
    choose_profile,
    conventions,
    named_profile,
    profile_json,
    read_profile,
    shipped_profile,
    write_profile,
)
from vlm3_ros.engines.settings import EngineSettings
from vlm3_ros.language.prompts import PromptSet, load_prompt_set
from vlm3_ros.language.wordings.correspondence import CorrespondenceWording
from vlm3_ros.language.wordings.depth import DepthWording

AUTHORS = Profile(1000.0, "scale", load_prompt_set("vlm3"))


def test_missing_profile_is_an_error(tmp_path):
    with pytest.raises(EngineError, match=r"vlm3\.json: No such file"):
        read_profile(tmp_path)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    focal=st.floats(1, 1e5),
    fit=st.sampled_from(["scale", "pad"]),
    words=st.text(min_size=1).filter(lambda text: text.strip() and "{" not in text),
    text_range=st.integers(1, 10_000),
    std_scale=st.floats(0.01, 100),
    match_deg=st.floats(0.01, 100),
    axes=st.sampled_from(["each", "fx"]),
    longest_side=st.none() | st.integers(1, 10_000),
    max_new_tokens=st.integers(1, 10_000),
)
def test_written_profile_loads_unchanged(
    tmp_path,
    focal,
    fit,
    words,
    text_range,
    std_scale,
    match_deg,
    axes,
    longest_side,
    max_new_tokens,
):
    wordings = {
        "depth": DepthWording(words + "{x}{y}", words + "{value} m", 3),
        "correspondence": CorrespondenceWording(words + "{x}{y}", words + "({x}, {y})."),
    }
    if longest_side:
        focal = None
        del wordings["depth"]
    profile = Profile(
        focal,
        fit,
        PromptSet(words, text_range, wordings, "round"),
        std_scale,
        AnswerUncertainty(rotation_deg=1.5, match_deg=match_deg),
        axes,
        longest_side,
        max_new_tokens,
        "someone/something",
    )
    write_profile(tmp_path, profile)
    assert read_profile(tmp_path) == profile


def test_profile_may_name_a_prompt_set(tmp_path):
    (tmp_path / "vlm3.json").write_text('{"focal": 500, "fit": "pad", "prompts": "vlm3"}')
    assert read_profile(tmp_path) == Profile(500.0, "pad", AUTHORS.prompts)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"focal": 0}, "focal must be a positive number"),
        ({"focal": "500"}, "focal must be a positive number"),
        ({"focal": True}, "focal must be a positive number"),
        ({"focal": float("nan")}, "focal must be a positive number"),
        ({"focal": float("inf")}, "focal must be a positive number"),
        ({"focal": 10**400}, "focal must be a positive number"),
        ({"std_scale": float("inf")}, "std_scale must be a positive factor"),
        ({"uncertainty": {"rotation_deg": float("inf")}}, "rotation_deg must be a positive"),
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
        ({"extra": 1}, "it holds 'extra', which this version does not know; it knows focal, fit"),
        ({"focal": None}, "either a focal length or a longest side"),
        ({"longest_side": 512}, "either a focal length or a longest side"),
        ({"focal": None, "longest_side": 512}, "depth, objects, pose: metric answers need a focal"),
        ({"focal": None, "longest_side": 1.5}, "longest_side must be a positive whole number"),
        ({"axes": "fy"}, 'axes must be "each" or "fx", not \'fy\''),
        ({"max_new_tokens": 0}, "max_new_tokens must be a positive whole number"),
        ({"checkpoint": 3}, "checkpoint must be a hub id"),
    ],
)
def test_invalid_profile_is_explained(tmp_path, changes, message):
    path = tmp_path / "vlm3.json"
    path.write_text(json.dumps({**profile_json(AUTHORS), **changes}))
    with pytest.raises(EngineError, match=message) as refused:
        read_profile(tmp_path)
    assert str(refused.value).startswith(str(path))


@pytest.mark.parametrize("content", [b"", b"{", b"\xff\xfe\x00", b"[" * 100_000, b"\xef\xbb\xbf{}"])
def test_what_is_not_json_is_no_profile(tmp_path, content):
    (tmp_path / "vlm3.json").write_bytes(content)
    with pytest.raises(EngineError, match=r"vlm3\.json is not JSON"):
        read_profile(tmp_path)


def test_a_profile_of_the_first_version_loads_and_is_written_as_it_was(tmp_path):
    """Recordings and checkpoints of the first version hold these keys only."""
    first = {
        "focal": 500.0,
        "fit": "pad",
        "prompts": AUTHORS.prompts.to_json(),
        "std_scale": 1.5,
        "uncertainty": asdict(AnswerUncertainty()),
    }
    (tmp_path / "vlm3.json").write_text(json.dumps(first))
    profile = read_profile(tmp_path)
    assert (profile.axes, profile.longest_side, profile.max_new_tokens) == ("each", None, 128)
    assert profile_json(profile) == first


PROFILES = {
    "facebook/VLM3-depth": (1000.0, "each", None, 256, {"depth"}),
    "facebook/VLM3-object": (1000.0, "fx", None, 512, {"objects"}),
    "facebook/VLM3-corr": (None, "each", 1024, 256, {"correspondence"}),
    "facebook/VLM3-pose": (750.0, "each", None, 512, {"pose"}),
}
RANGES = {
    "facebook/VLM3-depth": 2000,
    "facebook/VLM3-object": 1000,
    "facebook/VLM3-corr": 1000,
}


@pytest.mark.parametrize("hub_id", PROFILES)
def test_each_of_the_authors_checkpoints_has_its_own_conventions(hub_id):
    profile, reason = choose_profile("", hub_id)
    assert profile.checkpoint == hub_id
    assert (
        profile.focal,
        profile.axes,
        profile.longest_side,
        profile.max_new_tokens,
        set(profile.prompts.wordings),
    ) == PROFILES[hub_id]
    assert profile.fit == "scale"
    if hub_id in RANGES:
        assert profile.prompts.text_range == RANGES[hub_id]
        assert profile.prompts.text_rounding == "round"
    assert reason == "by the checkpoint's name"
    assert authors_checkpoints().keys() == PROFILES.keys()


@pytest.mark.parametrize(
    "model",
    [
        "facebook/VLM3-pose",
        "somebody/vlm3-POSE",
        "VLM3-pose",
        "/models/VLM3-pose/",
        "~/models/VLM3-pose",
        "/cache/models--facebook--VLM3-pose/snapshots/0123abcd",
    ],
)
def test_the_name_of_a_checkpoint_chooses_its_profile(model):
    assert choose_profile("", model) == (shipped_profile("vlm3-pose"), "by the checkpoint's name")


def test_a_folder_says_what_it_was_trained_for(tmp_path):
    folder = tmp_path / "VLM3-pose"
    folder.mkdir()
    (tmp_path / "latest").symlink_to(folder)
    assert choose_profile("", str(tmp_path / "latest"), tmp_path / "latest")[0].focal == 750.0
    write_profile(folder, AUTHORS)
    for model, place in (
        (str(folder), folder),
        ("facebook/VLM3-depth", folder),
        (str(folder), None),
    ):
        assert choose_profile("", model, place) == (AUTHORS, "by its vlm3.json")
    chosen, reason = choose_profile("vlm3-depth", str(folder), folder)
    assert chosen == shipped_profile("vlm3-depth")
    assert reason == "by the setting profile: vlm3-depth"
    assert choose_profile(str(folder), "facebook/VLM3-depth")[0] == AUTHORS


@pytest.mark.parametrize(
    ("model", "meant"),
    [
        ("facebook/VLM3-dept", "facebook/VLM3-depth"),
        ("facebook/VLM3_pose", "facebook/VLM3-pose"),
        ("facebook/VLM3-objects", "facebook/VLM3-object"),
        ("Facebook/vlm-3-corr", "facebook/VLM3-corr"),
    ],
)
def test_a_typo_near_the_authors_checkpoints_is_refused(model, meant):
    for choose in (lambda: check_model_name(model), lambda: choose_profile("", model)):
        with pytest.raises(EngineError, match=f"did you mean {meant}\\?"):
            choose()
    check_names(EngineSettings(model=model, profile="vlm3"))  # whoever sets it knows


def test_a_folder_whose_name_resembles_theirs_may_have_a_profile_of_its_own(tmp_path):
    folder = tmp_path / "vlm3-depth-2"
    folder.mkdir()
    write_profile(folder, AUTHORS)
    check_names(EngineSettings(model=str(folder)))
    assert choose_profile("", str(folder), folder) == (AUTHORS, "by its vlm3.json")


@pytest.mark.parametrize("model", ["me/VLM3-depth-ft", "/models/VLM3-depth2", "out/vlm3-poses"])
def test_a_checkpoint_of_ones_own_may_have_a_similar_name(model):
    check_model_name(model)


def test_a_profile_that_does_not_exist_is_refused_before_any_download():
    with pytest.raises(EngineError, match="did you mean vlm3-depth"):
        check_names(EngineSettings(model="facebook/VLM3-depth", profile="vlm3-detph"))


@pytest.mark.parametrize("model", ["", "Qwen/Qwen3-VL-4B-Instruct", "/models/mine"])
def test_nothing_is_assumed_about_an_unknown_checkpoint(model):
    check_model_name(model)
    with pytest.raises(EngineError, match="Set profile to one of vlm3, vlm3-corr, ") as refused:
        choose_profile("", model)
    assert "\n" not in str(refused.value)


def test_profile_that_does_not_exist_is_an_error(tmp_path):
    with pytest.raises(
        EngineError, match=r"profile vlm3-poze does not exist \(did you mean vlm3-pose"
    ):
        named_profile("vlm3-poze")
    with pytest.raises(EngineError, match=r"pose does not exist \(did you mean vlm3-pose\?\)"):
        named_profile("facebook/VLM3-pose")
    for name in ("x" * 5000, "~nobody-of-this-name/vlm3.json", "a\0b"):
        with pytest.raises(EngineError, match="does not exist: use one of vlm3, "):
            named_profile(name)
    with pytest.raises(EngineError, match="missing does not exist: use one of vlm3, "):
        named_profile(str(tmp_path / "missing"))
    with pytest.raises(EngineError, match=r"vlm3\.json: No such file"):
        named_profile(str(tmp_path))


def test_conventions_fit_on_a_line():
    assert conventions(shipped_profile("vlm3-corr")) == (
        "images at a longest side of 1024 px, coordinates from 0 to 999, wording vlm3-corr, "
        "answers about correspondence"
    )
    assert conventions(shipped_profile("vlm3-object")) == (
        "images at a focal length of 1000 px by fx, coordinates from 0 to 999, wording "
        "vlm3-object, answers about objects"
    )
    assert conventions(shipped_profile("vlm3-pose")) == (
        "images at a focal length of 750 px, wording vlm3-pose, answers about pose"
    )
