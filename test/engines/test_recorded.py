# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import json
import logging
import resource
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from vlm3_ros.engines.base import Answer, EngineError, Profile
from vlm3_ros.engines.images import image_digest
from vlm3_ros.engines.recorded import RecordedEngine, RecordingEngine
from vlm3_ros.geometry.camera import ImageLimits
from vlm3_ros.language.prompts import load_prompt_set

IMAGES = list(np.random.default_rng(0).integers(0, 256, (3, 64, 96, 3)).astype(np.uint8))
QUESTIONS = ["How far is the wall?", "Wie weit ist die Tür?\nIn Metern, bitte.", "And then?"]
TEMPLATE = "<answer>{value}</answer>"


@dataclass
class Oracle:
    """Gives each question a different answer."""

    name: str = "oracle"
    profile: Profile = field(
        default_factory=lambda: Profile(123.5, "pad", load_prompt_set("vlm3-short"))
    )
    limits: ImageLimits = field(default_factory=lambda: ImageLimits(32, 1024, 2**24))
    warning: str | None = None
    silent_about: str | None = None
    is_closed: bool = False

    def ask(
        self,
        images: Sequence[NDArray[np.uint8]],
        questions: Sequence[str],
        answer_template: str | None = None,
    ) -> list[Answer]:
        seen = sum(int(image[0, 0, 0]) * 1000**i for i, image in enumerate(images))
        return [
            Answer("", fault="silence")
            if question == self.silent_about
            else Answer(
                f"{question} {seen} ☃", seen / 3, None if answer_template is None else 1 / 7
            )
            for question in questions
        ]

    def memory_bytes(self) -> int | None:
        return 12

    def close(self) -> None:
        self.is_closed = True


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "answers.jsonl"


def record(file: Path, engine: Oracle, *asked: tuple) -> None:
    recording = RecordingEngine(engine, file)
    for arguments in asked:
        assert recording.ask(*arguments) == engine.ask(*arguments)
    recording.close()


def test_recorded_answers_are_replayed(file):
    asked = [
        (IMAGES[:1], QUESTIONS, TEMPLATE),
        (IMAGES[:1], QUESTIONS),
        (IMAGES[1:], QUESTIONS[:1], TEMPLATE),
        (IMAGES[:0:-1], QUESTIONS[1:], None),
        (IMAGES[:1], []),
    ]
    oracle = Oracle()
    record(file, oracle, *asked)
    assert oracle.is_closed
    replay = RecordedEngine(file)
    assert replay.profile == oracle.profile
    assert replay.limits == oracle.limits
    assert "oracle" in replay.name
    assert file.name in replay.name
    assert replay.warning is None
    for arguments in asked:
        assert replay.ask(*arguments) == oracle.ask(*arguments)
    assert RecordedEngine(file, "vlm3-pose").profile.focal == 750.0
    with pytest.raises(EngineError, match="profile vlm3-poze does not exist"):
        RecordedEngine(file, "vlm3-poze")
    shuffled = QUESTIONS[::-1] * 2
    assert replay.ask(IMAGES[:1], shuffled) == oracle.ask(IMAGES[:1], shuffled)


@given(
    text=st.text(),
    value=st.none() | st.floats(allow_nan=False, allow_infinity=False),
    std=st.none() | st.floats(0, allow_infinity=False),
    is_cut=st.booleans(),
)
def test_any_answer_is_replayed_unchanged(tmp_path_factory, text, value, std, is_cut):
    file = tmp_path_factory.mktemp("any") / "answers.jsonl"
    oracle = Oracle()
    answer = Answer(text, value, std, is_cut=is_cut)
    oracle.ask = lambda *arguments: [answer]
    record(file, oracle, (IMAGES[:1], [text]))
    assert RecordedEngine(file).ask(IMAGES[:1], [text]) == [answer]


