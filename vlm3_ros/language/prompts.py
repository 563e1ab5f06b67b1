# SPDX-License-Identifier: Apache-2.0
"""Prompt sets: the wording that a checkpoint was trained with. They are data, not code."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from copy import deepcopy
from dataclasses import MISSING, dataclass, fields, is_dataclass, replace
from pathlib import Path
from types import UnionType
from typing import (
    Any,
    ClassVar,
    Literal,
    Protocol,
    TypeVar,
    Union,
    get_args,
    get_origin,
    get_type_hints,
)

from vlm3_ros.language.templates import PromptError
from vlm3_ros.language.wordings import WORDINGS

_SHIPPED = Path(__file__).parent / "prompt_sets"


class Wording(Protocol):
    """Wording of one task: a dataclass of texts, numbers, mappings of texts, and dataclasses.

    `task`: its name, the key in a prompt set.
    """

    task: ClassVar[str]

    def templates(self) -> list[str]:
        """Return all templates of questions and answers."""
        ...


W = TypeVar("W", bound=Wording)

TextRounding = Literal["floor", "round"]
"""How a pixel becomes a text coordinate; see `vlm3_ros.geometry.text_coordinates.Rounding`."""


@dataclass(frozen=True)
class PromptSet:
    """Wording of all tasks that a checkpoint learned, and the range of its text coordinates.

    Attributes:
        name: of the set in settings and messages.
        text_range: coordinates in questions and answers lie in [0, text_range) (paper 3.1).
        wordings: by the name of the task; a task that is missing was not learned.
        text_rounding: how a pixel becomes a coordinate; see `TextRounding`.

    Raises:
        PromptError: if the range is not positive, the rounding is unknown, or there is no task.
    """

    name: str
    text_range: int
    wordings: Mapping[str, Wording]
    text_rounding: TextRounding = "floor"

    def __post_init__(self) -> None:
        if self.text_range < 1:
            raise PromptError(f"text_range is {self.text_range}, it must be positive")
        if self.text_rounding not in get_args(TextRounding):
            known = " or ".join(get_args(TextRounding))
            raise PromptError(f"text_rounding is {self.text_rounding!r}, it must be {known}")
        if not self.wordings:
            raise PromptError(f"the prompt set must hold at least one of {', '.join(WORDINGS)}")

    def __getitem__(self, kind: type[W]) -> W:
        """Return the wording of a task, by its class: `prompts[DepthWording]`.

        Raises:
            PromptError: if the set has none.
        """
        wording = self.wordings.get(kind.task)
        if not isinstance(wording, kind):
            raise PromptError(f"prompt set {self.name!r} has no {kind.task} questions")
        return wording

    def without(self, *tasks: str) -> PromptSet:
        """Return the set without some tasks, by their names."""
        kept = {name: wording for name, wording in self.wordings.items() if name not in tasks}
        return replace(self, wordings=kept)

    def to_json(self) -> dict[str, Any]:
        """Return the JSON form; `parse_prompt_set` reads it. Tasks not learned are missing."""
        learned = {name: self.wordings[name] for name in WORDINGS if name in self.wordings}
        rounding = {} if self.text_rounding == "floor" else {"text_rounding": self.text_rounding}
        return {
            "name": self.name,
            "text_range": self.text_range,
            **rounding,
            **{name: _json(wording) for name, wording in learned.items()},
        }


def load_prompt_set(name_or_path: str | Path) -> PromptSet:
    """Load a prompt set that ships with the package, by name, or your own, by file.

    Args:
        name_or_path: "vlm3", or the path of a JSON file, which must end in ".json".

    Raises:
        PromptError: naming the set or the file and what is wrong with it.
    """
    if str(name_or_path).endswith(".json"):
        path = Path(name_or_path)
    else:
        path = _SHIPPED / f"{name_or_path}.json"
        names = sorted(file.stem for file in _SHIPPED.glob("*.json"))
        if str(name_or_path) not in names:
            raise PromptError(
                f"no prompt set is called {str(name_or_path)!r}: use one of {', '.join(names)}, or "
                "the path of a .json file"
            )
    try:
        return parse_prompt_set(json.loads(path.read_text(encoding="utf-8")))
    except OSError as error:
        raise PromptError(f"prompt set {path}: {error.strerror}") from error
    except ValueError as error:
        raise PromptError(f"prompt set {path}: {error}") from error


def parse_prompt_set(data: object) -> PromptSet:
    """Build a prompt set from its JSON form; the inverse of `PromptSet.to_json`.

    Raises:
        PromptError: if a key is missing, unknown or of the wrong type.
    """
    where = "the prompt set"
    needed = {"name": str, "text_range": int}
    optional = {"text_rounding": str, **dict.fromkeys(WORDINGS, dict)}
    content = _checked(data, where, needed, optional)
    wordings = {
        name: _parse(kind, content[name], name)
        for name, kind in WORDINGS.items()
        if content.get(name) is not None
    }
    rounding: Any = content.get("text_rounding") or "floor"
    return PromptSet(content["name"], content["text_range"], wordings, rounding)


def _parse(kind: type[Any], data: object, where: str) -> Any:
    """Build a dataclass from its JSON form, and the dataclasses in it."""
    hints = get_type_hints(kind)
    needed = {f.name: hints[f.name] for f in fields(kind) if f.default is MISSING}
    optional = {f.name: hints[f.name] for f in fields(kind) if f.default is not MISSING}
    content = _checked(data, where, needed, optional)
    for name, value in content.items():
        nested = next(filter(is_dataclass, (hints[name], *get_args(hints[name]))), None)
        if nested is not None:
            content[name] = _parse(nested, value, name)  # type: ignore[arg-type]
    return kind(**content)


def _json(wording: Any) -> dict[str, Any]:
    """Return the JSON form of a dataclass, without optional values that are as by default."""
    return {
        f.name: _json(value) if is_dataclass(value) else deepcopy(value)
        for f in fields(wording)
        if (value := getattr(wording, f.name)) != f.default
    }


def _fits(value: object, hint: Any) -> bool:
    """Return whether a JSON value is of a type; a dataclass's content is not checked."""
    if is_dataclass(hint):
        return isinstance(value, Mapping)
    origin, of = get_origin(hint), get_args(hint)
    if origin in (Union, UnionType):
        return any(_fits(value, one) for one in of)
    if origin is Mapping:
        return isinstance(value, Mapping) and all(_fits(one, of[1]) for one in value.values())
    if origin is Sequence:
        return isinstance(value, list) and all(_fits(one, of[0]) for one in value)
    return isinstance(value, hint) and isinstance(value, bool) == (hint is bool)


def _requirement(value: object, hint: Any) -> str:
    """Say what a value that does not fit must do."""
    if get_origin(hint) is None or is_dataclass(hint):
        return f"be of type {'dict' if is_dataclass(hint) else hint.__name__}"
    if get_origin(hint) is Mapping and not isinstance(value, Mapping):
        return "be of type dict"
    return "hold texts"


def _checked(
    data: object, where: str, needed: Mapping[str, Any], optional: Mapping[str, Any]
) -> dict[str, Any]:
    """Return the content of an object whose keys and types are right, without nulls."""
    if not isinstance(data, Mapping):
        raise PromptError(f"{where} must be an object with {', '.join(needed)}")
    if not set(needed) <= set(data) <= {*needed, *optional}:
        may = f" (and may hold {', '.join(optional)})" if optional else ""
        raise PromptError(
            f"{where} must hold {', '.join(needed)}{may}, not {', '.join(map(str, data))}"
        )
    content = {key: data[key] for key in data if key in needed or data[key] is not None}
    for key, value in content.items():
        expected = needed[key] if key in needed else optional[key]
        if not _fits(value, expected):
            raise PromptError(f"{key} of {where} must {_requirement(value, expected)}")
    return content
