# SPDX-License-Identifier: Apache-2.0
"""The remote engine: vLLM, or any other server with OpenAI's chat completions.

Every question is a request of its own: the images first, then the text, so that a server with a
prefix cache computes the images once. The first question goes alone: it fills that cache, and
shows whether the server is there. The others follow, many at a time.
"""

from __future__ import annotations

import asyncio
import logging
import os
import random
import re
from collections.abc import Sequence
from concurrent.futures import CancelledError
from pathlib import Path
from typing import Any

import httpx
import numpy as np
from numpy.typing import NDArray

from vlm3_ros.engines.background import BackgroundLoop
from vlm3_ros.engines.base import Answer, EngineError, Profile, authors_profile, load_profile
from vlm3_ros.engines.circuit import Circuit
from vlm3_ros.engines.images import QWEN3_VL_LIMITS, check_images, load_limits, png_url
from vlm3_ros.engines.numbers import MAX_DECIMALS, MAX_INTEGER_DIGITS
from vlm3_ros.engines.settings import EngineSettings
from vlm3_ros.geometry.camera import ImageLimits

logger = logging.getLogger(__name__)

RETRIES = 3
"""Of a question, after failures that pass: lost connections and servers that are busy or ill."""

BACKOFF = 0.2
"""Seconds before the first retry, twice as many before each further one, give or take half."""

PAUSE = 1.0
"""Seconds between attempts to reach a server that is gone."""

CONNECT_TIMEOUT = 3.0
"""Seconds for a connection; what comes later may take `request_timeout`."""

_CONTROL = re.compile(r"<\|.*?\|>")
"""Tokens of Qwen's chats that are no text, such as <|im_end|>."""

_REGEX_SPECIAL = re.compile(r"[\\.^$*+?{}\[\]|()]")
_SHOWN_CHARACTERS = 200


def load_openai_engine(settings: EngineSettings) -> OpenAIEngine:
    """An engine for a server, which need not be there yet.

    Raises:
        EngineError: when the URL, the key or the profile cannot be used.
    """
    profile, limits = _profile(settings.profile)
    return OpenAIEngine(settings, profile, limits)


def _profile(path: str) -> tuple[Profile, ImageLimits]:
    """What a server's model was trained for, and the image sizes that it takes."""
    if not path:
        return authors_profile(), QWEN3_VL_LIMITS
    source = Path(path).expanduser()
    if not source.exists():
        raise EngineError(f"profile {source} does not exist: give a vlm3.json, or its folder")
    return load_profile(source), load_limits(source) if source.is_dir() else QWEN3_VL_LIMITS


