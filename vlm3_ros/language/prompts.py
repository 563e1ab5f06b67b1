# SPDX-License-Identifier: Apache-2.0
"""Prompt sets: the wording that a checkpoint was trained with. They are data, not code."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, is_dataclass, replace
from pathlib import Path
from typing import Any, ClassVar, Literal, Protocol, TypeVar, get_args, get_origin, get_type_hints

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
            **{name: asdict(wording) for name, wording in learned.items()},  # type: ignore[call-overload]
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
    types = {field.name: hints[field.name] for field in fields(kind)}
    content = _checked(data, where, {name: _json_type(hint) for name, hint in types.items()})
    for name, hint in types.items():
        if is_dataclass(hint):
            content[name] = _parse(hint, content[name], name)  # type: ignore[arg-type]
        elif _json_type(hint) is dict and not all(
            isinstance(text, str) for text in content[name].values()
        ):
            raise PromptError(f"{name} of {where} must hold texts")
    return kind(**content)


def _json_type(hint: Any) -> type:
    return dict if is_dataclass(hint) or get_origin(hint) is not None else hint


def _checked(
    data: object, where: str, needed: Mapping[str, type], optional: Mapping[str, type] | None = None
) -> dict[str, Any]:
    """Return the content of an object whose keys and types are right."""
    optional = optional or {}
    if not isinstance(data, Mapping):
        raise PromptError(f"{where} must be an object with {', '.join(needed)}")
    if not set(needed) <= set(data) <= {*needed, *optional}:
        may = f" (and may hold {', '.join(optional)})" if optional else ""
        raise PromptError(
            f"{where} must hold {', '.join(needed)}{may}, not {', '.join(map(str, data))}"
        )
    for key, expected in {**needed, **optional}.items():
        if key in optional and data.get(key) is None:
            continue
        if not isinstance(data[key], expected) or isinstance(data[key], bool):
            raise PromptError(f"{key} of {where} must be of type {expected.__name__}")
    return dict(data)
