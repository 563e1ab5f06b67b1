# SPDX-License-Identifier: Apache-2.0
"""Asking a model with transformers alone: the reference for the engine's speed and answers."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor
from transformers import DynamicCache

from vlm3_ros.engines.model import LoadedModel, end_tokens
from vlm3_ros.engines.processor import encode_questions
from vlm3_ros.engines.reading import cache_argument

PACK = 10
"""Questions per sequence, as many as the paper trains with per image (3.2)."""


def ask_naive(
    loaded: LoadedModel, image: NDArray[np.uint8], questions: Sequence[str], max_new_tokens: int
) -> list[str]:
    """Ask with one `generate` per question, encoding the image each time.

    This is how the public model's page does it.

    Args:
        image: RGB, shape (height, width, 3), uint8, of a size that enters the model unresized.
    """
    answers = []
    for question in questions:
        answers += ask_batched(loaded, image, [question], max_new_tokens)
    return answers


def ask_batched(
    loaded: LoadedModel,
    image: NDArray[np.uint8],
    questions: Sequence[str],
    max_new_tokens: int,
    **options: Any,
) -> list[str]:
    """Ask with one `generate` for all questions, in a batch that repeats the image for each.

    Args:
        options: further arguments of `generate`.
    """
    model: Any = loaded.model
    picture = Image.fromarray(image)
    chats = [
        [
            {
                "role": "user",
                "content": [
                    {"type": "image", "image": picture},
                    {"type": "text", "text": question},
                ],
            }
        ]
        for question in questions
    ]
    inputs = loaded.processor.apply_chat_template(
        chats,
        tokenize=True,
        add_generation_prompt=True,
        return_dict=True,
        return_tensors="pt",
        processor_kwargs={
            "padding": True,
            "padding_side": "left",
            "images_kwargs": {"do_resize": False},
        },
    ).to(model.device)
    with torch.inference_mode():
        output = model.generate(**inputs, max_new_tokens=max_new_tokens, do_sample=False, **options)
    tokenizer = loaded.processor.tokenizer
    texts: list[str] = tokenizer.batch_decode(
        output[:, inputs["input_ids"].shape[1] :], skip_special_tokens=True
    )
    return texts


def ask_packed(
    loaded: LoadedModel, image: NDArray[np.uint8], questions: Sequence[str], max_new_tokens: int
) -> list[str]:
    """Ask ten questions in one sequence after one image; each sees the image and itself.

    The paper packs its training samples like this. A mask over all pairs of tokens keeps the
    questions apart in the model's own attention; the image is encoded once per ten questions.
    """
    answers = []
    with torch.inference_mode():
        for start in range(0, len(questions), PACK):
            answers += _ask_pack(loaded, image, questions[start : start + PACK], max_new_tokens)
    return answers


def _ask_pack(
    loaded: LoadedModel, image: NDArray[np.uint8], questions: Sequence[str], max_new_tokens: int
) -> list[str]:
    model: Any = loaded.model
    tokenizer = loaded.processor.tokenizer
    encoded = encode_questions(loaded.processor, [image], questions)
    lengths = np.array([len(suffix) for suffix in encoded.suffixes])
    prefix = len(encoded.prefix)
    # Per token: its question (-1: shared by all), and its position in that question.
    owners = np.concatenate([np.full(prefix, -1), np.repeat(np.arange(len(lengths)), lengths)])
    steps = np.concatenate([np.arange(n) for n in (prefix, *lengths)])
    ids = torch.tensor([[*encoded.prefix, *chain(*encoded.suffixes)]], device=model.device)
    types = (ids == model.config.image_token_id).int()
    grid = encoded.image_grid_thw.to(model.device)
    start, _ = model.model.get_rope_index(
        ids[:, :prefix], mm_token_type_ids=types[:, :prefix], image_grid_thw=grid
    )
    behind = int(start.max()) + 1
    positions = torch.cat([start, _text_positions(behind + steps[prefix:], model.device)], -1)
    cache = cache_argument(model, DynamicCache(config=model.config))
    output = model.model(
        input_ids=ids,
        mm_token_type_ids=types,
        pixel_values=encoded.pixel_values.to(model.device, model.dtype),
        image_grid_thw=grid,
        position_ids=positions,
        attention_mask=_mask(owners, steps, len(steps), model),
        **cache,
        use_cache=True,
    )
    hidden = output.last_hidden_state[0, prefix + lengths.cumsum() - 1]
    ends = list(end_tokens(model, tokenizer))
    answers: list[list[int]] = [[] for _ in questions]
    alive = np.arange(len(questions))
    for step in range(max_new_tokens):
        tokens = model.lm_head(hidden).argmax(-1).cpu().numpy()
        for question, token in zip(alive, tokens.tolist(), strict=True):
            answers[question].append(token)
        going_on = ~np.isin(tokens, ends)
        alive, tokens = alive[going_on], tokens[going_on]
        if not len(alive) or step == max_new_tokens - 1:
            break
        owners = np.concatenate([owners, alive])
        steps = np.concatenate([steps, lengths[alive] + step])
        output = model.model(
            input_ids=torch.from_numpy(tokens)[None].to(model.device),
            position_ids=_text_positions(behind + steps[-len(alive) :], model.device),
            attention_mask=_mask(owners, steps, len(alive), model),
            **cache,
            use_cache=True,
        )
        hidden = output.last_hidden_state[0]
    texts: list[str] = tokenizer.batch_decode(answers, skip_special_tokens=True)
    return texts


def _text_positions(steps: NDArray[np.int64], device: torch.device) -> Tensor:
    """M-RoPE positions of text: time, height and width are equal, shape (3, 1, tokens)."""
    return torch.from_numpy(steps).to(device).expand(3, 1, -1)


def _mask(owners: NDArray[np.int64], steps: NDArray[np.int64], count: int, model: Any) -> Tensor:
    """Additive attention mask of the last `count` tokens, shape (1, 1, count, tokens)."""
    before = steps <= steps[-count:, None]
    visible = (owners == -1) | (owners == owners[-count:, None])
    # A question sees the whole prefix; a token of the prefix sees the tokens before it.
    visible &= before | ((owners == -1) & (owners[-count:, None] != -1))
    mask = torch.zeros(visible.shape, dtype=model.dtype, device=model.device)
    mask.masked_fill_(torch.from_numpy(~visible).to(model.device), torch.finfo(model.dtype).min)
    return mask[None, None]
