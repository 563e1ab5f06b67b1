# SPDX-License-Identifier: Apache-2.0
"""The remote engine against stub servers that misbehave like real networks and servers.

For a model's answers through a real server see test_served_answers.py.
"""

from __future__ import annotations

import base64
import io
import json
import logging
import re
import socket
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from stub_server import StubServer, completion

from vlm3_ros.engines import forms as learning
from vlm3_ros.engines.base import EngineError, Profile
from vlm3_ros.engines.images import QWEN3_VL_LIMITS
from vlm3_ros.engines.profiles import write_profile
from vlm3_ros.engines.remote import client, features
from vlm3_ros.engines.remote.client import Circuit
from vlm3_ros.engines.remote.questions import answer_regex
from vlm3_ros.geometry.camera import ImageLimits
from vlm3_ros.language.prompts import load_prompt_set
from vlm3_ros.language.wordings.depth import DepthWording, depth_answer
from vlm3_ros.paths import default_model

PROMPTS = load_prompt_set("vlm3")
TEMPLATE = PROMPTS[DepthWording].answer
THOUGHTS = "<think> It is {value} meters away. </think>\n<answer> {value} </answer>"
IMAGE = np.random.default_rng(0).integers(0, 256, (256, 288, 3)).astype(np.uint8)
QUESTIONS = [f"How far is point {i}?" for i in range(12)]


def number(chat: dict[str, Any]) -> int:
    """Return the index of the question in QUESTIONS."""
    return int(re.search(r"\d+", chat["messages"][0]["content"][-1]["text"]).group())


def right(chat: dict[str, Any], server: StubServer) -> tuple[int, object]:
    return completion(expected(number(chat)))


def expected(i: int) -> str:
    return depth_answer(PROMPTS[DepthWording], 1 + i / 4)


@pytest.fixture
def server(stub_server: StubServer) -> StubServer:
    stub_server.reply = right
    return stub_server


def texts(answers: list) -> list[str]:
    return [answer.text for answer in answers]


def test_each_question_gets_its_own_answer(server, connect):
    engine = connect(max_new_tokens=50)
    answers = engine.ask([IMAGE], QUESTIONS)
    assert texts(answers) == [expected(i) for i in range(12)]
    assert {(answer.value, answer.std, answer.fault) for answer in answers} == {(None, None, None)}
    assert sorted(map(number, server.chats)) == list(range(12))
    for chat in server.chats:
        assert chat["model"] == "served"
        assert chat["temperature"] == 0
        assert chat["max_tokens"] == 50
    assert engine.ask([IMAGE], []) == []
    assert len(server.chats) == 12


def test_images_come_first_and_are_lossless(server, connect):
    other = IMAGE[::-1, ::-1]
    connect().ask([IMAGE, other], QUESTIONS[:2])
    for chat in server.chats:
        *pictures, text = chat["messages"][0]["content"]
        assert text == {"type": "text", "text": QUESTIONS[number(chat)]}
        for picture, sent in zip(pictures, (IMAGE, other), strict=True):
            kind, data = picture["image_url"]["url"].split(",")
            assert kind == "data:image/png;base64"
            received = np.asarray(Image.open(io.BytesIO(base64.b64decode(data))))
            np.testing.assert_array_equal(received, sent)


def test_first_question_goes_alone_and_the_others_concurrently_within_the_limit(server, connect):
    gate = threading.Semaphore(0)

    def reply(chat: dict, server: StubServer) -> tuple[int, object]:
        gate.acquire()
        return right(chat, server)

    server.reply = reply
    engine = connect(concurrency=5)
    with ThreadPoolExecutor() as pool:
        answers = pool.submit(engine.ask, [IMAGE], QUESTIONS)
        wait_for(lambda: server.in_flight == 1)
        gate.release()
        wait_for(lambda: server.in_flight == 5)
        gate.release(100)
        assert texts(answers.result()) == [expected(i) for i in range(12)]
    assert number(server.chats[0]) == 0
    assert server.most_in_flight == 5


