# SPDX-License-Identifier: Apache-2.0
"""What a user can say about a model."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from typing import Any, Literal

from vlm3_ros.paths import Task, default_model

EngineKind = Literal["transformers", "openai", "recorded"]
Dtype = Literal["auto", "float32", "bfloat16", "float16"]
Attention = Literal["auto", "sdpa", "eager", "flash_attention_2"]

LOCAL_SERVER = "http://localhost:8000/v1"
"""Where `vllm serve` and `transformers serve` listen by default."""

API_KEY_VARIABLE = "VLM3_API_KEY"
"""Not OPENAI_API_KEY: that one is not for whatever server a URL names."""


@dataclass(frozen=True)
class EngineSettings:
    """Which model, where and how.

    Attributes:
        model: checkpoint folder, or id on the Hugging Face hub; for the engine openai, the name
            that the server gives to its model, empty if it has only one.
        engine: "transformers" runs the model in this process, "openai" asks a server, "recorded"
            replays answers.
        dtype: of the weights; "auto" is bfloat16 on CUDA, float32 on the CPU.
        device: "auto" (CUDA where torch can use it), "cpu", "cuda" or "cuda:<index>".
        attn_implementation: of the image encoder and the shared prompt, one of Attention, as
            transformers names it; "auto" leaves the choice to it.
        offline: whether a hub id must be on this machine already.
        force_answers: feed the constant words of answers instead of decoding them, and decode
            their numbers under a grammar, if the model answers in that form by itself. Answers
            then come with a value and a standard deviation (in process only).
        max_new_tokens: after which an answer in free text is cut off.
        chunk: questions that are answered at the same time: more are faster and take more memory.
            0: as many as fit into the memory that is free.
        base_url: of a server with OpenAI's chat completions, up to and with /v1.
        api_key_variable: the environment variable that holds the server's key, if it wants one.
        profile: what the server's model was trained for: a vlm3.json, or a folder with one, such
            as a copy of the checkpoint; empty for the authors'.
        concurrency: questions that the server is asked at the same time.
        request_timeout: seconds for one answer of the server.
        frame_timeout: seconds for all answers about an image.
        recording: file of answers that the engine recorded replays.
        record_to: file to which questions and answers of any engine are added; empty for none.
    """

    model: str
    engine: EngineKind = "transformers"
    dtype: Dtype = "auto"
    device: str = "auto"
    attn_implementation: str = "auto"
    offline: bool = False
    force_answers: bool = True
    max_new_tokens: int = 128
    chunk: int = 0
    base_url: str = LOCAL_SERVER
    api_key_variable: str = API_KEY_VARIABLE
    profile: str = ""
    concurrency: int = 32
    request_timeout: float = 10.0
    frame_timeout: float = 20.0
    recording: str = ""
    record_to: str = ""


def given_settings(values: Mapping[str, Any]) -> EngineSettings:
    """Settings from values by name, of which others are left out and absent ones are defaults."""
    return EngineSettings(
        **{f.name: values[f.name] for f in fields(EngineSettings) if f.name in values}
    )


def chosen_settings(values: Mapping[str, Any], task: Task = "depth") -> EngineSettings:
    """`given_settings`, but without a model, "transformers" runs the embedded one of the task."""
    settings = given_settings(values)
    if settings.engine == "transformers" and not settings.model:
        return replace(settings, model=str(default_model(task)))
    return settings