def test_half_of_a_surrogate_pair_is_recorded(file):
    """A server may send one; UTF-8 has none."""
    oracle, answer = Oracle(), Answer("\ud83d 2.5 \\ud83d", 2.5)
    oracle.ask = lambda *arguments: [answer]
    record(file, oracle, (IMAGES[:1], ["how far?\udc00"]))
    assert RecordedEngine(file).ask(IMAGES[:1], ["how far?\udc00"]) == [answer]
    file.read_text(encoding="utf-8")


def test_question_that_was_not_recorded_has_no_answer(file):
    record(file, Oracle(), (IMAGES[:1], QUESTIONS[:1], TEMPLATE))
    replay = RecordedEngine(file)
    known, unknown = replay.ask(IMAGES[:1], QUESTIONS[:2], TEMPLATE)
    assert known.fault is None
    assert unknown.text == ""
    assert str(file) in unknown.fault
    for other in (
        (IMAGES[1:2], QUESTIONS[:1], TEMPLATE),
        (IMAGES[:1], QUESTIONS[:1]),
        (IMAGES[:1], QUESTIONS[1:], TEMPLATE),
        (IMAGES[:2], QUESTIONS[:1], TEMPLATE),
    ):
        with pytest.raises(EngineError, match="has none of the") as caught:
            replay.ask(*other)
        assert str(file) in str(caught.value)


def test_unanswered_questions_are_not_recorded(file):
    oracle = Oracle(silent_about=QUESTIONS[1])
    record(file, oracle, (IMAGES[:1], QUESTIONS))
    answers = RecordedEngine(file).ask(IMAGES[:1], QUESTIONS)
    assert [answer.fault is None for answer in answers] == [True, False, True]


def test_recording_is_appended_to(file):
    record(file, Oracle(), (IMAGES[:1], QUESTIONS))
    record(file, Oracle(), (IMAGES[1:2], QUESTIONS))
    replay = RecordedEngine(file)
    for images in (IMAGES[:1], IMAGES[1:2]):
        assert replay.ask(images, QUESTIONS) == Oracle().ask(images, QUESTIONS)