def wait_for(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + 600
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.005)


@pytest.mark.parametrize(
    "trouble", [(408, b""), (429, b"busy"), (500, b""), (503, b"starting"), None]
)
def test_temporary_failures_are_retried(server, connect, trouble):
    failed: dict[int, int] = {}

    def reply(chat: dict, server: StubServer) -> tuple[int, object] | None:
        with server.lock:
            failed[number(chat)] = failed.get(number(chat), 0) + 1
        return trouble if failed[number(chat)] <= 2 else right(chat, server)

    server.reply = reply
    answers = connect().ask([IMAGE], QUESTIONS)
    assert texts(answers) == [expected(i) for i in range(12)]
    assert set(failed.values()) == {3}


def test_retries_back_off_and_end(server, connect, monkeypatch):
    monkeypatch.setattr(client, "BACKOFF", 0.1)
    times = []

    def reply(chat: dict, server: StubServer) -> tuple[int, object]:
        times.append(time.monotonic())
        return 503, b"not yet"

    server.reply = reply
    with pytest.raises(EngineError, match=re.escape(server.url) + ".*503.*not yet"):
        connect().ask([IMAGE], QUESTIONS)
    waits = np.diff(times)
    assert len(waits) == client.RETRIES
    for wait, shortest in zip(waits, (0.05, 0.1, 0.2), strict=True):
        assert wait >= shortest


@pytest.mark.parametrize("status", [400, 401, 403, 404, 413, 422])
def test_permanent_failures_are_not_retried(server, connect, status):
    server.reply = lambda chat, server: (status, {"message": "the model `served` does not exist"})
    with pytest.raises(EngineError) as caught:
        connect().ask([IMAGE], QUESTIONS)
    assert f"{server.url} answers {status}" in str(caught.value)
    assert "`served` does not exist" in str(caught.value)
    assert ("VLM3_API_KEY" in str(caught.value)) == (status in (401, 403))
    assert ("base_url, which ends in /v1" in str(caught.value)) == (status == 404)
    # A server may refuse a request because of the key of its image: once more without.
    keys = [chat["messages"][0]["content"][0].get("uuid") for chat in server.chats]
    assert [key is None for key in keys] == ([False, True] if status in (400, 422) else [False])


@pytest.mark.parametrize(
    "content",
    [
        b"<html>welcome</html>",
        b"\xff\xfe",
        b"[1, 2]",
        b"null",
        b'{"choices": []}',
        b'{"choices": [{"message": "text"}]}',
        b'{"choices": [{"message": {"content": [{"type": "text", "text": "2 m"}]}}]}',
    ],
)
def test_unexpected_content_is_an_error_that_shows_it(server, connect, content):
    server.reply = lambda chat, server: (200, content)
    with pytest.raises(EngineError, match=re.escape(server.url) + " does not answer as OpenAI"):
        connect().ask([IMAGE], QUESTIONS)
    assert len(server.chats) == 1


@pytest.mark.parametrize("field", ["structured_outputs", "logprobs"])
def test_server_that_fails_at_a_feature_is_asked_without_it(server, connect, field):
    def reply(chat: dict, server: StubServer) -> tuple[int, object]:
        return (500, b"KeyError") if field in chat else right(chat, server)

    server.reply = reply
    engine = connect()
    for _ in range(4):
        server.chats.clear()
        answers = engine.ask([IMAGE], QUESTIONS, TEMPLATE)
        assert texts(answers) == [expected(i) for i in range(12)]
    # Tried in calls 1 and 3, and not again in call 4.
    assert not any(field in chat for chat in server.chats)


