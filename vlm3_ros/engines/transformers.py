# SPDX-License-Identifier: Apache-2.0
"""The in-process engine: transformers' own model, for hundreds of questions about one image.

The images and the beginning of the text that all questions share form a prefix, computed once.
The rest of the questions is answered in chunks after that prefix, whose keys and values are never
copied (see `cascade`). Answers equal those of one greedy `generate` per question.
"""

from __future__ import annotations

import inspect
import logging
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from transformers import AutoModelForImageTextToText, DynamicCache, PreTrainedModel
from transformers.utils import logging as transformers_logging

from vlm3_ros.engines import cascade
from vlm3_ros.engines.base import Answer, EngineError, Profile
from vlm3_ros.engines.checkpoint import Preflight, free_memory
from vlm3_ros.engines.chunking import MAX_CHUNK, TextSizes, chunk_size
from vlm3_ros.engines.forms import FormLearner
from vlm3_ros.engines.numbers import MAX_SYMBOLS, AnswerForm, NumberTree, answer_form
from vlm3_ros.engines.processor import (
    EncodedQuestions,
    encode_questions,
    image_limits,
    load_processor,
)
from vlm3_ros.engines.profiles import choose_profile, conventions
from vlm3_ros.engines.settings import EngineSettings, model_name
from vlm3_ros.geometry.camera import ImageLimits

logger = logging.getLogger(__name__)

TRY_LARGER_EVERY = 1000
"""Calls after which more questions at a time are tried again, once the device ran out of memory:
another program may have held the memory for a while."""


@dataclass(frozen=True)
class Prefix:
    """The computed prefix of all questions.

    Attributes:
        layers: keys and values of each layer, shape (1, key heads, tokens, head size).
        next_position: position of the first token after it. Not the number of its tokens: M-RoPE
            gives an image fewer positions than tokens.
    """

    layers: list[tuple[Tensor, Tensor]]
    next_position: int


@dataclass(frozen=True)
class Addition:
    """A decoded token of one question, for the model to read.

    Attributes:
        question: index of the question.
        token: id of the token.
        path: indices of the question's decoded tokens that lead to it, its own last. The token
            attends to these.
    """

    question: int
    token: int
    path: Sequence[int]


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


def load_transformers_engine(
    settings: EngineSettings,
    checked: Preflight,
    progress: Callable[[str], None] = lambda message: None,
) -> TransformersEngine:
    """Load a checkpoint that passed its preflight into an engine.

    Args:
        settings: which model, where and how.
        checked: of the checkpoint.
        progress: receives a line about the checkpoint's conventions, and one about its size.

    Raises:
        EngineError: if its files do not fit together, or nothing says what it was trained for.
    """
    return TransformersEngine(load_model(settings, checked, progress), settings)


