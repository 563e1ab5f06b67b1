# SPDX-License-Identifier: Apache-2.0
"""The remote engine: vLLM, or any other server with OpenAI's chat completions.

Each question is a separate request: the images first, then the text, so that a server with a
prefix cache computes the images once. The first question goes alone: it brings the images, fills
that cache and shows whether the server is there. The others follow concurrently, and only name
the images if the server keeps them (see `pictures`).
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import CancelledError
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from vlm3_ros.engines.base import Answer, EngineError, Profile
from vlm3_ros.engines.forms import FormLearner
from vlm3_ros.engines.images import (
    QWEN3_VL_LIMITS,
    EncodedImage,
    check_images,
    encode_image,
    load_limits,
)
from vlm3_ros.engines.profiles import choose_profile, conventions
from vlm3_ros.engines.remote.background import BackgroundLoop
from vlm3_ros.engines.remote.client import ChatClient, UnansweredError
from vlm3_ros.engines.remote.pictures import Pictures
from vlm3_ros.engines.remote.probabilities import Token, number_histogram
from vlm3_ros.engines.remote.questions import Question, QuestionSender, answer_regex
from vlm3_ros.engines.settings import EngineSettings
from vlm3_ros.geometry.camera import ImageLimits

_CONTROL = re.compile(r"<\|.*?\|>")
"""Control tokens of Qwen's chats, such as <|im_end|>."""


def load_remote_engine(
    settings: EngineSettings, progress: Callable[[str], None] = lambda message: None
) -> RemoteEngine:
    """Make an engine for a server.

    The server need not run yet if the settings name the model or the profile.

    Args:
        settings: which server and how.
        progress: receives one line about the conventions of the server's model.

    Raises:
        EngineError: if the URL, the API key or the profile cannot be used, or nothing says what
            the server's model was trained for.
    """
    model = settings.model
    if not model and not settings.profile:
        model = _served_model(settings)
    profile, reason = choose_profile(settings.profile, model)
    engine = RemoteEngine(settings, profile, _limits(settings.profile or model))
    if model != settings.model:
        reason += f": {model}"
    progress(f"{engine.name}: {conventions(profile)} ({reason})")
    return engine


def _served_model(settings: EngineSettings) -> str:
    """Ask a server for the name of its only model, which says what it was trained for."""
    client = ChatClient(settings)
    loop = BackgroundLoop(f"the model's name from {client.url}")
    try:
        return loop.run(client.only_model())
    except UnansweredError as error:
        raise EngineError(
            f"{error} (neither model nor profile is set, so only the server can say what its model "
            "was trained for: start it first, or set one of them)"
        ) from error
    finally:
        loop.close(client.close())


def _limits(place: str) -> ImageLimits:
    """Return the image sizes that the processor in a folder takes, or Qwen3-VL's."""
    folder = Path(place).expanduser()
    return load_limits(folder) if folder.is_dir() else QWEN3_VL_LIMITS