def test_a_question_that_is_refused_does_not_stop_another_call(server, connect):
    """Nodes share an engine: one of them may ask something too long."""
    refused, go_on = threading.Event(), threading.Event()

    def reply(chat: dict, server: StubServer) -> tuple[int, object]:
        if chat["messages"][0]["content"][-1]["text"] == "Too long?":
            return 400, b"maximum context length"
        if number(chat) == 3:
            refused.wait(600)
            go_on.set()
        return right(chat, server)

    server.reply = reply
    engine = connect(concurrency=2)
    with ThreadPoolExecutor() as pool:
        asking = pool.submit(engine.ask, [IMAGE], QUESTIONS)
        wait_for(lambda: len(server.chats) > 4)
        with pytest.raises(EngineError, match="maximum context length"):
            engine.ask([IMAGE], ["Too long?"])
        refused.set()
        assert texts(asking.result()) == [expected(i) for i in range(12)]
    assert go_on.is_set() and engine.warning is None
    assert texts(engine.ask([IMAGE], QUESTIONS)) == [expected(i) for i in range(12)]


def test_a_slow_first_question_does_not_stop_another_call(server, connect):
    end = threading.Event()

    def reply(chat: dict, server: StubServer) -> tuple[int, object]:
        if chat["messages"][0]["content"][-1]["text"] == "Slow?":
            end.wait(600)
        return right(chat, server)

    server.reply = reply
    engine = connect(request_timeout=3.0)
    with ThreadPoolExecutor() as pool:
        slow = pool.submit(engine.ask, [IMAGE], ["Slow?"])
        wait_for(lambda: bool(server.chats))
        assert texts(engine.ask([IMAGE], QUESTIONS)) == [expected(i) for i in range(12)]
        with pytest.raises(EngineError, match="request_timeout"):
            slow.result()
    end.set()
    assert texts(engine.ask([IMAGE], QUESTIONS)) == [expected(i) for i in range(12)]


def test_threads_share_what_is_learned_of_answers(server, connect):
    engine = connect(concurrency=4)
    server.reply = lambda chat, server: completion(thoughts(number(chat)))
    with ThreadPoolExecutor(4) as pool:
        for answers in pool.map(lambda _: engine.ask([IMAGE], QUESTIONS, TEMPLATE), range(8)):
            assert texts(answers) == [thoughts(i) for i in range(12)]


def test_one_failed_answer_leaves_the_others(server, connect):
    def reply(chat: dict, server: StubServer) -> tuple[int, object]:
        return (500, b"out of luck") if number(chat) == 7 else right(chat, server)

    server.reply = reply
    answers = connect().ask([IMAGE], QUESTIONS)
    assert texts(answers) == [expected(i) if i != 7 else "" for i in range(12)]
    assert [i for i, answer in enumerate(answers) if answer.fault] == [7]
    assert re.search(re.escape(server.url) + ".*500.*out of luck", answers[7].fault)


@pytest.mark.slow
def test_request_timeout_limits_one_answer(server, connect):
    done = threading.Event()

    def reply(chat: dict, server: StubServer) -> tuple[int, object]:
        if number(chat) == 3:
            done.wait(600)
        return right(chat, server)

    server.reply = reply
    answers = connect(request_timeout=5.0).ask([IMAGE], QUESTIONS)
    done.set()
    assert [i for i, answer in enumerate(answers) if answer.fault] == [3]
    assert "request_timeout (5 s)" in answers[3].fault
    assert sum(number(chat) == 3 for chat in server.chats) == 1


@pytest.mark.slow
def test_frame_timeout_limits_all_answers(server, connect):
    done = threading.Event()

    def reply(chat: dict, server: StubServer) -> tuple[int, object]:
        if number(chat) > 5:
            done.wait(600)
        return right(chat, server)

    server.reply = reply
    answers = connect(frame_timeout=5.0, concurrency=2).ask([IMAGE], QUESTIONS)
    done.set()
    assert texts(answers[:6]) == [expected(i) for i in range(6)]
    assert {"frame_timeout (5 s)" in answer.fault for answer in answers[6:]} == {True}