def load_model(
    settings: EngineSettings,
    checked: Preflight,
    progress: Callable[[str], None] = lambda message: None,
) -> LoadedModel:
    """Load a checkpoint that passed its preflight; see `load_transformers_engine`.

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


class TransformersEngine:
    """Asks a model in this process; see `vlm3_ros.engines.base.Engine`."""

    warning: str | None = None

    def __init__(self, loaded: LoadedModel, settings: EngineSettings) -> None:
        """Take a loaded model.

        Args:
            loaded: the model.
            settings: only those about answering are used.
        """
        model = loaded.model
        self.name = settings.model
        self.profile = loaded.profile
        self.limits: ImageLimits = image_limits(loaded.processor)
        self._model: PreTrainedModel | None = model
        self._processor = loaded.processor
        self._settings = settings
        self._max_new_tokens = settings.max_new_tokens or self.profile.max_new_tokens
        self._lock = threading.Lock()
        self._learners: dict[str, FormLearner] = {}
        self._forms: dict[str, AnswerForm | None] = {}
        self._sizes = _text_sizes(model)
        self._most_at_a_time = settings.chunk or MAX_CHUNK
        self._calls_in_memory = 0
        """Calls since `_most_at_a_time` was last changed."""
        self._attend_prefix = cascade.fastest_attention(
            model.device, model.dtype, self._sizes.head_size
        )

    def ask(
        self,
        images: Sequence[NDArray[np.uint8]],
        questions: Sequence[str],
        answer_template: str | None = None,
    ) -> list[Answer]:
        """Ask the model; see `Engine.ask`."""
        if not questions:
            return []
        with self._lock, torch.inference_mode():
            if self._model is None:
                raise EngineError(f"{self.name} is closed")
            encoded = encode_questions(self._processor, images, questions)
            self._calls_in_memory += 1
            if self._calls_in_memory == TRY_LARGER_EVERY:
                largest = self._settings.chunk or MAX_CHUNK
                self._set_most_at_a_time(min(2 * self._most_at_a_time, largest))
            try:
                return self._answer(self._model, encoded, answer_template)
            except torch.OutOfMemoryError as error:
                raise EngineError(
                    f"{self.name} ran out of device memory with {len(encoded.prefix)} shared "
                    "tokens, even with one question at a time: choose a smaller image or a "
                    "smaller dtype"
                ) from error

    def force(self, template: str) -> None:
        """Force answers into a form even if the model does not use it by itself.

        For measurements of the cost of answers, regardless of their content.
        """
        self._learner(template).force_template()

    def memory_bytes(self) -> int | None:
        """Return the CUDA memory in use in bytes; None on the CPU."""
        model = self._model
        if model is None or model.device.type != "cuda":
            return None
        return torch.cuda.memory_allocated(model.device)

    def close(self) -> None:
        """Release the model and its memory."""
        with self._lock:
            self._model = None
            if torch.cuda.is_available():
                torch.cuda.empty_cache()

    def _set_most_at_a_time(self, questions: int) -> None:
        self._most_at_a_time = questions
        self._calls_in_memory = 0

    def _answer(
        self, model: PreTrainedModel, encoded: EncodedQuestions, template: str | None
    ) -> list[Answer]:
        prefix = _read_prefix(model, encoded)
        suffixes = encoded.suffixes
        answers: dict[int, Answer] = {}
        form = None
        with _attention(model, cascade.ATTENTION):
            if template is not None and self._settings.force_answers:
                learner = self._learner(template)
                for indices in learner.questions(len(suffixes)):
                    free = self._answer_all(model, prefix, [suffixes[i] for i in indices], None)
                    learner.observe(free)
                    answers.update(zip(indices, free, strict=True))
                form = self._form(learner.form)
            if form is not None:
                return self._answer_all(model, prefix, suffixes, form)
            others = [i for i in range(len(suffixes)) if i not in answers]
            free = self._answer_all(model, prefix, [suffixes[i] for i in others], None)
            answers.update(zip(others, free, strict=True))
        return [answers[i] for i in range(len(suffixes))]

    def _answer_all(
        self,
        model: PreTrainedModel,
        prefix: Prefix,
        suffixes: Sequence[list[int]],
        form: AnswerForm | None,
    ) -> list[Answer]:
        """Answer questions after a prefix, as many at a time as fit into memory."""
        answers: list[Answer] = []
        if not suffixes:
            return answers
        chunk = self._chunk(model, prefix, suffixes, form)
        while len(answers) < len(suffixes):
            now = suffixes[len(answers) : len(answers) + chunk]
            try:
                answers += self._answer_chunk(model, prefix, now, form)
                continue
            except torch.OutOfMemoryError:
                if len(now) == 1:
                    raise
            # Outside the handler: inside it, the error still holds what filled the memory.
            chunk = len(now) // 2
            self._set_most_at_a_time(chunk)
            logger.warning(
                "%s ran out of device memory with %d questions at a time; continuing with %d",
                self.name,
                len(now),
                chunk,
            )
            if model.device.type == "cuda":
                torch.cuda.empty_cache()
        return answers

    def _chunk(
        self,
        model: PreTrainedModel,
        prefix: Prefix,
        suffixes: Sequence[list[int]],
        form: AnswerForm | None,
    ) -> int:
        """Return the number of questions to answer at the same time."""
        if self._settings.chunk:
            return self._most_at_a_time
        answer = (
            self._max_new_tokens
            if form is None
            else len(form.opening_tokens) + 2 * MAX_SYMBOLS  # including alternative numbers
        )
        is_fused = self._attend_prefix is not cascade.plain_attention
        prefix_tokens = 0 if is_fused else prefix.layers[0][0].shape[2]
        needed = self._sizes.question_bytes(max(map(len, suffixes)) + answer, prefix_tokens)
        return min(chunk_size(free_memory(model.device), needed), self._most_at_a_time)

    def _answer_chunk(
        self,
        model: PreTrainedModel,
        prefix: Prefix,
        suffixes: Sequence[list[int]],
        form: AnswerForm | None,
    ) -> list[Answer]:
        if form is None:
            return self._answer_freely(model, prefix, suffixes)
        return self._answer_numbers(model, prefix, suffixes, form)

    def _learner(self, template: str) -> FormLearner:
        if template not in self._learners:
            self._learners[template] = FormLearner(self.name, template, self._refusal)
        return self._learners[template]

    def _refusal(self, form: str) -> str | None:
        """Return why the numbers of a form cannot be decoded symbol by symbol; None if they can."""
        if self._form(form) is None:
            return "the tokenizer does not write its numbers symbol by symbol"
        return None

    def _form(self, form: str | None) -> AnswerForm | None:
        """Return a form in the model's tokens; None if there is none."""
        if form is None:
            return None
        if form not in self._forms:
            tokenizer = self._processor.tokenizer
            self._forms[form] = answer_form(
                form, lambda text: tokenizer(text, add_special_tokens=False)["input_ids"]
            )
        return self._forms[form]

    def _answer_freely(
        self, model: PreTrainedModel, prefix: Prefix, suffixes: Sequence[list[int]]
    ) -> list[Answer]:
        ends = end_tokens(model, self._processor.tokenizer)
        return [
            Answer(self._text(tokens), is_cut=tokens[-1] not in ends)
            for tokens in self._generate(model, prefix, suffixes, ends)
        ]

    def _text(self, tokens: list[int]) -> str:
        text: str = self._processor.tokenizer.decode(tokens, skip_special_tokens=True)
        return text

    def _generate(
        self,
        model: PreTrainedModel,
        prefix: Prefix,
        suffixes: Sequence[list[int]],
        ends: set[int],
    ) -> list[list[int]]:
        """Decode each answer greedily until an end token, or `max_new_tokens` tokens."""
        chunk = _Chunk(model, prefix, suffixes, self._attend_prefix)
        answers: list[list[int]] = [[] for _ in suffixes]
        alive = list(range(len(suffixes)))
        hidden = chunk.read_suffixes()
        for length in range(1, self._max_new_tokens + 1):
            tokens = model.lm_head(hidden).argmax(-1).tolist()
            for question, token in zip(alive, tokens, strict=True):
                answers[question].append(token)
            alive = [question for question in alive if answers[question][-1] not in ends]
            if not alive or length == self._max_new_tokens:
                break
            path = range(length)
            hidden = chunk.read([Addition(q, answers[q][-1], path) for q in alive])
        return answers

    def _answer_numbers(
        self,
        model: PreTrainedModel,
        prefix: Prefix,
        suffixes: Sequence[list[int]],
        form: AnswerForm,
    ) -> list[Answer]:
        """Decode the numbers of answers in this form, with their distributions."""
        opened = [suffix + form.opening_tokens for suffix in suffixes]
        chunk = _Chunk(model, prefix, opened, self._attend_prefix)
        symbol_weights = model.lm_head.weight[form.symbol_tokens]
        trees = [NumberTree() for _ in suffixes]
        hidden = chunk.read_suffixes()
        while True:
            scores = torch.nn.functional.linear(hidden, symbol_weights).float().cpu().numpy()
            start = 0
            for tree in trees:
                end = start + len(tree.frontier)
                tree.grow(scores[start:end])
                start = end
            additions = [
                Addition(question, form.symbol_tokens[number.symbol], number.path)
                for question, tree in enumerate(trees)
                for number in tree.frontier
            ]
            if not additions:
                break
            hidden = chunk.read(additions)
        return [_number_answer(form, tree, self.profile.std_scale) for tree in trees]


