# SPDX-License-Identifier: Apache-2.0
"""The remote engine: vLLM, or any other server with OpenAI's chat completions.

Each question is a separate request: the images first, then the text, so that a server with a
prefix cache computes the images once. The first question goes alone: it brings the images, fills
that cache and shows whether the server is there. The others follow concurrently, and only name
the images if the server keeps them (see `pictures`).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import CancelledError
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from vlm3_ros.engines.base import Answer, EngineError, Profile, UnavailableError
from vlm3_ros.engines.forms import FormLearner, follows
from vlm3_ros.engines.images import (
    QWEN3_VL_LIMITS,
    EncodedImage,
    check_images,
    encode_image,
    load_limits,
)
from vlm3_ros.engines.profiles import choose_profile, conventions
from vlm3_ros.engines.remote.background import BackgroundLoop
from vlm3_ros.engines.remote.call import Call
from vlm3_ros.engines.remote.client import ChatClient, UnansweredError
from vlm3_ros.engines.remote.pictures import Pictures
from vlm3_ros.engines.remote.probabilities import Token, number_histogram
from vlm3_ros.engines.remote.questions import QuestionSender
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


def _check_question(question: str) -> None:
    """Raise an EngineError if a question holds what cannot be asked."""
    if control := _CONTROL.search(question):
        raise EngineError(f"a question holds {control.group()!r}, which the model reads as control")
    try:
        question.encode()
    except UnicodeEncodeError as error:
        raise EngineError(
            f"the question {question!r} cannot be sent: it is no valid Unicode ({error.reason})"
        ) from None


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
            _check_question(question)
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
        self._check_circuit()
        learner = self._learner(template)
        self._sender.start_call(needs_numbers=learner is not None)
        call = Call(
            self._client,
            self._sender,
            Pictures(images, sum(image.area for image in images) // self.limits.multiple**2),
            questions,
            needs_probabilities=learner is not None and self._settings.token_probabilities,
            seconds=self._settings.frame_timeout,
        )
        everything = range(len(questions))
        if learner is None:
            return await call.answers(everything, None)
        for indices in learner.questions(len(questions)):
            answers = await call.answers(indices, None)
            self._lacks_reasoning = call.lacks_reasoning
            learner.observe(answers)
        form = learner.form
        answers = await call.answers(everything, form)
        if form is None or not self._settings.token_probabilities:
            return answers
        return self._with_distributions(answers, form, call.tokens)

    def _check_circuit(self) -> None:
        """Forget what is known about the server if it did not answer the last call.

        Raises:
            UnavailableError: if that was a moment ago.
        """
        if fault := self._client.circuit.fault:
            raise UnavailableError(fault)
        if self._client.circuit.reason:
            self._learners.clear()  # the server may come back with another model
            self._sender.forget()

    def _with_distributions(
        self, answers: Sequence[Answer], form: str, tokens: Mapping[int, Sequence[Token]]
    ) -> list[Answer]:
        """Give answers of a form the median and spread of their numbers, where known.

        If answers of the form have none, the server is not asked for probabilities for a while.
        """
        result = list(answers)
        has_form = has_distribution = False
        for i, of_answer in tokens.items():
            histogram = number_histogram(form, of_answer)
            has_form = has_form or follows(form, answers[i])
            if histogram is not None:
                has_distribution = True
                std = float(histogram.std) * self.profile.std_scale
                result[i] = replace(answers[i], value=float(histogram.median), std=std)
        if has_form and not has_distribution and self._sender.probabilities.is_proven:
            self._sender.probabilities.refuse()
        return result

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
