# SPDX-License-Identifier: Apache-2.0
"""Answers on file: any engine recorded, and replayed without a model.

A recording is a text file of JSON lines. The first tells of the model: what it was trained for,
and the image sizes that it takes. Each further one is an answer, with its question, the digests
of the images (`image_digest`) and the answer template. Of answers to the same question the last
one counts.
"""

from __future__ import annotations

import contextlib
import json
import logging
import math
import threading
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from vlm3_ros.engines.base import (
    Answer,
    Engine,
    EngineError,
    Profile,
    parse_profile,
    profile_json,
)
from vlm3_ros.engines.images import check_images, image_digest
from vlm3_ros.geometry.camera import ImageLimits

logger = logging.getLogger(__name__)

VERSION = 1

Key = tuple[tuple[str, ...], str, "str | None"]
"""Digests of the images, question, answer template."""


class RecordedEngine:
    """See `vlm3_ros.engines.base.Engine`: it answers what is in a recording."""

    warning: str | None = None

    def __init__(self, path: Path | str) -> None:
        """Read a recording.

        Raises:
            EngineError: naming the file and what is wrong with it.
        """
        self._path = Path(path).expanduser()
        if not str(path):
            raise EngineError("engine recorded needs the file of a recording, as recording")
        try:
            lines = self._path.read_bytes().splitlines(keepends=True)
        except OSError as error:
            raise EngineError(f"recording {self._path}: {error.strerror}") from error
        if lines and not lines[-1].endswith(b"\n"):
            lines.pop()
            self.warning = f"{self._path} ends in the middle of a line, which is left out"
            logger.warning(self.warning)
        self._answers: dict[Key, Answer] = {}
        number = 1
        try:
            header = json.loads(lines[0])
            if header["vlm3_recording"] != VERSION:
                raise ValueError(f"it is of version {header['vlm3_recording']}, not {VERSION}")
            self.name = f"{header['model']}, recorded in {self._path.name}"
            self.profile: Profile = parse_profile(header["profile"])
            self.limits = ImageLimits(**header["limits"])
            for line in lines[1:]:
                number += 1
                key, answer = _parse(json.loads(line))
                self._answers[key] = answer
        except (ValueError, LookupError, TypeError, RecursionError) as error:
            raise EngineError(
                f"{self._path} is no recording of answers: line {number}: {error}"
            ) from error

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
        digests = tuple(map(image_digest, images))
        fault = f"{self._path} has no answer to this question about this image"
        answers = [
            self._answers.get((digests, question, answer_template), Answer("", fault=fault))
            for question in questions
        ]
        if all(answer.fault for answer in answers):
            raise EngineError(
                f"{self._path} has none of the {len(questions)} answers about an image: replay "
                "the images, camera and grid that were recorded"
            )
        return answers

    def memory_bytes(self) -> int | None:
        """See `Engine.memory_bytes`."""
        return None

    def close(self) -> None:
        """See `Engine.close`."""


class RecordingEngine:
    """See `vlm3_ros.engines.base.Engine`: it passes questions on, and records the answers.

    Where the file cannot be written any more it says so and goes on answering.
    """

    def __init__(self, engine: Engine, path: Path | str) -> None:
        """Begin a recording, or go on with one of the same model.

        Raises:
            EngineError: when the file cannot be written, or is something else.
        """
        self._engine = engine
        self._path = Path(path).expanduser()
        self._lock = threading.Lock()
        self._fault: str | None = None
        self._file: IO[bytes] | None = None
        header = {
            "vlm3_recording": VERSION,
            "model": engine.name,
            "profile": profile_json(engine.profile),
            "limits": asdict(engine.limits),
        }
        try:
            self._file = _open(self._path, _line(header))
        except OSError as error:
            raise EngineError(f"record_to {self._path}: {error.strerror}") from error

    @property
    def name(self) -> str:
        """See `Engine.name`."""
        return self._engine.name

    @property
    def profile(self) -> Profile:
        """See `Engine.profile`."""
        return self._engine.profile

    @property
    def limits(self) -> ImageLimits:
        """See `Engine.limits`."""
        return self._engine.limits

    @property
    def warning(self) -> str | None:
        """See `Engine.warning`."""
        return "; ".join(filter(None, (self._engine.warning, self._fault))) or None

    def ask(
        self,
        images: Sequence[NDArray[np.uint8]],
        questions: Sequence[str],
        answer_template: str | None = None,
    ) -> list[Answer]:
        """See `Engine.ask`."""
        answers = self._engine.ask(images, questions, answer_template)
        if self._fault is None:
            digests = [image_digest(image) for image in images]
            self._write(
                b"".join(
                    _line(
                        {
                            "images": digests,
                            "question": question,
                            "template": answer_template,
                            "text": answer.text,
                            "value": answer.value,
                            "std": answer.std,
                        }
                    )
                    for question, answer in zip(questions, answers, strict=True)
                    if answer.fault is None
                )
            )
        return answers

    def memory_bytes(self) -> int | None:
        """See `Engine.memory_bytes`."""
        return self._engine.memory_bytes()

    def close(self) -> None:
        """See `Engine.close`."""
        self._engine.close()
        with self._lock:
            self._end()

    def _write(self, lines: bytes) -> None:
        with self._lock:
            if self._file is None:
                return
            try:
                self._file.write(lines)
                self._file.flush()
            except OSError as error:
                self._fault = f"recording to {self._path} has ended: {error.strerror}"
                logger.error(self._fault)
                self._end()

    def _end(self) -> None:
        if self._file is not None:
            with contextlib.suppress(OSError):  # of lines that could not be written before
                self._file.close()
            self._file = None


def _open(path: Path, header: bytes) -> IO[bytes]:
    """A recording, to write behind what is in it."""
    file = path.open("a+b")
    file.seek(0)
    first = file.readline(len(header) + 1)
    if first and first != header:
        file.close()
        raise EngineError(f"record_to {path} is not a recording of this model: name another file")
    if not first:
        file.write(header)
    else:
        # What a crash or a full disk left of a line would spoil the next one.
        file.seek(0)
        file.truncate(file.read().rfind(b"\n") + 1)
    return file


def _line(content: dict[str, Any]) -> bytes:
    return json.dumps(content, ensure_ascii=False).encode() + b"\n"


def _parse(entry: dict[str, Any]) -> tuple[Key, Answer]:
    key = tuple(entry["images"]), entry["question"], entry["template"]
    text, value, std = entry["text"], entry["value"], entry["std"]
    if not isinstance(text, str):
        raise TypeError(f"its text is {text!r}")
    for number in (value, std):
        if number is not None and not math.isfinite(number):
            raise ValueError(f"it holds the number {number}")
    return key, Answer(text, value, std)