class RemoteEngine:
    """Asks a server; see `vlm3_ros.engines.base.Engine`."""

    def __init__(self, settings: EngineSettings, profile: Profile, limits: ImageLimits) -> None:
        """Read the API key from the environment; connect to nothing yet.

        Args:
            settings: which server and how.
            profile: what the server's model was trained for.
            limits: image sizes that the server does not resize.

        Raises:
            EngineError: if the URL or the API key cannot be used.
        """
        self._client = ChatClient(settings)
        self._url = self._client.url
        self.name = f"{settings.model or 'the model'} at {self._url}"
        self.profile = profile
        self.limits = limits
        self._settings = settings
        max_tokens = settings.max_new_tokens or profile.max_new_tokens
        self._sender = QuestionSender(self._client, settings, max_tokens, self._only_model)
        self._learners: dict[str, FormLearner] = {}
        self._lacks_reasoning = False
        self._loop = BackgroundLoop(f"requests to {self._url}")

    @property
    def warning(self) -> str | None:
        """Why the server could not be reached when it was last asked; None if it could."""
        return self._client.circuit.reason

    def ask(
        self,
        images: Sequence[NDArray[np.uint8]],
        questions: Sequence[str],
        answer_template: str | None = None,
    ) -> list[Answer]:
        """Ask the server, within `frame_timeout`; see `Engine.ask`."""
        if not questions:
            return []
        check_images(images, self.limits)
        for question in questions:
            if control := _CONTROL.search(question):
                raise EngineError(
                    f"a question holds {control.group()!r}, which the model reads as control"
                )
        encoding, quality = self._settings.image_encoding, self._settings.jpeg_quality
        encoded = [encode_image(image, encoding, quality) for image in images]
        try:
            return self._loop.run(self._ask(encoded, questions, answer_template))
        except CancelledError:
            raise EngineError(f"{self.name} is closed") from None

    def memory_bytes(self) -> int | None:
        """Return None: the server's memory is unknown."""
        return None

    def close(self) -> None:
        """Cancel running requests and close the connections."""
        self._loop.close(self._client.close())

    async def _ask(
        self, images: Sequence[EncodedImage], questions: Sequence[str], template: str | None
    ) -> list[Answer]:
        if fault := self._client.circuit.fault:
            raise EngineError(fault)
        if self._client.circuit.reason:
            self._learners.clear()  # the server may come back with another model
            self._sender.forget()
        learner = self._learner(template)
        self._sender.start_call(needs_numbers=learner is not None)
        needs_probabilities = learner is not None and self._settings.token_probabilities
        pictures = Pictures(images)
        end = asyncio.get_running_loop().time() + self._settings.frame_timeout
        tokens: dict[int, tuple[Token, ...]] = {}

        async def answer(index: int, regex: str | None) -> Answer:
            question = Question(pictures, questions[index], regex, needs_probabilities)
            seconds = end - asyncio.get_running_loop().time()
            try:
                completion = await asyncio.wait_for(self._sender.ask(question), seconds)
            except asyncio.TimeoutError:
                limit = f"frame_timeout ({self._settings.frame_timeout:g} s)"
                return Answer("", fault=f"{self._url} did not answer all questions within {limit}")
            except UnansweredError as error:
                self._sender.forget_model()
                return Answer("", fault=str(error))
            self._lacks_reasoning = completion.lacks_reasoning
            tokens[index] = completion.tokens
            return Answer(completion.text, is_cut=completion.is_cut)

        answers: dict[int, Answer] = {}

        async def answer_all(indices: Sequence[int], form: str | None) -> list[Answer]:
            regex = answer_regex(form) if form else None
            if not answers:
                first = await answer(indices[0], regex)
                if first.fault:
                    self._client.circuit.open(first.fault)
                    raise EngineError(first.fault)
                self._client.circuit.close()
                answers[indices[0]] = first
            others = [i for i in indices if i not in answers]
            new = await asyncio.gather(*(answer(i, regex) for i in others))
            answers.update(zip(others, new, strict=True))
            return [answers[i] for i in indices]

        form = None
        if learner is not None:
            for indices in learner.questions(len(questions)):
                learner.observe(await answer_all(indices, None))
            form = learner.form
        await answer_all(range(len(questions)), form)
        if form is not None and needs_probabilities:
            self._add_distributions(answers, form, tokens)
        return [answers[i] for i in range(len(questions))]

    def _add_distributions(
        self, answers: dict[int, Answer], form: str, tokens: Mapping[int, Sequence[Token]]
    ) -> None:
        """Give answers of a form the median and spread of their numbers."""
        histograms = {i: number_histogram(form, sequence) for i, sequence in tokens.items()}
        for i, histogram in histograms.items():
            if histogram is not None:
                std = float(histogram.std) * self.profile.std_scale
                answers[i] = replace(answers[i], value=float(histogram.median), std=std)
        probabilities = self._sender.probabilities
        if probabilities.is_proven and histograms and not any(histograms.values()):
            probabilities.refuse()

    def _learner(self, template: str | None) -> FormLearner | None:
        """Return the learner of a template's form; None if answers are free in this call."""
        if template is None or not self._settings.force_answers:
            return None
        if template not in self._learners:
            self._learners[template] = FormLearner(
                self.name, template, lambda form: self._refusal(form, template)
            )
        return self._learners[template]

    def _refusal(self, form: str, template: str) -> str | None:
        """Return why answers are not forced into a form; None if they are."""
        if self._lacks_reasoning and form != template:
            return "the server removes the reasoning, so the whole form is unknown"
        return None

    async def _only_model(self) -> str:
        """Return the name of the server's only model.

        Raises:
            UnansweredError: if there is no answer, or the model may have been trained for something
                else than the one that the profile was chosen for.
        """
        name = await self._client.only_model()
        if self._settings.profile:
            return name
        try:
            profile, _ = choose_profile("", name)
        except EngineError as error:
            raise UnansweredError(f"{self._url}: {error}") from error
        if profile != self.profile:
            raise UnansweredError(
                f"{self._url} has another model now, {name}, which was trained for something else: "
                "restart with it, or configure the node again"
            )
        return name
