"""What a user can say about a model."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Dtype = Literal["auto", "float32", "bfloat16", "float16"]
Attention = Literal["auto", "sdpa", "eager", "flash_attention_2"]


@dataclass(frozen=True)
class EngineSettings:
    """Which model, where and how.

    Attributes:
        model: checkpoint folder, or id on the Hugging Face hub.
        dtype: of the weights; "auto" is bfloat16 on CUDA, float32 on the CPU.
        device: "auto" (CUDA where torch can use it), "cpu", "cuda" or "cuda:<index>".
        attn_implementation: of the image encoder and the shared prompt, one of Attention, as
            transformers names it; "auto" leaves the choice to it.
        offline: whether a hub id must be on this machine already.
        force_answers: feed the constant words of answers instead of decoding them, and decode
            their numbers under a grammar, if the model answers in that form by itself. Answers
            then come with a value and a standard deviation.
        max_new_tokens: after which an answer in free text is cut off.
        chunk: questions that are answered at the same time: more are faster and take more memory.
            0: as many as fit into the memory that is free.
    """

    model: str
    dtype: Dtype = "auto"
    device: str = "auto"
    attn_implementation: str = "auto"
    offline: bool = False
    force_answers: bool = True
    max_new_tokens: int = 128
    chunk: int = 0