def test_unreachable_server_is_not_asked_during_the_pause(server, connect, monkeypatch):
    monkeypatch.setattr(client, "PAUSE", 0.5)
    engine = connect()
    assert texts(engine.ask([IMAGE], QUESTIONS)) == [expected(i) for i in range(12)]
    server.stop()
    url = re.escape(server.url)
    with pytest.raises(EngineError, match=f"{url} cannot be reached.*is the server running"):
        engine.ask([IMAGE], QUESTIONS)
    # A listener that only counts: while the circuit is open, nobody connects.
    with socket.create_server(("127.0.0.1", server.port)) as listener:
        with pytest.raises(EngineError, match=f"{url} cannot be reached"):
            engine.ask([IMAGE], QUESTIONS)
        listener.setblocking(False)
        with pytest.raises(BlockingIOError):
            listener.accept()
    assert "cannot be reached" in engine.warning
    server.start()
    wait_for(lambda: engine._client.circuit.fault is None)
    assert texts(engine.ask([IMAGE], QUESTIONS)) == [expected(i) for i in range(12)]
    assert engine.warning is None


def test_answers_before_a_server_dies_are_kept(server, connect, monkeypatch):
    """The first failure that retries cannot mend stops the remaining questions."""
    monkeypatch.setattr(client, "PAUSE", 3600.0)
    asked = []

    def reply(chat: dict, server: StubServer) -> tuple[int, object] | None:
        asked.append(number(chat))
        return right(chat, server) if number(chat) < 4 else None

    server.reply = reply
    engine = connect(concurrency=1)
    answers = engine.ask([IMAGE], QUESTIONS)
    assert texts(answers) == [expected(i) if i < 4 else "" for i in range(12)]
    assert all(server.url in answer.fault for answer in answers[4:])
    assert asked == [0, 1, 2, 3] + [4] * (client.RETRIES + 1)
    with pytest.raises(EngineError, match="cannot be reached"):
        engine.ask([IMAGE], QUESTIONS)


def test_key_comes_from_the_environment_and_goes_only_to_the_server(
    server, connect, monkeypatch, caplog
):
    caplog.set_level(logging.DEBUG)
    monkeypatch.setenv("ROBOT_KEY", " s3cret\n")
    engine = connect(api_key_variable="ROBOT_KEY")
    engine.ask([IMAGE], QUESTIONS)
    assert {headers["Authorization"] for headers in server.headers} == {"Bearer s3cret"}
    server.reply = lambda chat, server: (401, b"no entry")
    with pytest.raises(EngineError, match="ROBOT_KEY") as caught:
        engine.ask([IMAGE], QUESTIONS)
    assert "s3cret" not in caplog.text + str(caught.value) + engine.name
    server.headers.clear()
    server.reply = right
    connect().ask([IMAGE], QUESTIONS)
    assert not any("Authorization" in headers for headers in server.headers)


@pytest.mark.parametrize("key", ["s3cret s3cret", "s3cret\ns3cret", "s3crét"])
def test_invalid_key_is_not_shown(server, connect, monkeypatch, key):
    monkeypatch.setenv("VLM3_API_KEY", key)
    with pytest.raises(EngineError, match="VLM3_API_KEY does not hold an API key") as caught:
        connect()
    assert "s3cr" not in str(caught.value)


@pytest.mark.parametrize(
    ("url", "complaint"),
    [
        ("localhost:8000/v1", "like http://host:8000/v1"),
        ("", "like http://host:8000/v1"),
        ("ftp://host/v1", "like http://host:8000/v1"),
        ("http://host:port/v1", "is not a URL"),
        ("http://me:s3cret@host/v1", "must not hold a password"),
    ],
)
def test_invalid_urls(connect, url, complaint):
    with pytest.raises(EngineError, match=complaint) as caught:
        connect(base_url=url)
    assert "s3cret" not in str(caught.value)


def forms(server: StubServer) -> list[str | None]:
    return [chat.get("structured_outputs", {}).get("regex") for chat in server.chats]


def test_answers_are_forced_after_a_free_one_has_the_form(server, connect):
    engine = connect()
    engine.ask([IMAGE], QUESTIONS, TEMPLATE)
    assert forms(server) == [None] + [answer_regex(TEMPLATE)] * 11
    engine.ask([IMAGE], QUESTIONS, TEMPLATE)
    assert forms(server)[12:] == [answer_regex(TEMPLATE)] * 12


