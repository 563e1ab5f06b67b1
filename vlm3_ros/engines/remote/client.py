# SPDX-License-Identifier: Apache-2.0
"""Requests to a server with OpenAI's chat completions: time limits, retries, a circuit breaker."""

from __future__ import annotations

import asyncio
import os
import random
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import httpx

from vlm3_ros.engines.base import EngineError
from vlm3_ros.engines.remote.probabilities import Token, parse_tokens
from vlm3_ros.engines.settings import EngineSettings

RETRIES = 3
"""Retries of a request after temporary failures: lost connections, status 408, 429 and 5xx."""

BACKOFF = 0.2
"""Seconds before the first retry; doubled for each further one, and varied by up to half."""

PAUSE = 1.0
"""Seconds between attempts to reach a server that is unreachable."""

CONNECT_TIMEOUT = 3.0
"""Seconds to connect; `request_timeout` limits the request as a whole."""

_REASONING = ("reasoning", "reasoning_content")
"""Where servers put reasoning that they take out of the text."""

_SHOWN_CHARACTERS = 200


class UnansweredError(Exception):
    """A request without an answer; the text names the server and what is wrong.

    Attributes:
        is_temporary: whether the same request may succeed later.
        is_unreachable: whether the server could not be reached.
        is_refusal: whether the server rejected the content of the request. If it is temporary as
            well, it was an internal error, and the content may not be the reason.
    """

    def __init__(
        self,
        text: str,
        *,
        is_temporary: bool = False,
        is_unreachable: bool = False,
        is_refusal: bool = False,
    ) -> None:
        super().__init__(text)
        self.is_temporary = is_temporary
        self.is_unreachable = is_unreachable
        self.is_refusal = is_refusal


@dataclass(frozen=True)
class Completion:
    """A server's completion of a chat.

    Attributes:
        text: the answer.
        is_cut: whether it ends because it reached the maximum number of tokens.
        lacks_reasoning: whether the server took the model's reasoning out of the text.
        prompt_tokens: how many tokens the model read, images included; None if unknown.
        tokens: of the answer, with their probabilities; empty if unknown.
    """

    text: str
    is_cut: bool
    lacks_reasoning: bool
    prompt_tokens: int | None = None
    tokens: tuple[Token, ...] = ()


class Circuit:
    """Circuit breaker: open while the server is known to be unreachable.

    After a pause one attempt may pass; it closes the circuit or opens it again. For use in one
    thread; other threads may read `reason`.
    """

    def __init__(self, pause: float, clock: Callable[[], float] = time.monotonic) -> None:
        """Start closed.

        Args:
            pause: seconds between attempts while the circuit is open.
            clock: returns seconds.
        """
        self._pause = pause
        self._clock = clock
        self._reason: str | None = None
        self._next_attempt = 0.0

    @property
    def reason(self) -> str | None:
        """Why the circuit is open; None if the last attempt reached the server."""
        return self._reason

    @property
    def fault(self) -> str | None:
        """Why not to try now; None if an attempt may pass."""
        return self._reason if self._clock() < self._next_attempt else None

    def open(self, reason: str) -> None:
        """Block attempts for the length of the pause."""
        self._reason = reason
        self._next_attempt = self._clock() + self._pause

    def close(self) -> None:
        """Let all attempts pass."""
        self._reason = None
        self._next_attempt = 0.0