class OpenAIEngine:
    """See `vlm3_ros.engines.base.Engine`."""

    def __init__(self, settings: EngineSettings, profile: Profile, limits: ImageLimits) -> None:
        """Connect to nothing yet.

        Args:
            settings: which server and how; the API key is read from the environment now.
            profile: what the server's model was trained for.
            limits: the image sizes that the server leaves as they are.

        Raises:
            EngineError: when the URL or the key cannot be used.
        """
        self._url = _checked_url(settings.base_url)
        self.name = f"{settings.model or 'the model'} at {self._url}"
        self.profile = profile
        self.limits = limits
        self._settings = settings
        self._model = settings.model
        self._circuit = Circuit(PAUSE)
        self._slots = asyncio.Semaphore(settings.concurrency)
        self._forms: dict[str, str | None] = {}
        self._takes_forms = True
        self._client = httpx.AsyncClient(
            headers=_authorization(settings.api_key_variable),
            timeout=httpx.Timeout(None, connect=CONNECT_TIMEOUT),  # the rest is measured as a whole
            limits=httpx.Limits(
                max_connections=None, max_keepalive_connections=settings.concurrency
            ),
        )
        self._loop = BackgroundLoop(f"requests to {self._url}")

    @property
    def warning(self) -> str | None:
        """See `Engine.warning`: that the server was gone when it was last asked."""
        return self._circuit.reason

    def ask(
        self,
        images: Sequence[NDArray[np.uint8]],
        questions: Sequence[str],
        answer_template: str | None = None,
    ) -> list[Answer]:
        """See `Engine.ask`."""
        if not questions:
            return []
        check_images(images, self.limits)
        for question in questions:
            if control := _CONTROL.search(question):
                raise EngineError(
                    f"a question holds {control.group()!r}, which the model reads as control"
                )
        pictures = [{"type": "image_url", "image_url": {"url": png_url(i)}} for i in images]
        try:
            return self._loop.run(self._ask(pictures, questions, answer_template))
        except CancelledError:
            raise EngineError(f"{self.name} is closed") from None

    def memory_bytes(self) -> int | None:
        """See `Engine.memory_bytes`: none of it is here."""
        return None

    def close(self) -> None:
        """See `Engine.close`; what is being asked is given up."""
        self._loop.close(self._client.aclose())

    async def _ask(
        self, pictures: list[dict[str, Any]], questions: Sequence[str], template: str | None
    ) -> list[Answer]:
        if fault := self._circuit.fault:
            raise EngineError(fault)
        end = asyncio.get_running_loop().time() + self._settings.frame_timeout

        async def answer(question: str, form: str | None) -> Answer:
            content = [*pictures, {"type": "text", "text": question}]
            seconds = end - asyncio.get_running_loop().time()
            try:
                return Answer(await asyncio.wait_for(self._text(content, form), seconds))
            except asyncio.TimeoutError:
                limit = f"frame_timeout ({self._settings.frame_timeout:g} s)"
                return Answer("", fault=f"{self._url} did not answer all questions within {limit}")
            except _Unanswered as error:
                return Answer("", fault=str(error))

        first = await answer(questions[0], self._forms.get(template or ""))
        if first.fault:
            self._circuit.open(first.fault)
            raise EngineError(first.fault)
        self._circuit.close()
        form = self._form(template, first.text)
        others = await asyncio.gather(*(answer(question, form) for question in questions[1:]))
        return [first, *others]

    def _form(self, template: str | None, text: str) -> str | None:
        """The regular expression to force answers into: a template's, if the model kept to it."""
        if template is None or not self._settings.force_answers:
            return None
        if template not in self._forms:
            form = answer_regex(template)
            self._forms[template] = form if re.fullmatch(form, text) else None
        return self._forms[template]

    async def _text(self, content: list[dict[str, Any]], form: str | None) -> str:
        """The model's answer to a chat.

        Raises:
            _Unanswered: when there is none.
        """
        async with self._slots:
            if not self._model:
                self._model = await self._only_model()
            request = {
                "model": self._model,
                "messages": [{"role": "user", "content": content}],
                "temperature": 0,
                "max_tokens": self._settings.max_new_tokens,
            }
            if form is None or not self._takes_forms:
                return await self._complete(request)
            try:
                return await self._complete({**request, "structured_outputs": {"regex": form}})
            except _Unanswered as error:
                if not error.is_refusal:
                    raise
            text = await self._complete(request)
            if self._takes_forms:
                logger.info("%s takes no regular expressions: answers are free", self._url)
                self._takes_forms = False
            return text

    async def _complete(self, request: dict[str, Any]) -> str:
        completion = await self._retried("POST", "chat/completions", request)
        try:
            content = completion["choices"][0]["message"]["content"]
        except (LookupError, TypeError):
            raise self._nonsense(completion) from None
        return str(content or "")  # null where a server takes all of it for thoughts

    async def _only_model(self) -> str:
        listing = await self._retried("GET", "models", None)
        try:
            names = [str(model["id"]) for model in listing["data"]]
        except (LookupError, TypeError):
            raise self._nonsense(listing) from None
        if len(names) != 1:
            raise _Unanswered(
                f"{self._url} has the models {', '.join(names) or '(none)'}: set model to the "
                "name of the one to ask"
            )
        return names[0]

    async def _retried(self, method: str, path: str, body: dict[str, Any] | None) -> Any:
        """The JSON of a response, which is asked for again after failures that pass."""
        retries = 0 if self._circuit.reason else RETRIES
        for retry in range(retries + 1):
            if fault := self._circuit.fault:  # another question found out
                raise _Unanswered(fault)
            try:
                exchange = self._exchange(method, path, body)
                return await asyncio.wait_for(exchange, self._settings.request_timeout)
            except asyncio.TimeoutError:
                limit = f"request_timeout ({self._settings.request_timeout:g} s)"
                raise _Unanswered(f"{self._url} did not answer within {limit}") from None
            except _Unanswered as error:
                if not error.passes or retry == retries:
                    if error.is_gone:
                        self._circuit.open(str(error))
                    raise
            await asyncio.sleep(BACKOFF * 2**retry * random.uniform(0.5, 1.5))
        raise AssertionError("the last try returns or raises")

    async def _exchange(self, method: str, path: str, body: dict[str, Any] | None) -> Any:
        """The JSON of one response."""
        try:
            response = await self._client.request(method, f"{self._url}/{path}", json=body)
        except httpx.TransportError as error:
            reason = str(error) or type(error).__name__
            raise _Unanswered(
                f"{self._url} cannot be reached ({reason}): is the server running?",
                passes=True,
                is_gone=True,
            ) from error
        except httpx.HTTPError as error:
            raise self._nonsense(error) from error
        if not response.is_success:
            raise self._refusal(response)
        try:
            return response.json()
        except (ValueError, RecursionError):
            raise self._nonsense(_text(response)) from None

    def _refusal(self, response: httpx.Response) -> _Unanswered:
        status = response.status_code
        text = f"{self._url} answers {status} {response.reason_phrase}"
        if said := " ".join(_text(response).split())[:_SHOWN_CHARACTERS]:
            text += f": {said}"
        if status in (401, 403):
            variable = self._settings.api_key_variable
            text += f" (its key belongs in the environment variable {variable})"
        return _Unanswered(
            text, passes=status == 429 or status >= 500, is_refusal=status in (400, 422)
        )

    def _nonsense(self, said: object) -> _Unanswered:
        shown = str(said)[:_SHOWN_CHARACTERS]
        return _Unanswered(f"{self._url} does not answer as OpenAI's servers do: {shown!r}")


