# SPDX-License-Identifier: Apache-2.0
"""Scores by kind of procedural scene."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Protocol, TypeVar

from vlm3_lab.scenes import KINDS


class OfKind(Protocol):
    """Something that was scored, of a kind of procedural scene."""

    @property
    def kind(self) -> str:
        """One of `KINDS`."""


Scored = TypeVar("Scored", bound=OfKind)


def of_kinds(scored: Iterable[Scored]) -> dict[str, list[Scored]]:
    """What was scored by kind of scene, in the order of `KINDS`; kinds without any are left out."""
    scored = list(scored)
    by_kind = {kind: [one for one in scored if one.kind == kind] for kind in KINDS}
    return {kind: some for kind, some in by_kind.items() if some}
