# SPDX-License-Identifier: Apache-2.0
"""The images of a call: sent once, then only named.

vLLM keeps an image that came with a `uuid`, and takes a later `image_url` of null with the same
`uuid` for it (its documentation of multimodal inputs, "Cached inputs"). If it has dropped the
image, it answers with an error.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

from vlm3_ros.engines.images import EncodedImage

_REMEMBERED = 64
"""Images that are taken for kept by the server, at most. vLLM's cache of 4 GiB holds more."""

_FUTILE = 8
"""Times that the images of one call are sent before named ones must have been of use."""


class KeptImages:
    """Keys of images that the server has seen lately, across calls."""

    def __init__(self) -> None:
        self._keys: dict[str, None] = {}

    def __contains__(self, image: EncodedImage) -> bool:
        return image.key in self._keys

    def add(self, images: Sequence[EncodedImage]) -> None:
        """Remember images about which the server has answered."""
        for image in images:
            self._keys.pop(image.key, None)
            self._keys[image.key] = None
        while len(self._keys) > _REMEMBERED:
            del self._keys[next(iter(self._keys))]

    def clear(self) -> None:
        """Forget all: the server may have lost them."""
        self._keys.clear()


class Pictures:
    """The images of one call, in the forms in which they enter a chat.

    Attributes:
        images: in the order of the chat.
        tokens: of all of them together, as the model reads them.
        times_sent: how often all of them were sent.
        times_named: how often naming those that the server keeps was enough.
        sending: held while they are sent again.
    """

    def __init__(self, images: Sequence[EncodedImage], tokens: int) -> None:
        self.images = images
        self.tokens = tokens
        self.times_sent = 0
        self.times_named = 0
        self.sending = asyncio.Lock()

    @property
    def is_futile(self) -> bool:
        """Whether naming them saves too little: the server does not keep them."""
        return self.times_sent > max(_FUTILE, 4 * self.times_named)

    def plain(self) -> list[dict[str, Any]]:
        """Return parts of a chat that hold the images, for any server."""
        return [_plain(image) for image in self.images]

    def keyed(self) -> list[dict[str, Any]]:
        """Return parts of a chat that hold the images and their keys."""
        return [_keyed(image) for image in self.images]

    def named(self, kept: KeptImages) -> list[dict[str, Any]]:
        """Return parts of a chat that hold keys, and only those images that the server lacks."""
        return [_named(image) if image in kept else _keyed(image) for image in self.images]


def _plain(image: EncodedImage) -> dict[str, Any]:
    return {"type": "image_url", "image_url": {"url": image.url}}


def _keyed(image: EncodedImage) -> dict[str, Any]:
    return {**_plain(image), "uuid": image.key}


def _named(image: EncodedImage) -> dict[str, Any]:
    return {"type": "image_url", "image_url": None, "uuid": image.key}