def _text(response: httpx.Response) -> str:
    # response.text believes any charset that the server names, and fails on some.
    return response.content.decode(errors="replace")


class _Unanswered(Exception):
    """A question without an answer; the text names the server and what is wrong.

    Attributes:
        passes: whether the next try may well succeed.
        is_gone: whether the server could not be reached.
        is_refusal: whether the server found fault with the request.
    """

    def __init__(
        self, text: str, *, passes: bool = False, is_gone: bool = False, is_refusal: bool = False
    ) -> None:
        super().__init__(text)
        self.passes = passes
        self.is_gone = is_gone
        self.is_refusal = is_refusal


def answer_regex(template: str) -> str:
    """The texts that an answer template stands for, with numbers as `numbers.allowed_symbols`.

    Only what all regular expressions have in common is used, for servers bring their own kind.
    """
    opening, closing = (_REGEX_SPECIAL.sub(r"\\\g<0>", part) for part in template.split("{value}"))
    integer = f"(0|[1-9][0-9]{{0,{MAX_INTEGER_DIGITS - 1}}})"
    return rf"{opening}{integer}(\.[0-9]{{1,{MAX_DECIMALS}}})?{closing}"


def _checked_url(url: str) -> str:
    try:
        parsed = httpx.URL(url)
    except httpx.InvalidURL as error:
        raise EngineError(f"base_url {url!r} is no URL: {error}") from None
    if parsed.userinfo:
        raise EngineError(
            "base_url must hold no password: servers take a key, from the environment"
        )
    if parsed.scheme not in ("http", "https") or not parsed.host:
        raise EngineError(f"base_url {url!r} must be like http://host:8000/v1")
    return url.rstrip("/")


def _authorization(variable: str) -> dict[str, str]:
    """The header with the key of an environment variable, if that is set."""
    key = os.environ.get(variable, "").strip() if variable else ""
    if not key:
        return {}
    if not (key.isascii() and key.isprintable()) or " " in key:
        raise EngineError(f"the environment variable {variable} holds no API key")
    return {"Authorization": f"Bearer {key}"}
