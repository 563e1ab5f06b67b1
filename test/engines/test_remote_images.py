# SPDX-License-Identifier: Apache-2.0
"""Images travel to a server once: what is sent, and what happens if the server lacks an image."""

from __future__ import annotations

import base64
import io
import logging
import math
import re
import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image
from stub_server import StubServer, completion

from vlm3_ros.engines.base import EngineError
from vlm3_ros.engines.images import encode_image
from vlm3_ros.engines.remote import client, features, questions
from vlm3_ros.language.prompts import load_prompt_set
from vlm3_ros.language.wordings.depth import DepthWording, depth_answer, depth_question

PROMPTS = load_prompt_set("vlm3")
WORDING = PROMPTS[DepthWording]
IMAGES = [*np.random.default_rng(0).integers(0, 256, (4, 256, 288, 3)).astype(np.uint8)]
QUESTIONS = [f"How far is point {i}?" for i in range(40)]
KEEPS_NONE = "keeps no images between questions"


@dataclass
class ImageServer:
    """Replies like vLLM, which keeps images by `uuid`.

    `copies` have caches of their own, and a connection belongs to one of them. `keeps`: whether an
    image is kept at all. `seen`: the images of each answered question, as URLs.
    """

    copies: int = 1
    keeps: bool = True
    tokens_per_image: int = 72  # one for 32x32 px, as Qwen3-VL
    caches: dict[int, dict[str, str]] = field(default_factory=dict)
    seen: dict[int, list[str]] = field(default_factory=dict)
    misses: int = 0

    def __call__(self, chat: dict[str, Any], server: StubServer) -> tuple[int, object]:
        *parts, text = chat["messages"][0]["content"]
        with server.lock:
            cache = self.caches.setdefault(server.local.connection % self.copies, {})
            urls = [self._url(part, cache) for part in parts]
            if None in urls:
                self.misses += 1
                index = urls.index(None)
                message = f"Cache miss for image at index {index} but data is not provided."
                return 400, {"error": {"message": message, "type": "BadRequestError"}}
            index = int(re.findall(r"\d+", text["text"])[0])
            if urls:
                self.seen[index] = urls
        return self.answer(index, len(urls), text["text"])

    def _url(self, part: dict[str, Any], cache: dict[str, str]) -> str | None:
        if part["image_url"] is None:
            return cache.get(part["uuid"])
        if self.keeps and "uuid" in part:
            cache[part["uuid"]] = part["image_url"]["url"]
        return part["image_url"]["url"]

    def answer(self, index: int, images: int, text: str) -> tuple[int, object]:
        status, content = completion(depth_answer(WORDING, 1 + index / 4))
        usage = {"prompt_tokens": 20 + images * self.tokens_per_image + len(text)}
        return status, {**content, "usage": usage}

    def restart(self) -> None:
        self.caches.clear()


@pytest.fixture
def images(stub_server: StubServer) -> ImageServer:
    stub_server.reply = ImageServer()
    return stub_server.reply


def sent_images(server: StubServer) -> list[int]:
    """Return the number of images that each request carried."""
    parts = [chat["messages"][0]["content"][:-1] for chat in server.chats]
    return [sum(part["image_url"] is not None for part in of_chat) for of_chat in parts]


def check_answers(answers: Sequence[Any], images: ImageServer, shown: Sequence[NDArray]) -> None:
    assert [answer.fault for answer in answers] == [None] * len(answers)
    assert [a.text for a in answers] == [
        depth_answer(WORDING, 1 + i / 4) for i in range(len(answers))
    ]
    urls = [encode_image(image).url for image in shown]
    assert images.seen == dict.fromkeys(range(len(answers)), urls)


def test_the_first_question_brings_the_images_and_the_others_name_them(
    images, stub_server, connect
):
    engine = connect()
    for pair in (IMAGES[:2], IMAGES[2:], IMAGES[1::-1]):
        images.seen.clear()
        check_answers(engine.ask(pair, QUESTIONS), images, pair)
    # The very first question was asked twice more, without images and with their keys, to see
    # whether the server keeps them. The images of the last call were kept from the first one.
    assert sent_images(stub_server) == [2] + 41 * [0] + [2] + 39 * [0] + 40 * [0]
    assert images.misses == 0


