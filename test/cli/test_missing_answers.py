# SPDX-License-Identifier: Apache-2.0
"""Commands against servers that are slow, silent, dead or babble, and against recordings."""

from __future__ import annotations

import json
import re
import socket
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from stub_server import StubServer, completion

from vlm3_ros.cli import main
from vlm3_ros.engines.remote import client
from vlm3_ros.evaluation import tolerance
from vlm3_ros.language.prompts import load_prompt_set
from vlm3_ros.language.wordings.depth import DepthWording, depth_answer
from vlm3_ros.paths import sample_bag

WORDING = load_prompt_set("vlm3")[DepthWording]
PIXELS = [[20, 30], [50, 60], [100, 90], [120, 40]]
IMAGES = 5
FEW = ["--rate", "0.4", "--focal", "100"]
"""Few and small images of a bag."""

SCENES = ["--synthetic", "2", "--pixels", "2", "--matches", "2"]

BABBLE = "What a lovely room."


def right(chat: dict[str, Any], server: StubServer) -> tuple[int, object]:
    return completion(depth_answer(WORDING, 2.0))


def babble(chat: dict[str, Any], server: StubServer) -> tuple[int, object]:
    return completion(BABBLE)


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[StubServer]:
    monkeypatch.setattr(client, "BACKOFF", 0.01)
    running = StubServer(right)
    running.start()
    yield running
    running.stop()


@pytest.fixture
def never() -> Iterator[Callable[[], None]]:
    """Waits until the end of the test."""
    end = threading.Event()

    def wait() -> None:
        end.wait(600)

    yield wait
    end.set()


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """A data set whose depths are all 2 m, as the servers see them."""
    lines = []
    for index in range(IMAGES):
        image = np.random.default_rng(index).integers(0, 256, (128, 160, 3)).astype(np.uint8)
        Image.fromarray(image).save(tmp_path / f"{index}.png")
        intrinsics = [512, 512, 79.5, 63.5, 160, 128]
        line = {"image": f"{index}.png", "intrinsics": intrinsics}
        lines.append(json.dumps({**line, "pixel_coords": PIXELS, "depth": [2.0] * 4}))
    path = tmp_path / "data.jsonl"
    path.write_text("\n".join(lines) + "\n")
    return path


def asking(server: StubServer, *options: str) -> list[str]:
    served = ["--engine", "openai", "--profile", "vlm3", "--model", "served"]
    return [*served, "--base-url", server.url, *options]


