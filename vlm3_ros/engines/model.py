# SPDX-License-Identifier: Apache-2.0
"""A checkpoint loaded with transformers: model, processor and profile, checked to fit together."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForImageTextToText, PreTrainedModel
from transformers.utils import logging as transformers_logging

from vlm3_ros.engines.base import EngineError, Profile
from vlm3_ros.engines.checkpoint import Preflight
from vlm3_ros.engines.processor import load_processor
from vlm3_ros.engines.profiles import choose_profile, conventions
from vlm3_ros.engines.settings import EngineSettings, model_name


@dataclass(frozen=True)
class LoadedModel:
    """A model of the Qwen3-VL family on its device, in evaluation mode.

    Attributes:
        model: the model.
        processor: processor of the same checkpoint.
        profile: what the checkpoint was trained for.
    """

    model: PreTrainedModel
    processor: Any
    profile: Profile


def load_model(
    settings: EngineSettings,
    checked: Preflight,
    progress: Callable[[str], None] = lambda message: None,
) -> LoadedModel:
    """Load a checkpoint that passed its preflight.

    Args:
        settings: which model, where and how.
        checked: of the checkpoint.
        progress: receives a line about the checkpoint's conventions, and one about its size.

    Raises:
        EngineError: if its files do not fit together, or nothing says what it was trained for.
    """
    folder = checked.folder
    profile, reason = choose_profile(settings.profile, settings.model, folder)
    progress(f"{model_name(settings.model)}: {conventions(profile)} ({reason})")
    progress(f"loading {checked}")
    attention = settings.attn_implementation
    try:
        with _quiet_transformers():
            processor = load_processor(folder)
            loaded: Any = AutoModelForImageTextToText.from_pretrained(
                folder,
                dtype=checked.dtype,
                attn_implementation=None if attention == "auto" else attention,
                local_files_only=True,
                trust_remote_code=False,
                use_safetensors=True,
                ignore_mismatched_sizes=True,  # reported, and refused below
                output_loading_info=True,
            )
            model, report = loaded
            model = model.eval().requires_grad_(False).to(checked.device)
    except torch.OutOfMemoryError as error:
        raise EngineError(f"{checked}: out of memory while loading") from error
    except (ImportError, KeyError, OSError, RuntimeError, TypeError, ValueError) as error:
        reason = " ".join(str(error).split())
        raise EngineError(f"{folder} cannot be loaded: {reason}") from error
    _check_parts(folder, model, processor, report)
    return LoadedModel(model, processor, profile)


def end_tokens(model: PreTrainedModel, tokenizer: Any) -> set[int]:
    """Return the tokens that end an answer."""
    ends = model.generation_config.eos_token_id
    if ends is None:
        ends = tokenizer.eos_token_id
    return set(ends if isinstance(ends, list) else [ends])


def _check_parts(
    folder: Path, model: PreTrainedModel, processor: Any, report: dict[str, Any]
) -> None:
    """Raise now what transformers would fill with random numbers, or would raise later."""
    mismatched = [name for name, *_ in report["mismatched_keys"]]
    if absent := sorted([*report["missing_keys"], *mismatched]):
        raise EngineError(
            f"the weights in {folder} do not fit its config.json: {len(absent)} are missing or of "
            f"another shape, such as {absent[0]}; fetch the checkpoint again"
        )
    vision, image_processor = model.config.vision_config, processor.image_processor
    expected = vision.patch_size, vision.spatial_merge_size, vision.temporal_patch_size
    actual = tuple(
        getattr(image_processor, name)
        for name in ("patch_size", "merge_size", "temporal_patch_size")
    )
    if actual != expected:
        raise EngineError(
            f"the image processor in {folder} cuts patches of (size, merge, frames) {actual}, but "
            f"its model takes {expected}"
        )
    if len(processor.tokenizer) > model.config.text_config.vocab_size:
        raise EngineError(
            f"the tokenizer in {folder} has {len(processor.tokenizer)} tokens, but its model knows "
            f"{model.config.text_config.vocab_size}"
        )
    if processor.chat_template is None:
        raise EngineError(f"{folder} has no chat template, such as chat_template.jinja")


@contextmanager
def _quiet_transformers() -> Iterator[None]:
    """Silence transformers' progress bars and warnings: our own messages replace them."""
    verbosity = transformers_logging.get_verbosity()
    had_bar = transformers_logging.is_progress_bar_enabled()
    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()
    try:
        yield
    finally:
        transformers_logging.set_verbosity(verbosity)
        if had_bar:
            transformers_logging.enable_progress_bar()