def _text_sizes(model: PreTrainedModel) -> TextSizes:
    text = model.config.text_config
    return TextSizes(
        layers=text.num_hidden_layers,
        hidden=text.hidden_size,
        intermediate=text.intermediate_size,
        heads=text.num_attention_heads,
        key_heads=text.num_key_value_heads,
        head_size=getattr(text, "head_dim", text.hidden_size // text.num_attention_heads),
        vocabulary=text.vocab_size,
        itemsize=model.dtype.itemsize,
    )


def cache_argument(model: PreTrainedModel, cache: DynamicCache) -> dict[str, DynamicCache]:
    """Keyword argument that gives a model its cache; transformers 5.24 renamed it."""
    parameters = inspect.signature(model.model.forward).parameters
    return {"cache" if "cache" in parameters else "past_key_values": cache}


def _number_answer(form: AnswerForm, tree: NumberTree, std_scale: float) -> Answer:
    histogram = tree.histogram()
    return Answer(form.text(tree.text), histogram.median, histogram.std * std_scale)


def _read_prefix(model: PreTrainedModel, encoded: EncodedQuestions) -> Prefix:
    """Compute the shared prefix of the questions."""
    ids = torch.tensor([encoded.prefix], device=model.device)
    grid = encoded.image_grid_thw.to(model.device)
    types = (ids == model.config.image_token_id).int()
    # Pass positions explicitly: the model's stored ones are those of another call.
    positions, _ = model.model.get_rope_index(ids, mm_token_type_ids=types, image_grid_thw=grid)
    cache = DynamicCache(config=model.config)
    model.model(
        input_ids=ids,
        mm_token_type_ids=types,
        pixel_values=encoded.pixel_values.to(model.device, model.dtype),
        image_grid_thw=grid,
        position_ids=positions,
        **cache_argument(model, cache),
        use_cache=True,
    )
    layers: list[Any] = cache.layers
    return Prefix(
        layers=[(layer.keys, layer.values) for layer in layers],
        next_position=int(positions.max()) + 1,
    )


class _Chunk:
    """Questions that are answered together after a prefix."""

    def __init__(
        self,
        model: PreTrainedModel,
        prefix: Prefix,
        suffixes: Sequence[list[int]],
        attend_prefix: cascade.PrefixAttention,
    ) -> None:
        self._model = model
        self._first_position = prefix.next_position
        self._suffixes = suffixes
        self._lengths = np.array([len(suffix) for suffix in suffixes])
        self._decoded = 0
        self._cascade = cascade.Cascade(prefix.layers, len(suffixes), attend_prefix)

    def read_suffixes(self) -> Tensor:
        """Read all questions; return the hidden state of each last token, shape (n, size)."""
        questions = np.repeat(np.arange(len(self._suffixes)), self._lengths)
        slots = np.concatenate([np.arange(length) for length in self._lengths])
        hidden = self._step(
            tokens=np.concatenate(self._suffixes),
            questions=questions,
            slots=slots,
            steps=slots,
            visible=np.arange(self._lengths.max()) <= slots[:, None],
        )
        return hidden[torch.from_numpy(self._lengths.cumsum() - 1).to(hidden.device)]

    def read(self, additions: Sequence[Addition]) -> Tensor:
        """Read decoded tokens, by ascending question; return hidden states, shape (n, size)."""
        questions = np.array([addition.question for addition in additions])
        lengths = self._lengths[questions]
        newest = np.array([addition.path[-1] for addition in additions])
        self._decoded = max(self._decoded, int(newest.max()) + 1)
        visible = np.arange(self._lengths.max() + self._decoded) < lengths[:, None]
        for row, length, addition in zip(visible, lengths, additions, strict=True):
            row[length + np.asarray(addition.path)] = True
        return self._step(
            tokens=np.array([addition.token for addition in additions]),
            questions=questions,
            slots=lengths + newest,
            steps=lengths + [len(addition.path) - 1 for addition in additions],
            visible=visible,
        )

    def _step(
        self,
        tokens: NDArray[np.int64],
        questions: NDArray[np.int64],
        slots: NDArray[np.int64],
        steps: NDArray[np.int64],
        visible: NDArray[np.bool_],
    ) -> Tensor:
        """Read one packed sequence; `steps` are positions relative to the end of the prefix."""
        device = self._model.device
        self._cascade.place(
            *(torch.from_numpy(array).to(device) for array in (questions, slots, visible))
        )
        positions = torch.from_numpy(self._first_position + steps).to(device)
        output = self._model.model(
            input_ids=torch.from_numpy(tokens).to(device)[None],
            position_ids=positions.expand(3, 1, -1),  # text: same time, height and width
            use_cache=False,
            cascade=self._cascade,
        )
        hidden: Tensor = output.last_hidden_state[0]
        return hidden


@contextmanager
def _attention(model: PreTrainedModel, name: str) -> Iterator[None]:
    """Use another attention in the language half of a model within the `with` block."""
    usual = model.config.text_config._attn_implementation
    model.set_attn_implementation({"text_config": name})
    try:
        yield
    finally:
        model.set_attn_implementation({"text_config": usual})


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
