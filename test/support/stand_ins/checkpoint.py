# SPDX-License-Identifier: Apache-2.0
"""A narrow Qwen3-VL with the real vocabulary, and its folder in the layout of the public ones."""

from __future__ import annotations

import json
import os
from pathlib import Path

from transformers import (
    GenerationConfig,
    Qwen2Tokenizer,
    Qwen3VLConfig,
    Qwen3VLForConditionalGeneration,
)

from vlm3_lab.training.checkpoint import CHAT_TEMPLATE, build_processor, save_processor
from vlm3_ros.engines.processor import ImageOnlyQwen3VLProcessor

VOCABULARY = 151_936
VISION_START, VISION_END, IMAGE, VIDEO = 151_652, 151_653, 151_655, 151_656
END, PAD = 151_645, 151_643

MIN_PIXELS, MAX_PIXELS = 65_536, 16_777_216

IMAGE_PROCESSOR = {
    "size": {"longest_edge": MAX_PIXELS, "shortest_edge": MIN_PIXELS},
    "patch_size": 16,
    "temporal_patch_size": 2,
    "merge_size": 2,
    "image_mean": [0.5, 0.5, 0.5],
    "image_std": [0.5, 0.5, 0.5],
    "processor_class": "Qwen3VLProcessor",
    "image_processor_type": "Qwen2VLImageProcessorFast",
}
"""preprocessor_config.json of Qwen3-VL-4B-Instruct."""


VIDEO_PROCESSOR = {
    **{name: value for name, value in IMAGE_PROCESSOR.items() if name != "image_processor_type"},
    "size": {"longest_edge": 25_165_824, "shortest_edge": 4096},
    "video_processor_type": "Qwen3VLVideoProcessor",
}
"""video_preprocessor_config.json."""

NAMES = ("VLM3-depth", "VLM3-pose", "VLM3-corr", "VLM3-object")
PUBLIC_LAYOUT = ("VLM3-depth", "VLM3-corr")
"""Those whose processor files are laid out as those of Qwen3-VL-4B-Instruct."""


def narrow_config(vocabulary: int = VOCABULARY, **token_ids: int) -> Qwen3VLConfig:
    """Configuration of a narrow model; its proportions are those of Qwen3-VL-4B.

    Args:
        vocabulary: number of tokens.
        token_ids: those that differ from the real ones.
    """
    ids = {
        "vision_start_token_id": VISION_START,
        "vision_end_token_id": VISION_END,
        "image_token_id": IMAGE,
        "video_token_id": VIDEO,
    }
    return Qwen3VLConfig(
        text_config={
            "vocab_size": vocabulary,
            "hidden_size": 96,
            "intermediate_size": 192,
            "num_hidden_layers": 3,
            "num_attention_heads": 4,
            "num_key_value_heads": 2,
            "head_dim": 32,
            "max_position_embeddings": 262_144,
            "rope_parameters": {
                "rope_type": "default",
                "rope_theta": 5e6,
                "mrope_interleaved": True,
                "mrope_section": [6, 5, 5],
            },
            "bos_token_id": PAD,
            "eos_token_id": END,
            "tie_word_embeddings": True,
        },
        vision_config={
            "depth": 2,
            "hidden_size": 32,
            "intermediate_size": 64,
            "num_heads": 2,
            "patch_size": 16,
            "spatial_merge_size": 2,
            "temporal_patch_size": 2,
            "out_hidden_size": 96,
            "num_position_embeddings": 48**2,
            "deepstack_visual_indexes": [0],
        },
        **{**ids, **token_ids},
        tie_word_embeddings=True,
    )


def qwen3_vl_processor(tokenizer: Qwen2Tokenizer) -> ImageOnlyQwen3VLProcessor:
    """Build the processor of Qwen3-VL-4B-Instruct."""
    processor = build_processor(tokenizer)
    processor.image_processor.size["shortest_edge"] = MIN_PIXELS
    return processor


def write_stand_ins(
    folder: Path, model: Qwen3VLForConditionalGeneration, tokenizer: Qwen2Tokenizer
) -> None:
    """Write one model to four folders, which have the names of the authors' checkpoints.

    The public Qwen3-VL-4B-Instruct keeps its processor in the files of transformers 4, and a model
    trained from it in those of the version that saved it: two folders have the former.
    """
    # As published: sampling is on unless a caller turns it off.
    model.generation_config = GenerationConfig(
        bos_token_id=PAD,
        pad_token_id=PAD,
        eos_token_id=[END, PAD],
        do_sample=True,
        temperature=0.7,
        top_k=20,
        top_p=0.8,
    )
    first = folder / NAMES[0]
    model.save_pretrained(first)
    for name in NAMES:
        (folder / name).mkdir(exist_ok=True)
        for file in first.glob("*"):
            if name != NAMES[0]:
                os.link(file, folder / name / file.name)
    for name in PUBLIC_LAYOUT:
        _save_as_public(tokenizer, folder / name)
    for name in set(NAMES) - set(PUBLIC_LAYOUT):
        save_processor(qwen3_vl_processor(tokenizer), folder / name)


def _save_as_public(tokenizer: Qwen2Tokenizer, folder: Path) -> None:
    tokenizer.save_pretrained(folder)
    (folder / "preprocessor_config.json").write_text(json.dumps(IMAGE_PROCESSOR))
    (folder / "video_preprocessor_config.json").write_text(json.dumps(VIDEO_PROCESSOR))
    (folder / "chat_template.json").write_text(json.dumps({"chat_template": CHAT_TEMPLATE}))