def test_of_a_pair_only_the_new_image_is_sent(images, stub_server, connect):
    """As the odometry asks: a keyframe with one image after the other."""
    engine = connect()
    engine.ask(IMAGES[:2], QUESTIONS)
    for pair in (IMAGES[::2], [IMAGES[3], IMAGES[0]]):
        images.seen.clear()
        stub_server.chats.clear()
        check_answers(engine.ask(pair, QUESTIONS), images, pair)
        assert sent_images(stub_server) == [1] + 39 * [0]
    # The server has lost the keyframe: both images are sent.
    images.restart()
    images.seen.clear()
    stub_server.chats.clear()
    pair = [IMAGES[0], np.ascontiguousarray(IMAGES[1][::-1])]
    check_answers(engine.ask(pair, QUESTIONS), images, pair)
    assert sent_images(stub_server) == [1, 2] + 39 * [0]


def test_a_key_names_exactly_one_image_as_it_travels():
    image = IMAGES[0]
    other_pixel, other_shape = image.copy(), image.reshape(288, 256, 3)
    other_pixel[7, 7, 0] ^= 1
    encoded = [
        encode_image(image),
        encode_image(other_pixel),
        encode_image(other_shape),
        encode_image(image, "jpeg", 90),
        encode_image(image, "jpeg", 91),
    ]
    assert len({e.key for e in encoded}) == len(encoded)
    assert encode_image(image.copy()) == encode_image(image)
    assert {len(e.key) for e in encoded} == {64}


def test_jpeg_is_smaller_and_has_its_quality(images, stub_server, connect):
    columns = np.linspace(20, 235, 288)
    smooth = np.stack(np.broadcast_arrays(columns, columns[:256, None], 99), -1)
    noise = np.random.default_rng(2).normal(0, 4, smooth.shape)
    image = (smooth + noise).clip(0, 255).astype(np.uint8)
    received = {}
    for quality in (50, 95):
        connect(image_encoding="jpeg", jpeg_quality=quality).ask([image], QUESTIONS[:1])
        kind, data = images.seen[0][0].split(",")
        assert kind == "data:image/jpeg;base64"
        picture = Image.open(io.BytesIO(base64.b64decode(data)))
        received[quality] = np.asarray(picture.convert("RGB")), len(data)
        np.testing.assert_allclose(received[quality][0], image, atol=40)
    errors = {q: np.abs(r.astype(int) - image).mean() for q, (r, _) in received.items()}
    assert errors[95] < errors[50]
    assert received[50][1] < received[95][1] < len(encode_image(image).url)


def test_a_frame_is_one_image_and_a_kilobyte_per_question(images, stub_server, connect):
    """Before images were named, such a frame was 171.7 MB."""
    rng = np.random.default_rng(1)
    cells = rng.integers(0, 256, (24, 32, 3)).repeat(20, 0).repeat(20, 1)
    frame = (cells + rng.normal(0, 4, cells.shape)).clip(0, 255).astype(np.uint8)
    pixels = rng.integers(0, 2000, (192, 2)).tolist()
    many = [depth_question(WORDING, xy, PROMPTS.text_range) for xy in pixels]
    engine = connect()
    engine.ask([IMAGES[0]], many[:2], WORDING.answer)  # finds out what the server can do
    stub_server.bytes_received = 0
    answers = engine.ask([frame], many, WORDING.answer)
    assert not any(answer.fault for answer in answers)
    limit = 1.2 * len(encode_image(frame).url) + 1000 * len(many)
    assert stub_server.bytes_received < limit
    # All questions share the connections that they need at the same time.
    assert stub_server.connections_made <= 32


def test_a_frame_over_a_slow_network_takes_what_concurrency_allows(images, stub_server, connect):
    engine = connect(concurrency=32)
    many = [f"How far is point {i}?" for i in range(192)]
    engine.ask([IMAGES[0]], many[:2], WORDING.answer)
    stub_server.delay = 0.1
    ideal = stub_server.delay * (1 + math.ceil(191 / 32))

    def seconds(image: NDArray[np.uint8]) -> float:
        start = time.monotonic()
        engine.ask([image], many, WORDING.answer)
        return time.monotonic() - start

    # One of several: on a busy machine a frame may wait for the processor.
    assert any(seconds(image) < 5 * ideal for image in IMAGES[1:])
    assert stub_server.most_in_flight == 32