def test_server_without_regular_expressions_is_asked_for_free_answers(
    server, connect, caplog, monkeypatch
):
    caplog.set_level(logging.INFO)
    monkeypatch.setattr(features, "TRY_AGAIN_EVERY", 4)
    takes_forms = False

    def reply(chat: dict, server: StubServer) -> tuple[int, object]:
        if "structured_outputs" in chat and not takes_forms:
            return 422, {"detail": "Unexpected fields in the request: {'structured_outputs'}"}
        return right(chat, server)

    server.reply = reply
    engine = connect(concurrency=1)
    for _ in range(2):
        answers = engine.ask([IMAGE], QUESTIONS, TEMPLATE)
        assert texts(answers) == [expected(i) for i in range(12)]
    assert sum(form is not None for form in forms(server)) == 1
    for _ in range(4):
        engine.ask([IMAGE], QUESTIONS[:1], TEMPLATE)
    assert sum(form is not None for form in forms(server)) == 2
    assert len([m for m in caplog.messages if "does not take regular" in m]) == 1, "logged once"
    takes_forms = True
    for _ in range(6):
        engine.ask([IMAGE], QUESTIONS[:1], TEMPLATE)
    assert [form is not None for form in forms(server)[-3:]] == [False, True, True]


def thoughts(i: int) -> str:
    return THOUGHTS.replace("{value}", f"{1 + i / 4:.2f}")


def test_models_with_another_form_are_forced_into_that(server, connect, caplog):
    caplog.set_level(logging.INFO)
    server.reply = lambda chat, server: completion(thoughts(number(chat)))
    engine = connect()
    assert texts(engine.ask([IMAGE], QUESTIONS, TEMPLATE)) == [thoughts(i) for i in range(12)]
    assert sorted(number(chat) for chat in server.chats[:4]) == [0, 1, 4, 8]
    assert forms(server) == [None] * 4 + [answer_regex(THOUGHTS)] * 8
    regex = answer_regex(THOUGHTS)
    assert regex == (
        r"<think> It is (0|[1-9][0-9]{0,3})(\.[0-9]{1,4})? meters away\. </think>\n"
        r"<answer> (0|[1-9][0-9]{0,3})(\.[0-9]{1,4})? </answer>"
    )
    assert re.fullmatch(regex, thoughts(7))
    (message,) = [m for m in caplog.messages if "forced" in m]
    assert message == f"{engine.name} answers {THOUGHTS!r}: numbers are forced into this form"


def test_model_that_speaks_otherwise_is_learned_anew(server, connect, monkeypatch):
    monkeypatch.setattr(learning, "CHECK_EVERY", 4)
    engine = connect()
    engine.ask([IMAGE], QUESTIONS, TEMPLATE)
    server.reply = lambda chat, server: completion(
        expected(number(chat)) if "structured_outputs" in chat else thoughts(number(chat))
    )
    for _ in range(3):
        engine.ask([IMAGE], QUESTIONS[:2], TEMPLATE)
    server.chats.clear()
    engine.ask([IMAGE], QUESTIONS, TEMPLATE)
    assert forms(server) == [None] * 5 + [answer_regex(THOUGHTS)] * 7


def test_models_without_a_form_answer_freely(server, connect):
    server.reply = lambda chat, server: completion(
        f"<think>{number(chat)} steps.</think> <answer>2.5</answer>"
    )
    connect().ask([IMAGE], QUESTIONS, TEMPLATE)
    connect(force_answers=False).ask([IMAGE], QUESTIONS, TEMPLATE)
    server.reply = right
    connect(force_answers=False).ask([IMAGE], QUESTIONS, TEMPLATE)
    assert set(forms(server)) == {None}


