# SPDX-License-Identifier: Apache-2.0
"""Questions to one server, asked in the cheapest way that it takes.

Servers differ in three features: whether they keep images between questions, hold answers to a
regular expression, and report the probabilities of tokens. A feature that is unknown is tried by
one question while the others wait; what the server refuses is left out, and tried again later.
"""

from __future__ import annotations

import asyncio
import logging
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

logger = logging.getLogger(__name__)

NAMED_TRIES = 3
"""Times that a question names its images, while others send them, before it sends them itself."""

_TRIAL_SECONDS = 3.0
"""Time limit for finding out whether a server keeps images, beside twice that of a question."""

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
        self._trial = asyncio.Lock()
        self._trials_done = 0
        self._kept = KeptImages()
        self._has_warned = False

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
            if self._is_all_proven(question):
                used, trials_done = self._used(question), self._trials_done
                try:
                    return await self._ask_as_proven(question)
                except UnansweredError as error:
                    if not (error.is_refusal and used):
                        raise
                if self._trials_done == trials_done:  # no other question has found out meanwhile
                    for feature in used:
                        feature.doubt()
            async with self._trial:
                if not self._is_all_proven(question):
                    completion = await self._try(question)
                    self._trials_done += 1
                    return completion
            return await self._ask_as_proven(question)

    def _used(self, question: Question) -> list[Feature]:
        """Return the features that a question uses, without refused ones."""
        used = [self.keeping]
        if question.needs_probabilities:
            used.append(self.probabilities)
        if question.regex is not None:
            used.append(self.forms)
        return [feature for feature in used if not feature.is_refused]

    def _is_all_proven(self, question: Question) -> bool:
        return all(feature.is_proven for feature in self._used(question))

    async def _try(self, question: Question) -> Completion:
        """Ask with features that are unknown; leave out one after the other that is refused."""
        used = self._used(question)
        start = asyncio.get_running_loop().time()
        completion = None
        if self.keeping.is_proven and self._has_kept(question):
            completion = await self._ask_named(question, used)
        leave_out: Callable[[], None] | None = None
        while completion is None:
            try:
                completion = await self._show(question, used, is_trial=bool(used))
            except UnansweredError as error:
                if not (error.is_refusal and used):
                    raise
                feature = used.pop()
                leave_out = feature.postpone if error.is_temporary else feature.refuse
        if leave_out is not None:  # only the last one: with it the question was still refused
            leave_out()
        if self.forms in used:
            self.forms.prove()
        if self.probabilities in used:
            if completion.tokens:
                self.probabilities.prove()
            else:
                self.probabilities.refuse()
        if self.keeping in used and not self.keeping.is_proven:
            seconds = asyncio.get_running_loop().time() - start
            await self._try_keeping(question, completion, seconds)
        return completion

    async def _try_keeping(self, question: Question, shown: Completion, seconds: float) -> None:
        """Find out whether the server keeps images: ask again with the images only named.

        Args:
            question: has just been answered, with its images.
            shown: the answer.
            seconds: how long it took.
        """
        try:
            limit = _TRIAL_SECONDS + 2 * seconds
            is_kept = await asyncio.wait_for(self._is_seen_again(question, shown), limit)
        except UnansweredError as error:
            is_certain = error.is_refusal and not error.is_temporary
            self.keeping.refuse() if is_certain else self.keeping.postpone()
        except asyncio.TimeoutError:
            self.keeping.postpone()
        except asyncio.CancelledError:  # for this the call's time was too short
            self.keeping.postpone()
            raise
        else:
            self.keeping.prove() if is_kept else self.keeping.refuse()

    async def _is_seen_again(self, question: Question, shown: Completion) -> bool:
        """Return whether the model sees images that are only named.

        A server that ignores parts without an image would answer blindly. So the model must have
        read as many tokens as with the images, and more than without any.

        Raises:
            UnansweredError: if the server refuses named images, or does not answer.
        """
        if shown.prompt_tokens is None:
            return False
        blind = await self._send(question, [], [], is_probe=True, max_tokens=1)
        image_tokens = shown.prompt_tokens - (blind.prompt_tokens or shown.prompt_tokens)
        if image_tokens <= 0:
            return False
        if image_tokens < question.pictures.tokens and not self._has_warned:
            self._has_warned = True
            logger.warning(
                "%s reads images as %d tokens instead of %d: if it makes them smaller, all "
                "distances are wrong (see --mm-processor-kwargs in docs/serving.md)",
                self._client.url,
                image_tokens,
                question.pictures.tokens,
            )
        parts = question.pictures.named(self._kept)
        named = await self._send(
            question, parts, self._used(question), is_trial=True, is_probe=True
        )
        return named.prompt_tokens == shown.prompt_tokens

    async def _ask_as_proven(self, question: Question) -> Completion:
        """Ask with all features that are not refused; the images are only named if possible.

        Of the questions that find the images missing, one sends them while the others wait, and
        then name them again. That may meet another copy of the model, without the images.
        """
        pictures = question.pictures
        for _ in range(NAMED_TRIES):
            used = self._used(question)
            if self.keeping not in used or not self._has_kept(question):
                break
            times_sent = pictures.times_sent
            if completion := await self._ask_named(question, used):
                return completion
            async with pictures.sending:
                if pictures.times_sent == times_sent:
                    return await self._show(question, self._used(question))
        return await self._show(question, self._used(question))

    def _has_kept(self, question: Question) -> bool:
        return any(image in self._kept for image in question.pictures.images)

    async def _ask_named(self, question: Question, used: Sequence[Feature]) -> Completion | None:
        """Ask with the images that the server keeps only named. Return None if it refuses that."""
        pictures = question.pictures
        parts = pictures.named(self._kept)
        try:
            completion = await self._send(question, parts, used, is_trial=True)
        except UnansweredError as error:
            if not error.is_refusal:
                raise
            return None
        if (completion.prompt_tokens or 0) < pictures.tokens:
            # The answer is blind: another server, which ignores parts without an image.
            self.keeping.refuse()
            return None
        pictures.times_named += 1
        self._kept.add(pictures.images)
        return completion

    async def _show(
        self, question: Question, used: Sequence[Feature], is_trial: bool = False
    ) -> Completion:
        """Ask with images."""
        pictures = question.pictures
        if self.keeping not in used:
            return await self._send(question, pictures.plain(), used, is_trial=is_trial)
        completion = await self._send(question, pictures.keyed(), used, is_trial=is_trial)
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
        *,
        is_trial: bool = False,
        is_probe: bool = False,
        max_tokens: int | None = None,
    ) -> Completion:
        """Send one request; see `ChatClient.complete`."""
        if not self._model:
            self._model = await self._only_model()
        content = [*images, {"type": "text", "text": question.text}]
        request: dict[str, Any] = {
            "model": self._model,
            "messages": [{"role": "user", "content": content}],
            "temperature": 0,
            "max_tokens": max_tokens or self._max_tokens,
        }
        if self.forms in used:
            request["structured_outputs"] = {"regex": question.regex}
        if self.probabilities in used:
            request |= {"logprobs": True, "top_logprobs": ALTERNATIVES}
        return await self._client.complete(request, is_trial=is_trial, is_probe=is_probe)


def answer_regex(template: str) -> str:
    """Return the regular expression of an answer template; numbers as `numbers.allowed_symbols`.

    It uses only syntax that all regular expression engines share, since servers differ. Without
    back references, several numbers of one answer may differ.
    """
    parts = (_REGEX_SPECIAL.sub(r"\\\g<0>", part) for part in template.split("{value}"))
    return NUMBER.join(parts).replace("\n", r"\n")
