# SPDX-License-Identifier: Apache-2.0
"""Settings of the engines: which model, where and how; and which model answers which task.

Each setting is declared here and nowhere else; see `vlm3_ros.parameters` for what is made of it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from functools import partial
from pathlib import Path
from typing import Any, Literal, get_args

from vlm3_ros.parameters import parameter
from vlm3_ros.paths import Task, default_model, shipped_profiles

EngineKind = Literal["transformers", "openai", "recorded"]
Dtype = Literal["auto", "float32", "bfloat16", "float16"]
ImageEncoding = Literal["png", "jpeg"]
Attention = Literal["auto", "sdpa", "eager", "flash_attention_2"]

# A node loads its model when it is configured, so settings cannot change later.
_model = partial(parameter, changes="unconfigured", group="model")
_server = partial(
    parameter, changes="unconfigured", group="server, for engine openai (see docs/serving.md)"
)
_recordings = partial(parameter, changes="unconfigured", group="recordings")


@dataclass(frozen=True)
class EngineSettings:
    """Which model, where and how. Not checked here: engines check what they use."""

    model: str = _model(
        "",
        "Checkpoint of the Qwen3-VL family: a folder, or a Hugging Face id such as "
        "facebook/VLM3-depth, which is downloaded. It answers every task that has no model of its "
        "own. Empty: the embedded vlm3-tiny, or vlm3-tiny-pairs for motions and matches. With "
        "engine openai: the server's name for its model; empty if it has only one.",
        metavar="MODEL",
        launch=True,
    )
    engine: EngineKind = _model(
        "transformers",
        "What answers: a model in this process (transformers), a server such as vLLM (openai), or "
        "a recording of answers (recorded).",
        choices=get_args(EngineKind),
        launch=True,
    )
    profile: str = _model(
        "",
        "What the model was trained for: how images enter, its wording. A shipped profile "
        f"({', '.join(shipped_profiles())}), a vlm3.json, or a folder that holds one. Empty: the "
        "checkpoint's own vlm3.json, or the profile with the checkpoint's name.",
        metavar="PROFILE",
        launch=True,
    )
    dtype: Dtype = _model(
        "auto",
        "Number type of the model's weights. auto: bfloat16 on CUDA, float32 on the CPU.",
        choices=get_args(Dtype),
    )
    device: str = _model(
        "auto",
        "Device of the model: auto (CUDA if torch can use it), cpu, cuda or cuda:N.",
        metavar="DEVICE",
    )
    attn_implementation: Attention = _model(
        "auto",
        "Attention of the image encoder and the shared prompt, as transformers names it. "
        "auto: transformers chooses.",
        choices=get_args(Attention),
    )
    offline: bool = _model(False, "Never look for the model on the network.")
    force_answers: bool = _model(
        True,
        "Decode only the numbers of answers, in the form that the model's first free answers have. "
        "Faster than decoding whole answers, and answers get a standard deviation.",
    )
    max_new_tokens: int = _model(
        0,
        "Maximum number of tokens of an answer in free text. Models that think need more. 0: as "
        "the checkpoint's profile says.",
        minimum=0,
        maximum=32_768,
        metavar="N",
    )
    chunk: int = _model(
        0,
        "Questions answered at the same time, with engine transformers. More are faster and take "
        "more memory. 0: as many as fit into free memory.",
        minimum=0,
        maximum=4096,
        metavar="N",
    )
    base_url: str = _server(
        "http://localhost:8000/v1",  # where `vllm serve` and `transformers serve` listen
        "URL of the server, up to and including /v1.",
        metavar="URL",
        launch=True,
    )
    api_key_variable: str = _server(
        "VLM3_API_KEY",  # not OPENAI_API_KEY, which is not meant for any server that a URL names
        "Environment variable that holds the server's API key, if it needs one.",
        metavar="NAME",
    )
    concurrency: int = _server(
        32,
        "Questions sent to the server at the same time.",
        minimum=1,
        maximum=4096,
        metavar="N",
    )
    image_encoding: ImageEncoding = _server(
        "png",
        "How images travel to the server: png is lossless; jpeg is a fifth of its size.",
        choices=get_args(ImageEncoding),
    )
    jpeg_quality: int = _server(
        90,
        "Quality of images, with image_encoding jpeg.",
        minimum=1,
        maximum=100,
        metavar="N",
    )
    token_probabilities: bool = _server(
        True,
        "Ask the server for the probabilities of digits, which give answers their standard "
        "deviation. A few kilobytes more for each answer.",
    )
    request_timeout: float = _server(
        10.0,
        "Time limit for one answer of the server, in seconds.",
        minimum=0.01,
        maximum=3600.0,
        metavar="SECONDS",
    )
    frame_timeout: float = _server(
        20.0,
        "Time limit for all answers about an image, in seconds.",
        minimum=0.01,
        maximum=3600.0,
        metavar="SECONDS",
    )
    recording: str = _recordings(
        "",
        "File of answers to replay, with engine recorded. A task with a model of its own has a "
        "file of its own beside it: answers-pose.jsonl for answers.jsonl.",
        metavar="FILE",
        launch=True,
    )
    record_to: str = _recordings(
        "",
        "File to append all questions and answers to, with any engine. A task with a model of its "
        "own has a file of its own beside it: answers-pose.jsonl for answers.jsonl. Empty: none.",
        metavar="FILE",
        launch=True,
    )


_of_task = partial(parameter, changes="unconfigured", group="one model per task", launch=True)


def _profile_of(model: str) -> str:
    return _of_task("", f"Profile of {model}, as in the setting profile.", metavar="PROFILE")


def _base_url_of(model: str) -> str:
    return _of_task(
        "",
        f"URL of the server of {model}, which may be empty if the server has only one model. "
        "Empty: base_url.",
        metavar="URL",
    )


@dataclass(frozen=True)
class ModelSettings(EngineSettings):
    """Which model answers which task, where and how; see `task_settings`."""

    depth_model: str = _of_task(
        "",
        "Model for metric depth, such as facebook/VLM3-depth. Empty: model.",
        metavar="MODEL",
    )
    pose_model: str = _of_task(
        "",
        "Model for the motion between two images, such as facebook/VLM3-pose. Empty: model.",
        metavar="MODEL",
    )
    match_model: str = _of_task(
        "",
        "Model for the matches that check motions, such as facebook/VLM3-corr. Empty: the model "
        "for motions if it learned matches; otherwise no matches are asked.",
        metavar="MODEL",
    )
    object_model: str = _of_task(
        "",
        "Model for questions about objects and in free text, such as facebook/VLM3-object. Empty: "
        "the model for depth.",
        metavar="MODEL",
    )
    depth_profile: str = _profile_of("depth_model")
    pose_profile: str = _profile_of("pose_model")
    match_profile: str = _profile_of("match_model")
    object_profile: str = _profile_of("object_model")
    depth_base_url: str = _base_url_of("depth_model")
    pose_base_url: str = _base_url_of("pose_model")
    match_base_url: str = _base_url_of("match_model")
    object_base_url: str = _base_url_of("object_model")


_PREFIXES: Mapping[str, str] = {
    "depth": "depth",
    "pose": "pose",
    "correspondence": "match",
    "objects": "object",
}
"""First word of the names of each task's settings."""

