# SPDX-License-Identifier: Apache-2.0
"""Settings of the engines: which model, where and how.

Each setting is declared here and nowhere else; see `vlm3_ros.parameters` for what is made of it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from functools import partial
from typing import Any, Literal, get_args

from vlm3_ros.parameters import parameter
from vlm3_ros.paths import Task, default_model, shipped_profiles

EngineKind = Literal["transformers", "openai", "recorded"]
Dtype = Literal["auto", "float32", "bfloat16", "float16"]
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
        "facebook/VLM3-depth, which is downloaded. Empty: the embedded vlm3-tiny, or "
        "vlm3-tiny-pairs for motions and matches. With engine openai: the server's name for its "
        "model; empty if it has only one.",
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
        "Decode only the numbers of answers, under a grammar, if the model answers in that form "
        "by itself. Faster than decoding whole answers; with engine transformers, answers also "
        "get a standard deviation.",
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
        "File of answers to replay, with engine recorded.",
        metavar="FILE",
        launch=True,
    )
    record_to: str = _recordings(
        "",
        "File to append all questions and answers to, with any engine. Empty: none.",
        metavar="FILE",
        launch=True,
    )


def given_settings(values: Mapping[str, Any]) -> EngineSettings:
    """Build settings from a mapping; ignore unknown keys, default missing ones."""
    return EngineSettings(
        **{f.name: values[f.name] for f in fields(EngineSettings) if f.name in values}
    )


def chosen_settings(values: Mapping[str, Any], task: Task = "depth") -> EngineSettings:
    """Build settings as `given_settings` does; default `model` to the task's embedded one."""
    settings = given_settings(values)
    if settings.engine == "transformers" and not settings.model:
        return replace(settings, model=str(default_model(task)))
    return settings