@pytest.mark.parametrize("name", ["reasoning", "reasoning_content"])
def test_answers_without_their_reasoning_teach_no_form(server, connect, caplog, name):
    """To force them would force the model not to think."""

    def reply(chat: dict, server: StubServer) -> tuple[int, object]:
        thought, _, answer = thoughts(number(chat)).partition("</think>")
        return completion(answer, **{name: thought})

    server.reply = reply
    connect().ask([IMAGE], QUESTIONS, TEMPLATE)
    assert set(forms(server)) == {None}
    assert "removes the reasoning" in caplog.text


def test_answer_that_was_cut_off_says_so(server, connect):
    server.reply = lambda chat, server: completion(
        expected(number(chat)), "length" if number(chat) == 3 else "stop"
    )
    answers = connect().ask([IMAGE], QUESTIONS)
    assert [i for i, answer in enumerate(answers) if answer.is_cut] == [3]


def test_restarted_server_may_have_another_model_and_form(server, connect, monkeypatch):
    monkeypatch.setattr(client, "PAUSE", 0.05)
    engine = connect(model="")
    engine.ask([IMAGE], QUESTIONS, TEMPLATE)
    server.stop()
    with pytest.raises(EngineError):
        engine.ask([IMAGE], QUESTIONS, TEMPLATE)
    server.model = "another-model"
    server.reply = lambda chat, server: completion(thoughts(number(chat)))
    server.chats.clear()
    server.start()
    wait_for(lambda: engine._client.circuit.fault is None)
    assert texts(engine.ask([IMAGE], QUESTIONS, TEMPLATE)) == [thoughts(i) for i in range(12)]
    assert {chat["model"] for chat in server.chats} == {"another-model"}
    assert forms(server) == [None] * 4 + [answer_regex(THOUGHTS)] * 8


def test_restarted_server_with_a_model_of_another_task_is_not_asked(server, connect, monkeypatch):
    monkeypatch.setattr(client, "PAUSE", 0.05)
    server.model = "/models/VLM3-pose"
    engine = connect(model="", profile="")
    assert engine.profile.focal == 750.0
    engine.ask([IMAGE], QUESTIONS)
    server.stop()
    with pytest.raises(EngineError):
        engine.ask([IMAGE], QUESTIONS)
    server.chats.clear()
    server.start()
    for name, message in (
        ("/models/VLM3-object", "has another model now, /models/VLM3-object, which was trained"),
        ("something", "nothing says what something was trained for"),
    ):
        server.model = name
        wait_for(lambda: engine._client.circuit.fault is None)
        with pytest.raises(EngineError, match=message):
            engine.ask([IMAGE], QUESTIONS)
    assert not server.chats
    server.model = "somewhere-else/vlm3-pose"
    wait_for(lambda: engine._client.circuit.fault is None)
    assert texts(engine.ask([IMAGE], QUESTIONS)) == [expected(i) for i in range(12)]


def test_model_that_was_replaced_is_looked_up_again(server, connect):
    def reply(chat: dict, server: StubServer) -> tuple[int, object]:
        return right(chat, server) if chat["model"] == server.model else (404, b"no such model")

    server.reply = reply
    engine = connect(model="")
    engine.ask([IMAGE], QUESTIONS)
    server.model = "another-model"
    with pytest.raises(EngineError, match="no such model"):
        engine.ask([IMAGE], QUESTIONS)
    wait_for(lambda: engine._client.circuit.fault is None)
    assert texts(engine.ask([IMAGE], QUESTIONS)) == [expected(i) for i in range(12)]


@given(metres=st.floats(0.01, 9999.0), name=st.sampled_from(["vlm3", "vlm3-short"]))
def test_regular_expression_of_a_template(metres, name):
    prompts = load_prompt_set(name)
    form, answer = answer_regex(prompts[DepthWording].answer), None
    try:
        answer = depth_answer(prompts[DepthWording], metres)
    except ValueError:  # rounds to zero
        return
    assert re.fullmatch(form, answer)
    assert re.fullmatch(form, answer.replace("</answer>", " m</answer>")) is None
    assert re.fullmatch(form, answer.replace("<answer>", "<answer>0")) is None
    assert re.fullmatch(answer_regex("a.b(c) [d] {value} {e}|f\\"), "a.b(c) [d] 1.5 {e}|f\\")


