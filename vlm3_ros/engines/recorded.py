# SPDX-License-Identifier: Apache-2.0
"""Record the answers of any engine to a file, and replay them without a model.

A recording is a text file of JSON lines. The first line describes the model: its name, its
profile and the image sizes that it accepts. Each further line is an answer, with its question,
the digests of the images (`image_digest`) and the answer template. If a question was answered
several times, the last answer counts.
"""

from __future__ import annotations

import contextlib
import glob
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
from typing_extensions import override

from vlm3_ros.engines.base import (
    Answer,
    Engine,
    EngineError,
    ForwardingEngine,
    Profile,
)
from vlm3_ros.engines.images import check_images, image_digest
from vlm3_ros.engines.profiles import named_profile, parse_profile, profile_json
from vlm3_ros.geometry.camera import ImageLimits

logger = logging.getLogger(__name__)

VERSION = 1

Key = tuple[tuple[str, ...], str, "str | None"]
"""Digests of the images, question, answer template."""


class RecordedEngine:
    """Answers from a recording; see `vlm3_ros.engines.base.Engine`."""

    warning: str | None = None

    def __init__(self, path: Path | str, profile: str = "") -> None:
        """Read a recording.

        Args:
            path: of the file.
            profile: to use instead of the recorded one; see `named_profile`. Empty: none.

        Raises:
            EngineError: if the file or the profile cannot be used; names it and what is wrong.
        """
        self._path = Path(path).expanduser()
        if not str(path):
            raise EngineError("engine recorded needs a file: set recording")
        try:
            lines = self._path.read_bytes().splitlines(keepends=True)
        except OSError as error:
            reason = f"{error.strerror}{_hint(self._path)}"
            raise EngineError(f"recording {self._path}: {reason}") from error
        if lines and not lines[-1].endswith(b"\n"):
            lines.pop()
            self.warning = f"{self._path} ends in the middle of a line, which is ignored"
            logger.warning(self.warning)
        self._answers: dict[Key, Answer] = {}
        number = 1
        try:
            header = json.loads(lines[0])
            if header["vlm3_recording"] != VERSION:
                raise ValueError(f"its version is {header['vlm3_recording']}, not {VERSION}")
            self.name = f"{header['model']}, recorded in {self._path.name}"
            self.profile: Profile = parse_profile(header["profile"])
            self.limits = ImageLimits(**header["limits"])
            for line in lines[1:]:
                number += 1
                key, answer = _parse(json.loads(line))
                self._answers[key] = answer
        except (ValueError, LookupError, TypeError, RecursionError) as error:
            raise EngineError(
                f"{self._path} is not a recording of answers: line {number}: {error}"
            ) from error
        if profile:
            self.profile = named_profile(profile)

    def ask(
        self,
        images: Sequence[NDArray[np.uint8]],
        questions: Sequence[str],
        answer_template: str | None = None,
    ) -> list[Answer]:
        """Look up the recorded answers; see `Engine.ask`."""
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
        """Return None: no device memory is in use."""
        return None

    def close(self) -> None:
        """Do nothing: there is no model to release."""


class RecordingEngine(ForwardingEngine):
    """Forwards questions to another engine and records the answers.

    If the file can no longer be written, it reports that as a warning and keeps answering.
    """

    def __init__(self, engine: Engine, path: Path | str) -> None:
        """Start a recording, or append to one of the same model.

        Raises:
            EngineError: if the file cannot be written, or is not a recording of this model.
        """
        super().__init__(engine)
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
    @override
    def warning(self) -> str | None:
        return "; ".join(filter(None, (self._engine.warning, self._fault))) or None

    @override
    def ask(
        self,
        images: Sequence[NDArray[np.uint8]],
        questions: Sequence[str],
        answer_template: str | None = None,
    ) -> list[Answer]:
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
                            **({"is_cut": True} if answer.is_cut else {}),
                        }
                    )
                    for question, answer in zip(questions, answers, strict=True)
                    if answer.fault is None
                )
            )
        return answers

    @override
    def close(self) -> None:
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
            with contextlib.suppress(OSError):  # lines that could not be written before
                self._file.close()
            self._file = None


def _open(path: Path, header: bytes) -> IO[bytes]:
    """Open a recording to append to it; write its header if it is new."""
    file = path.open("a+b")
    file.seek(0)
    first = file.readline(len(header) + 1)
    if first and first != header:
        file.close()
        raise EngineError(f"record_to {path} is not a recording of this model: choose another file")
    if not first:
        file.write(header)
    else:
        # A line that a crash or a full disk cut off would spoil the next one.
        file.seek(0)
        file.truncate(file.read().rfind(b"\n") + 1)
    return file


def _line(content: dict[str, Any]) -> bytes:
    # A server may send half of a surrogate pair, which UTF-8 has not: JSON has an escape for it.
    return json.dumps(content, ensure_ascii=False).encode(errors="backslashreplace") + b"\n"


def _hint(path: Path) -> str:
    """Say how to replay a recording that has a file for each task; empty if there is none."""
    if path.exists() or not path.name:
        return ""
    parts = sorted(
        file.name for file in path.parent.glob(f"{glob.escape(path.stem)}-*{path.suffix}")
    )
    if not parts:
        return ""
    return f", but {', '.join(parts)}: set the models of these tasks as when they were recorded"


def _parse(entry: dict[str, Any]) -> tuple[Key, Answer]:
    key = tuple(entry["images"]), entry["question"], entry["template"]
    text, value, std = entry["text"], entry["value"], entry["std"]
    if not isinstance(text, str):
        raise TypeError(f"its text is {text!r}")
    for number in (value, std):
        if number is not None and not math.isfinite(number):
            raise ValueError(f"it holds the number {number}")
    if not isinstance(is_cut := entry.get("is_cut", False), bool):
        raise TypeError(f"its is_cut is {is_cut!r}")
    return key, Answer(text, value, std, is_cut=is_cut)