def metrics(out: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((out / "metrics.json").read_text())
    return content


def error_line(capsys: pytest.CaptureFixture[str]) -> str:
    """The only line of the error, which is the last one."""
    return capsys.readouterr().err.splitlines()[-1]


def test_evaluation_waits_longer_than_a_robot(
    data: Path, server: StubServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    given: list[tuple[float, float]] = []
    original = client.ChatClient.__init__

    def watched(self: client.ChatClient, settings: Any) -> None:
        given.append((settings.request_timeout, settings.frame_timeout))
        original(self, settings)

    monkeypatch.setattr(client.ChatClient, "__init__", watched)
    command = ["evaluate", str(data), "--out", str(tmp_path / "out"), *asking(server)]
    assert main(command) == 0
    assert main([*command, "--request-timeout", "50"]) == 0
    assert given == [(600, 3600), (50, 3600)]
    assert metrics(tmp_path / "out")["depth"]["delta1"] == 1
    assert metrics(tmp_path / "out")["answers"]["depth"] == {
        "asked": 20,
        "answered": 20,
        "unreadable": {},
        "faults": {},
    }


@pytest.mark.slow
def test_a_few_timeouts_are_stated_and_are_not_wrong_answers(
    data: Path,
    server: StubServer,
    never: Callable[[], None],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def reply(chat: dict[str, Any], server: StubServer) -> tuple[int, object]:
        with server.lock:
            number = len(server.chats)
        if number == 4:  # its image has had an answer by then: the first question goes alone
            never()
        return completion("I see nothing.") if number == 3 else right(chat, server)

    server.reply = reply
    out = tmp_path / "out"
    limits = ["--request-timeout", "10", "--concurrency", "1"]
    assert main(["evaluate", str(data), "--out", str(out), *asking(server, *limits)]) == 0
    content = metrics(out)
    assert content["answers"]["depth"] == {
        "asked": 20,
        "answered": 18,
        "unreadable": {"no answer": {"count": 1, "sample": "'I see nothing.'"}},
        "faults": {
            "did not answer within request_timeout": {
                "count": 1,
                "sample": f"{server.url} did not answer within request_timeout (10 s)",
            }
        },
    }
    assert (content["depth"]["pixels"], content["depth"]["unanswered"]) == (19, 1)
    assert content["depth"]["delta1"] == pytest.approx(18 / 19, rel=1e-5)
    printed = capsys.readouterr().out
    stated = "1 of 20 questions had no answer from the engine: http"
    assert f"Incomplete: {stated}" in printed
    assert "once no answer, such as 'I see nothing.'" in printed
    assert stated in (out / "report.html").read_text()


def test_an_evaluation_fails_if_most_questions_had_no_answer(
    data: Path, server: StubServer, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Only the first question of each image is answered."""
    images = set()

    def reply(chat: dict[str, Any], server: StubServer) -> tuple[int, object]:
        image = chat["messages"][0]["content"][0]["image_url"]["url"]
        with server.lock:
            is_first = image not in images
            images.add(image)
        return right(chat, server) if is_first else (503, b"busy with request 4711")

    server.reply = reply
    out = tmp_path / "out"
    assert main(["evaluate", str(data), "--out", str(out), *asking(server)]) == 1
    error = error_line(capsys)
    assert error.startswith("vlm3: nothing was scored: 15 of 20 questions had no answer")
    assert f"engine: {server.url} answers 503 Service Unavailable: busy with request" in error
    assert "raise request_timeout and frame_timeout" in error
    assert not list(out.iterdir())


def test_an_evaluation_of_a_silent_server_ends_with_the_first_question(
    data: Path,
    server: StubServer,
    never: Callable[[], None],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def reply(chat: dict[str, Any], server: StubServer) -> None:
        never()

    server.reply = reply
    limit = asking(server, "--request-timeout", "1")
    assert main(["evaluate", str(data), "--out", str(tmp_path / "out"), *limit]) == 1
    assert re.search(r"nothing was answered: .*request_timeout \(1 s\)", error_line(capsys))
    assert len(server.chats) == 1
    assert not list((tmp_path / "out").iterdir())


def test_a_server_that_restarts_is_waited_for(
    data: Path, server: StubServer, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """It dies after an image, and comes back after some attempts to reach it."""
    tries: list[int] = []

    def reply(chat: dict[str, Any], server: StubServer) -> tuple[int, object] | None:
        if len(server.chats) <= len(PIXELS) or len(tries) > 5:
            return right(chat, server)
        tries.append(1)
        return None

    server.reply = reply
    out = tmp_path / "out"
    command = ["evaluate", str(data), "--out", str(out), *asking(server, "--concurrency", "1")]
    assert main(command) == 0
    assert metrics(out)["answers"]["depth"]["answered"] == 20
    assert "Incomplete" not in capsys.readouterr().out


def test_a_server_that_dies_leaves_the_answers_before(
    data: Path,
    server: StubServer,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(tolerance, "MAX_SECONDS", 0.0)
    answered = len(PIXELS) * 3

    def reply(chat: dict[str, Any], server: StubServer) -> tuple[int, object] | None:
        return right(chat, server) if len(server.chats) <= answered else None

    server.reply = reply
    out = tmp_path / "out"
    command = ["evaluate", str(data), "--out", str(out), *asking(server, "--concurrency", "1")]
    assert main(command) == 0
    assert metrics(out)["answers"]["depth"]["answered"] == answered
    assert metrics(out)["depth"]["delta1"] == 1
    assert "Incomplete: 8 of 20 questions had no answer" in capsys.readouterr().out


def test_an_evaluation_of_a_babbling_model_fails_and_shows_what_it_says(
    data: Path, server: StubServer, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    server.reply = babble
    out = tmp_path / "out"
    assert main(["evaluate", str(data), "--out", str(out), *asking(server)]) == 1
    error = error_line(capsys)
    assert "20 of 20 answers could not be read: no answer, such as" in error
    assert repr(BABBLE) in error and "profile" in error
    assert not list(out.iterdir())


@pytest.mark.slow
@pytest.mark.parametrize("source", ["bag", "scenes"])
def test_other_sources_fail_likewise(
    source: str,
    server: StubServer,
    drive: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    server.reply = babble
    out = tmp_path / "out"
    data = {"bag": [str(drive), *FEW], "scenes": SCENES}[source]
    assert main(["evaluate", *data, "--out", str(out), *asking(server)]) == 1
    error = error_line(capsys)
    assert re.search(r"(\d+) of \1 answers could not be read", error) and repr(BABBLE) in error
    assert not list(out.iterdir())
    server.stop()
    assert main(["evaluate", *data, "--out", str(out), *asking(server)]) == 1
    assert f"nothing was answered: {server.url} cannot be reached" in error_line(capsys)


@pytest.mark.slow
def test_a_bag_whose_server_dies_is_incomplete(
    server: StubServer,
    drive: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(tolerance, "MAX_SECONDS", 0.0)
    out = tmp_path / "out"
    wording = load_prompt_set("vlm3-depth")[DepthWording]
    answer = completion(depth_answer(wording, 2.0))
    command = ["evaluate", str(drive), *FEW, "--out", str(out)]
    command += asking(server, "--profile", "vlm3-depth")
    server.reply = lambda chat, server: answer
    assert main(command) == 0
    complete = metrics(out)
    frames, chats = complete["frames"]["frames"], len(server.chats)
    lasting = -(-frames * 3 // 4) * 192

    def reply(chat: dict[str, Any], server: StubServer) -> tuple[int, object] | None:
        return answer if len(server.chats) - chats <= lasting else None

    server.reply = reply
    assert main(command) == 0
    content = metrics(out)
    assert content["answers"]["depth"]["asked"] == complete["answers"]["depth"]["asked"]
    assert content["answers"]["depth"]["answered"] == lasting
    assert content["frames"]["failed"] == frames - lasting // 192 > 0
    assert content["depth"]["unanswered"] == complete["depth"]["unanswered"]
    assert content["depth"]["pixels"] < complete["depth"]["pixels"]
    assert "Incomplete: " in capsys.readouterr().out


@pytest.mark.slow
@pytest.mark.parametrize("babbles", [True, False])
def test_nodes_without_answers_fail_the_evaluation(
    babbles: bool,
    server: StubServer,
    drive: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    pytest.importorskip("rclpy")
    server.reply = babble
    if not babbles:
        server.stop()
    command = ["evaluate", str(drive), "--online", "--focal", "100", "--out", str(tmp_path)]
    assert main([*command, *asking(server)]) == 1
    error = error_line(capsys)
    reason = "no answer could be read" if babbles else f"depth_node: {server.url} cannot be reached"
    assert f"none of 100 images got a depth or a motion: {reason}" in error
    assert not (tmp_path / "metrics.json").exists()


def test_a_recording_that_lacks_the_first_image_is_scored_on_the_others(
    data: Path, server: StubServer, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    recording, out = tmp_path / "answers.jsonl", tmp_path / "out"
    command = ["evaluate", str(data), "--out", str(out)]
    assert main([*command, *asking(server, "--record-to", str(recording))]) == 0
    header, *answers = recording.read_text().splitlines(keepends=True)
    replay = [*command, "--engine", "recorded", "--recording", str(recording)]
    for lost, status in ((4, 0), (12, 1)):
        recording.write_text("".join([header, *answers[lost:]]))
        assert main(replay) == status
    assert "12 of 20 questions had no answer" in error_line(capsys)
    assert metrics(out)["answers"]["depth"]["answered"] == 16


@pytest.mark.slow
def test_a_task_whose_server_is_dead_is_left_out(server: StubServer, tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        dead = f"http://127.0.0.1:{free.getsockname()[1]}/v1"
    others = ["--pose-base-url", dead, "--pose-profile", "vlm3"]
    others += ["--object-base-url", dead, "--object-profile", "vlm3"]
    served = asking(server, *others)
    out = tmp_path / "out"
    assert main(["evaluate", *SCENES, "--out", str(out), *served]) == 0
    content = metrics(out)
    assert content["answers"]["depth"]["answered"] == content["depth"]["pixels"] == 4
    assert set(content["left_out"]) == {"pose", "correspondence", "objects"}
    for reason in content["left_out"].values():
        assert f"nothing was answered: {dead} cannot be reached" in reason
    assert not (out / "pairs.png").exists() and not (out / "objects.png").exists()


@pytest.fixture
def drive() -> Path:
    return sample_bag()


@pytest.fixture
def photos(tmp_path: Path) -> list[str]:
    paths = [tmp_path / "first.png", tmp_path / "second.png"]
    for seed, path in enumerate(paths):
        image = np.random.default_rng(seed).integers(0, 256, (128, 160, 3)).astype(np.uint8)
        Image.fromarray(image).save(path)
    return [str(path) for path in paths]


QUESTIONS = {
    "pixel": (1, ["--pixel", "20", "30"]),
    "grid": (1, ["--grid", "3x2"]),
    "boxes": (1, ["--box", "10", "10", "50", "50", "--box", "70", "10", "120", "90"]),
    "pose": (2, ["--pose"]),
    "matches": (2, ["--match", "20", "30"]),
    "pose and matches": (2, ["--pose", "--match", "20", "30"]),
}


@pytest.mark.parametrize("question", QUESTIONS)
def test_a_question_without_answer_fails_with_the_reason(
    question: str, server: StubServer, photos: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    count, options = QUESTIONS[question]
    command = ["ask", *photos[:count], "--hfov", "60", *options, *asking(server)]
    server.reply = babble
    assert main(command) == 1
    error = error_line(capsys)
    assert "answers could not be read" in error and repr(BABBLE) in error
    server.reply = lambda chat, server: (404, {"message": "no such model"})
    assert main(command) == 1
    assert re.search(r"nothing was answered: .* 404 .*no such model", error_line(capsys))


def test_nothing_is_drawn_without_an_answer(
    server: StubServer, photos: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    server.reply = babble
    out = tmp_path / "out"
    command = ["ask", photos[0], "--hfov", "60", "--grid", "3x2", "--out", str(out)]
    assert main([*command, *asking(server)]) == 1
    assert not out.exists()
    server.reply = right
    assert main([*command, *asking(server)]) == 0
    assert "6 pixels, 0 without a depth" in capsys.readouterr().out


def test_a_grid_says_why_pixels_have_no_depth(
    server: StubServer, photos: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    def reply(chat: dict[str, Any], server: StubServer) -> tuple[int, object]:
        with server.lock:
            number = len(server.chats)
        return {2: babble(chat, server), 3: (404, b"lost")}.get(number, right(chat, server))

    server.reply = reply
    options = ["--no-force-answers", "--concurrency", "1"]
    command = ["ask", photos[0], "--hfov", "60", "--grid", "3x2", *asking(server, *options)]
    assert main(command) == 0
    printed = capsys.readouterr().out
    assert "6 pixels, 2 without a depth" in printed
    assert f"unreadable answers: depth: once no answer, such as {BABBLE!r}" in printed
    assert f"questions without an answer: depth: once {server.url} answers 404" in printed
