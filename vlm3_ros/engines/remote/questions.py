# SPDX-License-Identifier: Apache-2.0
"""Questions to one server, asked in the cheapest way that it takes.

Servers differ in three features: whether they keep images between questions, hold answers to a
regular expression, and report the probabilities of tokens. A feature that is unknown is tried by
one question while the others wait; what the server refuses is left out, and tried again later.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Any

from vlm3_ros.engines.numbers import NUMBER
from vlm3_ros.engines.remote.client import ChatClient, Completion, UnansweredError
from vlm3_ros.engines.remote.features import Feature
from vlm3_ros.engines.remote.pictures import KeptImages, Pictures
from vlm3_ros.engines.remote.probabilities import ALTERNATIVES
from vlm3_ros.engines.settings import EngineSettings

NAMED_TRIES = 3
"""Times that a question names its images, while others send them, before it sends them itself."""

_REGEX_SPECIAL = re.compile(r"[\\.^$*+?{}\[\]|()]")


@dataclass(frozen=True)
class Question:
    """A question about images.

    Attributes:
        pictures: the images.
        text: the question.
        regex: regular expression to hold the answer to; None: free text.
        needs_probabilities: whether the probabilities of the answer's tokens are of use.
    """

    pictures: Pictures
    text: str
    regex: str | None
    needs_probabilities: bool


class QuestionSender:
    """Sends questions to a server; for use in one event loop."""

    def __init__(
        self,
        client: ChatClient,
        settings: EngineSettings,
        max_tokens: int,
        only_model: Callable[[], Awaitable[str]],
    ) -> None:
        """Send nothing yet.

        Args:
            client: of the server.
            settings: which model, and how many requests at a time.
            max_tokens: maximum number of tokens of an answer.
            only_model: returns the name of the server's model, if the settings name none; raises
                an UnansweredError if it cannot be asked.
        """
        self.keeping = Feature(
            f"{client.url} keeps no images between questions: each question carries its images"
        )
        self.forms = Feature(f"{client.url} does not take regular expressions: answers are free")
        self.probabilities = Feature(
            f"{client.url} does not report the probabilities of digits: answers have no standard "
            "deviation"
        )
        self._client = client
        self._settings = settings
        self._max_tokens = max_tokens
        self._only_model = only_model
        self._model = settings.model
        self._slots = asyncio.Semaphore(settings.concurrency)
        self._trials = asyncio.Lock()
        self._kept = KeptImages()

    def start_call(self, needs_numbers: bool) -> None:
        """Count a call, for features that are tried again later.

        Args:
            needs_numbers: whether the call has answers with numbers in a known form.
        """
        self.keeping.start_call()
        if needs_numbers:
            self.forms.start_call()
            self.probabilities.start_call()

    def forget(self) -> None:
        """Take the server for an unknown one: it may have been replaced."""
        for feature in (self.keeping, self.forms, self.probabilities):
            feature.doubt()
        self._kept.clear()

    def forget_model(self) -> None:
        """Look up again which model the server has, unless the settings say so."""
        self._model = self._settings.model

    async def ask(self, question: Question) -> Completion:
        """Return the model's answer to a question, when a slot is free.

        Raises:
            UnansweredError: if there is no answer.
        """
        # A question keeps its slot while it waits for another one's trial or images. Otherwise
        # all the others would use the slots to fail in the same way.
        async with self._slots:
            used = self._used(question)
            if all(feature.is_proven for feature in used):
                try:
                    return await self._ask_as_proven(question)
                except UnansweredError as error:
                    if not (error.is_refusal and used):
                        raise
                for feature in used:
                    feature.doubt()
            async with self._trials:
                if not all(feature.is_proven for feature in self._used(question)):
                    return await self._try(question)
            return await self._ask_as_proven(question)

    def _used(self, question: Question) -> list[Feature]:
        """Return the features that a question uses, without refused ones."""
        used = [self.keeping]
        if question.needs_probabilities:
            used.append(self.probabilities)
        if question.regex is not None:
            used.append(self.forms)
        return [feature for feature in used if not feature.is_refused]

    async def _try(self, question: Question) -> Completion:
        """Ask with features that are unknown; leave out one after the other that is refused."""
        used = self._used(question)
        completion = None
        if self.keeping.is_proven and self._are_kept(question):
            completion = await self._ask_named(question, used)
        left_out = None
        while completion is None:
            try:
                completion = await self._show(question, used)
            except UnansweredError as error:
                if not (error.is_refusal and used):
                    raise
                left_out = used.pop()
        if left_out is not None:
            left_out.refuse()
        if self.forms in used:
            self.forms.prove()
        if self.probabilities in used:
            if completion.tokens:
                self.probabilities.prove()
            else:
                self.probabilities.refuse()
        if self.keeping in used and not self.keeping.is_proven:
            await self._try_keeping(question, self._used(question), completion)
        return completion

    async def _try_keeping(
        self, question: Question, used: Sequence[Feature], shown: Completion
    ) -> None:
        """Ask a question again with its images only named.

        A server that ignores parts without an image would answer without it: the model must have
        read as many tokens as before.
        """
        named = None
        if shown.prompt_tokens is not None:
            try:
                named = await self._ask_named(question, used)
            except UnansweredError:
                return  # still unknown
        if named is not None and named.prompt_tokens == shown.prompt_tokens:
            self.keeping.prove()
        else:
            self.keeping.refuse()

    async def _ask_as_proven(self, question: Question) -> Completion:
        """Ask with all features that are not refused; the images are only named if possible.

        Of the questions that find the images missing, one sends them while the others wait, and
        then name them again. That may meet another copy of the model, without the images.
        """
        used = self._used(question)
        if self.keeping not in used or not self._are_kept(question):
            return await self._show(question, used)
        pictures = question.pictures
        for _ in range(NAMED_TRIES):
            times_sent = pictures.times_sent
            if completion := await self._ask_named(question, used):
                return completion
            async with pictures.sending:
                if pictures.times_sent == times_sent:
                    return await self._show(question, used)
        return await self._show(question, used)

    def _are_kept(self, question: Question) -> bool:
        return all(image in self._kept for image in question.pictures.images)

    async def _ask_named(self, question: Question, used: Sequence[Feature]) -> Completion | None:
        """Ask with images only named. Return None if the server refuses that."""
        pictures = question.pictures
        try:
            completion = await self._send(question, pictures.named(), used, is_trial=True)
        except UnansweredError as error:
            if not error.is_refusal:
                raise
            return None
        pictures.times_named += 1
        return completion

    async def _show(self, question: Question, used: Sequence[Feature]) -> Completion:
        """Ask with images."""
        pictures = question.pictures
        if self.keeping not in used:
            return await self._send(question, pictures.plain(), used)
        completion = await self._send(question, pictures.keyed(), used)
        pictures.times_sent += 1
        self._kept.add(pictures.images)
        if pictures.is_futile:
            self.keeping.refuse()
        return completion

    async def _send(
        self,
        question: Question,
        images: Sequence[dict[str, Any]],
        used: Sequence[Feature],
        is_trial: bool = False,
    ) -> Completion:
        """Send one request."""
        if not self._model:
            self._model = await self._only_model()
        content = [*images, {"type": "text", "text": question.text}]
        request: dict[str, Any] = {
            "model": self._model,
            "messages": [{"role": "user", "content": content}],
            "temperature": 0,
            "max_tokens": self._max_tokens,
        }
        if self.forms in used:
            request["structured_outputs"] = {"regex": question.regex}
        if self.probabilities in used:
            request |= {"logprobs": True, "top_logprobs": ALTERNATIVES}
        return await self._client.complete(request, is_trial)


def answer_regex(template: str) -> str:
    """Return the regular expression of an answer template; numbers as `numbers.allowed_symbols`.

    It uses only syntax that all regular expression engines share, since servers differ. Without
    back references, several numbers of one answer may differ.
    """
    parts = (_REGEX_SPECIAL.sub(r"\\\g<0>", part) for part in template.split("{value}"))
    return NUMBER.join(parts).replace("\n", r"\n")