def test_only_model_of_a_server_need_not_be_named(server, connect):
    connect(model="").ask([IMAGE], QUESTIONS)
    assert {chat["model"] for chat in server.chats} == {"the-model"}


def test_threads_share_an_engine(server, connect):
    engine = connect(concurrency=4)
    with ThreadPoolExecutor(4) as pool:
        for answers in pool.map(lambda _: engine.ask([IMAGE], QUESTIONS), range(8)):
            assert texts(answers) == [expected(i) for i in range(12)]
    assert server.most_in_flight <= 4


def test_closing_cancels_running_requests(server, connect):
    done = threading.Event()

    def reply(chat: dict, server: StubServer) -> tuple[int, object]:
        done.wait(600)
        return right(chat, server)

    server.reply = reply
    engine = connect()
    with ThreadPoolExecutor() as pool:
        asking = pool.submit(engine.ask, [IMAGE], QUESTIONS)
        wait_for(lambda: server.in_flight == 1)
        engine.close()
        with pytest.raises(EngineError, match="is closed"):
            asking.result(timeout=600)
        done.set()
    engine.close()
    with pytest.raises(EngineError, match="is closed"):
        engine.ask([IMAGE], QUESTIONS)
    assert "requests to" not in " ".join(thread.name for thread in threading.enumerate())


@pytest.mark.parametrize("image", [IMAGE[:100], IMAGE[:64, :64], IMAGE[..., 0], IMAGE / 255])
def test_image_that_would_be_resized_is_not_sent(server, connect, image):
    with pytest.raises(EngineError):
        connect().ask([image], QUESTIONS)
    assert not server.chats


def test_control_tokens_are_not_sent(server, connect):
    with pytest.raises(EngineError, match=re.escape("<|im_end|>")):
        connect().ask([IMAGE], ["How far?<|im_end|>"])
    assert not server.chats


def test_question_that_is_no_text_is_not_sent(server, connect):
    with pytest.raises(EngineError, match=r"'How far\?\\udcff' cannot be sent"):
        connect().ask([IMAGE], ["How far?\udcff"])
    assert not server.chats


def test_profile_of_a_served_model(connect, tmp_path: Path):
    authors = connect()
    assert (authors.profile.focal, authors.profile.fit) == (1000.0, "scale")
    assert authors.limits == QWEN3_VL_LIMITS
    own = Profile(333.0, "pad", load_prompt_set("vlm3-short"))
    write_profile(tmp_path, own)
    for path in (tmp_path, tmp_path / "vlm3.json"):
        assert connect(profile=str(path)).profile == own
        assert connect(profile=str(path)).limits == QWEN3_VL_LIMITS
    processor = json.loads((default_model() / "processor_config.json").read_text())
    (tmp_path / "processor_config.json").write_text(json.dumps(processor))
    limits = connect(profile=str(tmp_path)).limits
    assert limits == ImageLimits(32, 1024, 2**24)
    assert asdict(replace(limits, min_pixels=65_536)) == asdict(QWEN3_VL_LIMITS)
    (tmp_path / "processor_config.json").write_text("{}")
    with pytest.raises(EngineError, match="processor_config"):
        connect(profile=str(tmp_path))
    with pytest.raises(EngineError, match="missing does not exist"):
        connect(profile=str(tmp_path / "missing"))


def test_circuit_opens_lets_one_attempt_pass_and_closes():
    now = [100.0]
    circuit = Circuit(pause=2.0, clock=lambda: now[0])
    assert circuit.reason is None
    assert circuit.fault is None
    circuit.open("it is gone")
    for now[0], fault in ((100.0, "it is gone"), (101.9, "it is gone"), (102.0, None)):
        assert circuit.fault == fault
        assert circuit.reason == "it is gone"
    circuit.open("it is still gone")
    now[0] = 103.9
    assert circuit.fault == "it is still gone"
    circuit.close()
    assert circuit.fault is None
    assert circuit.reason is None