def test_a_server_that_lost_the_image_gets_it_once_again(images, stub_server, connect):
    """Restarted between two questions, while others are in flight."""
    engine = connect(concurrency=8)
    restarts = iter([images.restart])

    def reply(chat: dict[str, Any], server: StubServer) -> tuple[int, object]:
        with server.lock:
            if len(images.seen) >= 20:
                next(restarts, int)()
        return images(chat, server)

    stub_server.reply = reply
    check_answers(engine.ask(IMAGES[:1], QUESTIONS), images, IMAGES[:1])
    assert sum(sent_images(stub_server)) == 2
    assert 1 <= images.misses <= 8
    # Known from the last call, but lost: the first question misses it, and brings it.
    images.restart()
    stub_server.chats.clear()
    check_answers(engine.ask(IMAGES[:1], QUESTIONS), images, IMAGES[:1])
    assert sent_images(stub_server) == [0, 1] + 39 * [0]


@pytest.mark.parametrize("copies", [2, 4])
def test_copies_of_a_model_have_caches_of_their_own(stub_server, connect, copies):
    images = stub_server.reply = ImageServer(copies=copies)
    stub_server.delay = 0.02
    engine = connect(concurrency=16)
    for image in IMAGES:
        images.seen.clear()
        stub_server.chats.clear()
        check_answers(engine.ask([image], QUESTIONS), images, [image])
        assert 1 <= sum(sent_images(stub_server)) <= 20
        # At last a question brings its image.
        texts = [chat["messages"][0]["content"][-1]["text"] for chat in stub_server.chats]
        assert max(Counter(texts).values()) <= questions.NAMED_TRIES + 1
    assert not engine._sender.keeping.is_refused


def refuses(status: int) -> Callable[[ImageServer], Callable]:
    def make(images: ImageServer) -> Callable:
        def reply(chat: dict[str, Any], server: StubServer) -> tuple[int, object]:
            if any(part["image_url"] is None for part in chat["messages"][0]["content"][:-1]):
                return status, {"detail": "argument of type 'NoneType' is not a picture"}
            return images(chat, server)

        return reply

    return make


def ignores_named_images(images: ImageServer) -> Callable:
    def reply(chat: dict[str, Any], server: StubServer) -> tuple[int, object]:
        *parts, text = chat["messages"][0]["content"]
        shown = [part for part in parts if part["image_url"] is not None]
        chat = {"messages": [{"content": [*shown, text]}]}
        return images(chat, server)

    return reply


def counts_only_text(images: ImageServer) -> Callable:
    """Ignores named images, and would not be noticed by the number of tokens."""
    images.tokens_per_image = 0
    return ignores_named_images(images)


def reports_no_usage(images: ImageServer) -> Callable:
    def reply(chat: dict[str, Any], server: StubServer) -> tuple[int, object]:
        status, content = images(chat, server)
        return status, {name: value for name, value in content.items() if name != "usage"}

    return reply


def refuses_keys(images: ImageServer) -> Callable:
    def reply(chat: dict[str, Any], server: StubServer) -> tuple[int, object]:
        if any("uuid" in part for part in chat["messages"][0]["content"]):
            return 422, {"detail": "extra inputs are not permitted"}
        return images(chat, server)

    return reply


@pytest.mark.parametrize(
    "kind",
    [
        refuses(400),
        refuses(422),
        refuses(500),
        ignores_named_images,
        counts_only_text,
        reports_no_usage,
        refuses_keys,
    ],
)
def test_servers_that_keep_no_images_get_them_with_each_question(
    images, stub_server, connect, caplog, monkeypatch, kind
):
    caplog.set_level(logging.INFO)
    monkeypatch.setattr(features, "TRY_AGAIN_EVERY", 3)
    stub_server.reply = kind(images)
    engine = connect()
    for _ in range(3):
        images.seen.clear()
        stub_server.chats.clear()
        check_answers(engine.ask(IMAGES[:1], QUESTIONS), images, IMAGES[:1])
        assert sum(sent_images(stub_server)[-39:]) == 39
    assert len([m for m in caplog.messages if KEEPS_NONE in m]) == 1, "logged once"
    assert f"{stub_server.url} {KEEPS_NONE}" in caplog.text
    # It is tried again later, when the server may have been replaced.
    stub_server.reply, images.tokens_per_image = images, 72
    for image in IMAGES[1:]:
        stub_server.chats.clear()
        engine.ask([image], QUESTIONS)
    assert sum(sent_images(stub_server)) == 1