class ChatClient:
    """Sends requests to one server; for use in one event loop."""

    def __init__(self, settings: EngineSettings) -> None:
        """Read the API key from the environment; connect to nothing yet.

        Raises:
            EngineError: if the URL or the key cannot be used.
        """
        self.url = _checked_url(settings.base_url)
        self.circuit = Circuit(PAUSE)
        self.completions = 0
        """Answers so far."""
        self._settings = settings
        self._http = httpx.AsyncClient(
            headers=_authorization(settings.api_key_variable),
            timeout=httpx.Timeout(None, connect=CONNECT_TIMEOUT),
            limits=httpx.Limits(
                max_connections=None, max_keepalive_connections=settings.concurrency
            ),
        )

    async def complete(
        self, request: dict[str, Any], *, is_trial: bool = False, is_probe: bool = False
    ) -> Completion:
        """Return a chat completion.

        Args:
            request: body of the request.
            is_trial: whether the server may be unable to process the request. Then an internal
                error (status 500, 501) is a refusal of its content, and not tried again.
            is_probe: whether the request only tests the server. Then it is sent once, and its
                failure does not open the circuit.

        Raises:
            UnansweredError: if there is no answer.
        """
        completion = await self._retried("POST", "chat/completions", request, is_trial, is_probe)
        try:
            choice = completion["choices"][0]
            message = choice["message"]
            content = message["content"]
            if not isinstance(content, str | None):
                raise TypeError
            answer = Completion(
                content or "",  # null if a server counts all of it as reasoning
                is_cut=choice.get("finish_reason") == "length",
                lacks_reasoning=any(message.get(name) for name in _REASONING),
                prompt_tokens=_prompt_tokens(completion),
                tokens=parse_tokens(choice.get("logprobs")),
            )
        except (AttributeError, LookupError, TypeError):
            raise self._unexpected(completion) from None
        self.completions += 1
        return answer

    async def only_model(self) -> str:
        """Return the name of the server's only model.

        Raises:
            UnansweredError: if it has none or several, or there is no answer.
        """
        listing = await self._retried("GET", "models", None)
        try:
            names = [str(model["id"]) for model in listing["data"]]
        except (LookupError, TypeError):
            raise self._unexpected(listing) from None
        if len(names) != 1:
            raise UnansweredError(
                f"{self.url} has the models {', '.join(names) or '(none)'}: set model to the "
                "name of the one to ask"
            )
        return names[0]

    async def close(self) -> None:
        """Close all connections."""
        await self._http.aclose()

    async def _retried(
        self,
        method: str,
        path: str,
        body: dict[str, Any] | None,
        is_trial: bool = False,
        is_probe: bool = False,
    ) -> Any:
        """Return the JSON of a response; retry after temporary failures."""
        retries = 0 if self.circuit.reason or is_probe else RETRIES
        for retry in range(retries + 1):
            if fault := self.circuit.fault:  # opened by another request
                raise UnansweredError(fault)
            try:
                exchange = self._exchange(method, path, body, is_trial)
                return await asyncio.wait_for(exchange, self._settings.request_timeout)
            except asyncio.TimeoutError:
                limit = f"request_timeout ({self._settings.request_timeout:g} s)"
                raise UnansweredError(f"{self.url} did not answer within {limit}") from None
            except UnansweredError as error:
                if not error.is_temporary or error.is_refusal or retry == retries:
                    if error.is_unreachable and not is_probe:
                        self.circuit.open(str(error))
                    raise
            await asyncio.sleep(BACKOFF * 2**retry * random.uniform(0.5, 1.5))
        raise AssertionError("the last try returns or raises")

    async def _exchange(
        self, method: str, path: str, body: dict[str, Any] | None, is_trial: bool
    ) -> Any:
        """Return the JSON of one response."""
        try:
            response = await self._http.request(method, f"{self.url}/{path}", json=body)
        except httpx.TransportError as error:
            reason = str(error) or type(error).__name__
            raise UnansweredError(
                f"{self.url} cannot be reached ({reason}): is the server running?",
                is_temporary=True,
                is_unreachable=True,
            ) from error
        except httpx.HTTPError as error:
            raise self._unexpected(error) from error
        if not response.is_success:
            raise self._refusal(response, is_trial)
        try:
            return response.json()
        except (ValueError, RecursionError):
            raise self._unexpected(_text(response)) from None

    def _refusal(self, response: httpx.Response, is_trial: bool) -> UnansweredError:
        status = response.status_code
        text = f"{self.url} answers {status} {response.reason_phrase}"
        if reason := " ".join(_text(response).split())[:_SHOWN_CHARACTERS]:
            text += f": {reason}"
        if status in (401, 403):
            variable = self._settings.api_key_variable
            text += f" (its key belongs in the environment variable {variable})"
        if status in (404, 405):
            text += " (check base_url, which ends in /v1, and model)"
        return UnansweredError(
            text,
            is_temporary=status in (408, 429) or status >= 500,
            is_refusal=status in (400, 422) or (is_trial and status in (500, 501)),
        )

    def _unexpected(self, content: object) -> UnansweredError:
        shown = str(content)[:_SHOWN_CHARACTERS]
        return UnansweredError(
            f"{self.url} does not answer as OpenAI's servers do: {shown!r} (check base_url)"
        )


def _prompt_tokens(completion: dict[str, Any]) -> int | None:
    usage = completion.get("usage")
    count = usage.get("prompt_tokens") if isinstance(usage, dict) else None
    return count if isinstance(count, int) else None


def _text(response: httpx.Response) -> str:
    # response.text trusts any charset that the server names, and fails on unknown ones.
    return response.content.decode(errors="replace")


def _checked_url(url: str) -> str:
    try:
        parsed = httpx.URL(url)
    except httpx.InvalidURL as error:
        raise EngineError(f"base_url {url!r} is not a URL: {error}") from None
    if parsed.userinfo:
        raise EngineError(
            "base_url must not hold a password: servers take an API key, from the environment"
        )
    if parsed.scheme not in ("http", "https") or not parsed.host:
        raise EngineError(f"base_url {url!r} must be like http://host:8000/v1")
    return url.rstrip("/")


def _authorization(variable: str) -> dict[str, str]:
    """Return the header with the API key of an environment variable; empty if it is not set."""
    key = os.environ.get(variable, "").strip() if variable else ""
    if not key:
        return {}
    if not (key.isascii() and key.isprintable()) or " " in key:
        raise EngineError(f"the environment variable {variable} does not hold an API key")
    return {"Authorization": f"Bearer {key}"}