_FALLBACK: dict[Task, Task] = {"correspondence": "pose", "objects": "depth"}
"""Whose model answers a task that has none of its own."""


def model_setting(task: str) -> str:
    """Return the name of the setting that chooses the model of a task, by the task's name."""
    return f"{_PREFIXES[task]}_model" if task in _PREFIXES else "model"


def model_name(model: str) -> str:
    """Return the name of a model in messages and results: that of its folder, or its hub id."""
    path = Path(model).expanduser()
    return path.resolve().name if path.is_dir() else model


def profile_setting(task: Task) -> str:
    """Return the name of the setting that says what the model of a task was trained for."""
    return f"{_PREFIXES[task]}_profile"


def task_settings(settings: ModelSettings, task: Task) -> EngineSettings:
    """Return the settings of the engine that answers a task.

    A task's own model comes first. Without one, matches have the model of motions, objects that of
    depth, motions and depth have `model` or, if that is empty, their embedded one. A task's own
    model does not inherit `profile`, which describes another checkpoint, and has recordings of its
    own: answers-pose.jsonl for answers.jsonl. Tasks with equal settings share an engine.
    """
    prefix = _PREFIXES[task]
    model, profile, base_url = (
        getattr(settings, f"{prefix}_{name}") for name in ("model", "profile", "base_url")
    )
    common = EngineSettings(**{f.name: getattr(settings, f.name) for f in fields(EngineSettings)})
    if has_own_model(settings, task):
        return replace(
            common,
            model=model,
            profile=profile,
            base_url=base_url or common.base_url,
            recording=_file_of_task(common.recording, prefix),
            record_to=_file_of_task(common.record_to, prefix),
        )
    if task in _FALLBACK:
        common = task_settings(settings, _FALLBACK[task])
    elif common.engine == "transformers" and not common.model:
        common = replace(common, model=str(default_model(task)))
    return replace(common, profile=profile or common.profile)


def has_own_model(settings: ModelSettings, task: Task) -> bool:
    """Return whether a model is named for a task alone, by its name or its server."""
    prefix = _PREFIXES[task]
    is_served = settings.engine == "openai" and getattr(settings, f"{prefix}_base_url")
    return bool(getattr(settings, f"{prefix}_model") or is_served)


def given_settings(values: Mapping[str, Any]) -> ModelSettings:
    """Build settings from a mapping; ignore unknown keys, default missing ones."""
    return ModelSettings(
        **{f.name: values[f.name] for f in fields(ModelSettings) if f.name in values}
    )


def _file_of_task(file: str, prefix: str) -> str:
    """Return the file of a task beside the common one; empty if there is none."""
    path = Path(file)
    return str(path.with_name(f"{path.stem}-{prefix}{path.suffix}")) if file else ""