def test_truncated_line_is_ignored_with_a_warning(file, caplog):
    record(file, Oracle(), (IMAGES[:1], QUESTIONS))
    whole = file.read_bytes()
    last = len(whole.splitlines(keepends=True)[-1])
    for cut in (1, last // 2, last - 1):
        file.write_bytes(whole[:-cut])
        caplog.clear()
        replay = RecordedEngine(file)
        assert str(file) in replay.warning
        assert str(file) in caplog.text
        answers = replay.ask(IMAGES[:1], QUESTIONS)
        assert [answer.fault is None for answer in answers] == [True, True, False]
        record(file, Oracle(), (IMAGES[:1], QUESTIONS[2:]))
        assert RecordedEngine(file).ask(IMAGES[:1], QUESTIONS) == Oracle().ask(
            IMAGES[:1], QUESTIONS
        )
        assert RecordedEngine(file).warning is None


def test_recording_of_another_model_is_not_changed(file):
    record(file, Oracle(), (IMAGES[:1], QUESTIONS))
    before = file.read_bytes()
    for other in (Oracle(name="another"), Oracle(limits=ImageLimits(32, 2048, 2**24))):
        with pytest.raises(EngineError, match="another file"):
            RecordingEngine(other, file)
    assert file.read_bytes() == before
    notes = file.with_name("notes.txt")
    notes.write_text("my notes")
    with pytest.raises(EngineError, match="another file"):
        RecordingEngine(Oracle(), notes)
    assert notes.read_text() == "my notes"


@pytest.mark.parametrize(
    ("damage", "complaint"),
    [
        (lambda lines: [], "line 1"),
        (lambda lines: ["my notes\n"], "line 1"),
        (lambda lines: ["[1]\n"], "line 1"),
        (lambda lines: [lines[0].replace('"vlm3_recording": 1', '"vlm3_recording": 2')], "version"),
        (lambda lines: [lines[0].replace("123.5", "-1")], "line 1.*focal"),
        (lambda lines: [lines[0].replace('"multiple"', '"sides"')], "line 1"),
        (lambda lines: [lines[0], lines[1][:-20] + "\n", lines[2]], "line 2"),
        (lambda lines: [*lines[:2], lines[2].replace('"images"', '"pictures"')], "line 3"),
    ],
)
def test_invalid_recording_is_refused(file, damage, complaint):
    record(file, Oracle(), (IMAGES[:1], QUESTIONS))
    file.write_text("".join(damage(file.read_text().splitlines(keepends=True))))
    with pytest.raises(EngineError, match=complaint) as caught:
        RecordedEngine(file)
    assert str(file) in str(caught.value)


def test_unreadable_files_are_named(tmp_path):
    with pytest.raises(EngineError, match=r"missing\.jsonl: No such file"):
        RecordedEngine(tmp_path / "missing.jsonl")
    for task in ("pose", "depth"):
        (tmp_path / f"missing-{task}.jsonl").touch()
    with pytest.raises(EngineError, match=r", but missing-depth\.jsonl, missing-pose\.jsonl: set"):
        RecordedEngine(tmp_path / "missing.jsonl")
    with pytest.raises(EngineError, match=r"no/folder\.jsonl: No such file"):
        RecordingEngine(Oracle(), tmp_path / "no" / "folder.jsonl")
    with pytest.raises(EngineError, match="needs a file: set recording"):
        RecordedEngine("")


@contextmanager
def disk_with(free: int) -> Iterator[None]:
    """No file can grow, as on a full disk."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (free, limits[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)


def test_full_disk_stops_only_the_recording(file, caplog):
    recording = RecordingEngine(Oracle(), file)
    recording.ask(IMAGES[:1], QUESTIONS)
    assert recording.warning is None
    written = file.stat().st_size
    with disk_with(written + 100):
        answers = recording.ask(IMAGES[1:2], QUESTIONS)
    assert answers == Oracle().ask(IMAGES[1:2], QUESTIONS)
    assert str(file) in recording.warning
    assert str(file) in caplog.text
    caplog.clear()
    assert recording.ask(IMAGES[2:], QUESTIONS) == Oracle().ask(IMAGES[2:], QUESTIONS)
    assert not [line for line in caplog.records if line.levelno >= logging.ERROR]
    recording.close()
    replay = RecordedEngine(file)
    assert replay.ask(IMAGES[:1], QUESTIONS) == Oracle().ask(IMAGES[:1], QUESTIONS)
    record(file, Oracle(), (IMAGES[2:], QUESTIONS))
    assert RecordedEngine(file).ask(IMAGES[2:], QUESTIONS) == Oracle().ask(IMAGES[2:], QUESTIONS)


def test_recording_engine_forwards_everything_else(file):
    oracle = Oracle(warning="it is tired")
    recording = RecordingEngine(oracle, file)
    assert (recording.name, recording.profile) == (oracle.name, oracle.profile)
    assert (recording.limits, recording.memory_bytes()) == (oracle.limits, 12)
    assert recording.warning == "it is tired"
    oracle.ask = lambda *arguments: 1 / 0
    with pytest.raises(ZeroDivisionError):
        recording.ask(IMAGES[:1], QUESTIONS)


def test_digests_of_different_images_differ():
    image = IMAGES[0]
    other = image.copy()
    other[-1, -1, -1] ^= 1
    reshaped = image.reshape(96, 64, 3)
    assert len({image_digest(i) for i in (image, other, reshaped, image[:, ::-1])}) == 4
    assert image_digest(image[:, ::-1][:, ::-1]) == image_digest(image)


def test_recording_is_readable_text(file):
    record(file, Oracle(), (IMAGES[:1], QUESTIONS, TEMPLATE))
    header, *lines = map(json.loads, file.read_text().splitlines())
    assert header["profile"]["prompts"]["name"] == "vlm3-short"
    assert [line["question"] for line in lines] == QUESTIONS
    assert {tuple(line["images"]) for line in lines} == {(image_digest(IMAGES[0]),)}