def test_a_server_that_drops_images_at_once_gets_them_with_each_question(
    images, stub_server, connect, caplog
):
    caplog.set_level(logging.INFO)
    engine = connect(concurrency=4)
    engine.ask(IMAGES[:1], QUESTIONS)
    images.keeps = False
    images.restart()
    stub_server.chats.clear()
    images.seen.clear()
    check_answers(engine.ask(IMAGES[1:2], QUESTIONS), images, IMAGES[1:2])
    assert KEEPS_NONE in caplog.text
    # Naming them was tried for a quarter of the questions, not for all.
    assert sent_images(stub_server).count(0) < 30
    assert sum(sent_images(stub_server)) == 40


def test_an_answer_without_the_named_image_is_not_used(images, stub_server, connect, caplog):
    """Another server has taken over, and no connection was lost."""
    caplog.set_level(logging.INFO)
    engine = connect()
    engine.ask(IMAGES[:1], QUESTIONS)
    stub_server.reply = ignores_named_images(images)
    for image in IMAGES[:2]:
        images.seen.clear()
        check_answers(engine.ask([image], QUESTIONS), images, [image])
    assert KEEPS_NONE in caplog.text


@pytest.mark.parametrize("trouble", [None, (503, b"the worker died"), "hangs"])
def test_a_server_that_fails_at_named_images_is_rarely_tried(
    images, stub_server, connect, monkeypatch, trouble
):
    """Otherwise each question would lose the time of a try, and a try may even kill the server."""
    monkeypatch.setattr(questions, "_TRIAL_SECONDS", 0.3)
    end = threading.Event()
    tries = []

    def reply(chat: dict[str, Any], server: StubServer) -> tuple[int, object] | None:
        if any(part["image_url"] is None for part in chat["messages"][0]["content"][:-1]):
            tries.append(chat)
            if trouble == "hangs":
                end.wait(600)
            return None if trouble == "hangs" else trouble
        return images(chat, server)

    stub_server.reply = reply
    engine = connect()
    for image in [*IMAGES, *IMAGES[::-1]]:
        images.seen.clear()
        check_answers(engine.ask([image], QUESTIONS), images, [image])
    end.set()
    assert len(tries) == 3  # calls 1, 3 and 6; then 11, 20, 37


def test_an_answer_is_not_lost_with_the_time_for_a_try(images, stub_server, connect):
    end = threading.Event()

    def reply(chat: dict[str, Any], server: StubServer) -> tuple[int, object]:
        if any(part["image_url"] is None for part in chat["messages"][0]["content"][:-1]):
            end.wait(600)
        return images(chat, server)

    stub_server.reply = reply
    engine = connect(frame_timeout=2.0)
    with pytest.raises(EngineError, match="frame_timeout"):
        engine.ask(IMAGES[:1], QUESTIONS[:2])
    time.sleep(client.PAUSE)
    check_answers(engine.ask(IMAGES[:1], QUESTIONS[:2]), images, IMAGES[:1])
    end.set()


@pytest.mark.parametrize("tokens", [71, 72, 74])
def test_a_server_that_seems_to_shrink_images_is_named(
    images, stub_server, connect, caplog, tokens
):
    images.tokens_per_image = tokens
    engine = connect()
    for image in IMAGES:
        engine.ask([image], QUESTIONS[:2])
    warnings = [m for m in caplog.messages if "reads images as" in m]
    assert len(warnings) == (tokens < 72)
    assert all(f"{stub_server.url} reads images as 71 tokens instead of 72" in m for m in warnings)


def test_a_fault_while_an_image_is_named_is_a_fault_of_that_question(images, stub_server, connect):
    engine = connect()
    engine.ask(IMAGES[:1], QUESTIONS)

    def reply(chat: dict[str, Any], server: StubServer) -> tuple[int, object]:
        text = chat["messages"][0]["content"][-1]["text"]
        return (403, b"no entry") if "point 7?" in text else images(chat, server)

    stub_server.reply = reply
    answers = engine.ask(IMAGES[:1], QUESTIONS)
    assert [i for i, answer in enumerate(answers) if answer.fault] == [7]
    assert "403" in answers[7].fault


def test_threads_share_the_images_of_a_server(images, stub_server, connect):
    engine = connect(concurrency=4)
    engine.ask(IMAGES[:1], QUESTIONS[:1])
    stub_server.chats.clear()
    with ThreadPoolExecutor(4) as pool:
        calls = pool.map(lambda i: engine.ask([IMAGES[i % 2]], QUESTIONS[:12]), range(8))
        assert not any(answer.fault for answers in calls for answer in answers)
    # IMAGES[1] is new: up to four threads bring it at the same time.
    assert 1 <= sum(sent_images(stub_server)) <= 4
