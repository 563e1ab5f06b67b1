# SPDX-License-Identifier: Apache-2.0
"""The in-process engine: transformers' own model, for hundreds of questions about one image.

The images and the beginning of the text that all questions share form a prefix, computed once.
The rest of the questions is answered in chunks after that prefix, whose keys and values are never
copied (see `cascade`). Answers equal those of one greedy `generate` per question.
"""

from __future__ import annotations

import logging
import math
import threading
from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from transformers import PreTrainedModel

from vlm3_ros.engines import cascade
from vlm3_ros.engines.base import Answer, EngineError
from vlm3_ros.engines.checkpoint import free_memory
from vlm3_ros.engines.chunking import MAX_CHUNK, TextSizes, balanced, chunk_size
from vlm3_ros.engines.forms import FormLearner
from vlm3_ros.engines.model import LoadedModel, end_tokens
from vlm3_ros.engines.number_trees import NumberTrees
from vlm3_ros.engines.numbers import MAX_SYMBOLS, AnswerForm, answer_form
from vlm3_ros.engines.processor import EncodedQuestions, encode_questions, image_limits
from vlm3_ros.engines.reading import Chunk, Prefix, cascade_attention, read_prefix
from vlm3_ros.engines.settings import EngineSettings
from vlm3_ros.geometry.camera import ImageLimits

logger = logging.getLogger(__name__)

TRY_LARGER_EVERY = 1000
"""Calls after which more questions at a time are tried again, once the device ran out of memory:
another program may have held the memory for a while."""

OVERFLOW = (
    "the model computes no finite scores for numbers: its weights are damaged, or its dtype is too "
    "small for it; try dtype float32"
)
"""Fault of an answer whose distribution is NaN."""


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
        prefix = read_prefix(model, encoded)
        suffixes = encoded.suffixes
        answers: dict[int, Answer] = {}
        form = None
        with cascade_attention(model):
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
        if not suffixes:
            return []
        # Sorted, chunks hold questions that share the most.
        order = sorted(range(len(suffixes)), key=suffixes.__getitem__)
        answers: list[Answer] = []
        most = self._chunk(model, prefix, suffixes, form)
        while waiting := order[len(answers) :]:
            now = [suffixes[i] for i in waiting[: balanced(len(waiting), most)]]
            try:
                answers += self._answer_chunk(model, prefix, now, form)
                continue
            except torch.OutOfMemoryError:
                if len(now) == 1:
                    raise
            # Outside the handler: inside it, the error still holds what filled the memory.
            most = len(now) // 2
            self._set_most_at_a_time(most)
            logger.warning(
                "%s ran out of device memory with %d questions at a time; continuing with %d",
                self.name,
                len(now),
                most,
            )
            if model.device.type == "cuda":
                torch.cuda.empty_cache()
        by_question = dict(zip(order, answers, strict=True))
        return [by_question[i] for i in range(len(suffixes))]

    def _chunk(
        self,
        model: PreTrainedModel,
        prefix: Prefix,
        suffixes: Sequence[list[int]],
        form: AnswerForm | None,
    ) -> int:
        """Return the number of questions that can be answered at the same time."""
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
        chunk = Chunk(model, prefix, suffixes, self._attend_prefix)
        answers = np.zeros((len(suffixes), self._max_new_tokens), np.int64)
        lengths = np.zeros(len(suffixes), np.int64)
        alive = np.arange(len(suffixes))
        hidden = chunk.read_questions()
        for step in range(self._max_new_tokens):
            tokens = model.lm_head(hidden).argmax(-1).cpu().numpy()
            answers[alive, step] = tokens
            lengths[alive] = step + 1
            goes_on = ~np.isin(tokens, list(ends))
            alive, tokens = alive[goes_on], tokens[goes_on]
            if not alive.size or step == self._max_new_tokens - 1:
                break
            paths = np.broadcast_to(np.arange(step + 1), (len(alive), step + 1))
            hidden = chunk.read_answers(alive, tokens, paths)
        return [row[:length].tolist() for row, length in zip(answers, lengths, strict=True)]

    def _answer_numbers(
        self,
        model: PreTrainedModel,
        prefix: Prefix,
        suffixes: Sequence[list[int]],
        form: AnswerForm,
    ) -> list[Answer]:
        """Decode the numbers of answers in this form, with their distributions."""
        opened = [suffix + form.opening_tokens for suffix in suffixes]
        chunk = Chunk(model, prefix, opened, self._attend_prefix)
        symbol_tokens = np.array(form.symbol_tokens)
        symbol_weights = model.lm_head.weight[form.symbol_tokens]
        trees = NumberTrees(len(suffixes))
        hidden = chunk.read_questions()
        while True:
            scores = torch.nn.functional.linear(hidden, symbol_weights)
            trees.grow(scores.float().cpu().numpy())
            if not trees.questions.size:
                break
            hidden = chunk.read_answers(trees.questions, symbol_tokens[trees.symbols], trees.paths)
        histogram = trees.histogram()
        values = histogram.median.tolist()
        stds = (histogram.std * self.profile.std_scale).tolist()
        texts = map(form.text, trees.texts())
        return [
            Answer("", fault=OVERFLOW) if math.isnan(value) else Answer(text, value, std)
            for text, value, std in zip(texts, values, stds, strict=True)
        ]


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
