# SPDX-License-Identifier: Apache-2.0
"""One call of the remote engine: its questions, asked concurrently within a time limit."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence

from vlm3_ros.engines.base import Answer, EngineError, UnavailableError
from vlm3_ros.engines.remote.client import ChatClient, Completion, UnansweredError
from vlm3_ros.engines.remote.pictures import Pictures
from vlm3_ros.engines.remote.probabilities import Token
from vlm3_ros.engines.remote.questions import Question, QuestionSender, answer_regex


class Call:
    """The questions of a call, and the answers so far; for use in one event loop."""

    def __init__(
        self,
        client: ChatClient,
        sender: QuestionSender,
        pictures: Pictures,
        questions: Sequence[str],
        needs_probabilities: bool,
        seconds: float,
    ) -> None:
        """Start the clock; ask nothing yet.

        Args:
            client: of the server.
            sender: sends questions to the same server.
            pictures: the images.
            questions: about them.
            needs_probabilities: whether to ask for the probabilities of tokens.
            seconds: time limit for all answers, `frame_timeout`.
        """
        self.lacks_reasoning = False
        """Whether the server took the model's reasoning out of the last answer."""
        self._client = client
        self._sender = sender
        self._pictures = pictures
        self._questions = questions
        self._needs_probabilities = needs_probabilities
        self._seconds = seconds
        self._end = asyncio.get_running_loop().time() + seconds
        self._answers: dict[int, Answer] = {}
        self._tokens: dict[int, tuple[Token, ...]] = {}

    @property
    def tokens(self) -> Mapping[int, Sequence[Token]]:
        """Tokens of answers with their probabilities, by index; empty where unknown."""
        return self._tokens

    async def answers(self, indices: Sequence[int], form: str | None) -> list[Answer]:
        """Return the answers to some questions; ask those that were not asked before.

        The very first question goes alone.

        Args:
            indices: of the questions.
            form: to hold new answers to, with {value} in place of their number; None: free text.

        Raises:
            EngineError: if the very first question is not answered.
        """
        regex = None if form is None else answer_regex(form)
        if not self._answers:
            self._answers[indices[0]] = await self._first_answer(indices[0], regex)
        others = [i for i in indices if i not in self._answers]
        new = await asyncio.gather(*(self._answer(i, regex) for i in others))
        self._answers.update(zip(others, new, strict=True))
        return [self._answers[i] for i in indices]

    async def _first_answer(self, index: int, regex: str | None) -> Answer:
        """Ask the first question, which shows whether the server answers at all."""
        circuit, completions = self._client.circuit, self._client.completions
        try:
            completion = await self._completion(index, regex)
        except UnansweredError as error:
            # Not if the fault may be that of the question: other calls share the circuit.
            if not error.is_refusal and self._client.completions == completions:
                circuit.open(str(error))
            kind = UnavailableError if error.is_temporary else EngineError
            raise kind(str(error)) from error
        circuit.close()
        return self._noted(index, completion)

    async def _answer(self, index: int, regex: str | None) -> Answer:
        try:
            completion = await self._completion(index, regex)
        except UnansweredError as error:
            return Answer("", fault=str(error))
        return self._noted(index, completion)

    async def _completion(self, index: int, regex: str | None) -> Completion:
        """Ask one question.

        Raises:
            UnansweredError: if it is not answered in time.
        """
        text = self._questions[index]
        question = Question(self._pictures, text, regex, self._needs_probabilities)
        seconds = self._end - asyncio.get_running_loop().time()
        try:
            return await asyncio.wait_for(self._sender.ask(question), seconds)
        except asyncio.TimeoutError:
            limit = f"frame_timeout ({self._seconds:g} s)"
            raise UnansweredError(
                f"{self._client.url} did not answer all questions within {limit}"
            ) from None
        except UnansweredError:
            self._sender.forget_model()
            raise

    def _noted(self, index: int, completion: Completion) -> Answer:
        self.lacks_reasoning = completion.lacks_reasoning
        self._tokens[index] = completion.tokens
        return Answer(completion.text, is_cut=completion.is_cut)
