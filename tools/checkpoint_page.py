# SPDX-License-Identifier: Apache-2.0
"""The generated parts of docs/checkpoints.md, made from the profiles that ship with the package."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import get_args

from vlm3_ros.engines.base import Profile
from vlm3_ros.engines.images import QWEN3_VL_LIMITS
from vlm3_ros.engines.profiles import authors_checkpoints, shipped_profile
from vlm3_ros.engines.settings import model_setting
from vlm3_ros.geometry.camera import PinholeCamera
from vlm3_ros.language.wordings.objects import ObjectsWording, phrasings
from vlm3_ros.language.wordings.pose import PoseWording
from vlm3_ros.paths import Task, shipped_profiles
from vlm3_ros.tasks.task import model_view
from vlm3_ros.tasks.verification import ANGLE_LIMIT

SAMPLE = PinholeCamera(640, 480, 525.0, 525.0, 319.5, 239.5)
"""Camera whose image size in the model the table states."""

_MARKS = ("begin", "end")


def checkpoints_page(page: str) -> str:
    """Return docs/checkpoints.md with its generated parts renewed.

    Args:
        page: the page as it is. Comments enclose each generated part and name it.
    """
    profiles = authors_profiles()
    parts = {
        "table": checkpoint_table(profiles),
        "profiles": f"Shipped profiles: {', '.join(f'`{name}`' for name in shipped_profiles())}.",
        "wordings": wording_sections(profiles),
    }
    for name, text in parts.items():
        begin, end = (f"<!-- {mark} {name}, by tools/interface_pages.py -->" for mark in _MARKS)
        before, _, rest = page.partition(begin)
        _, found, after = rest.partition(end)
        if not found:
            raise ValueError(f"docs/checkpoints.md must hold {begin} and {end}")
        page = f"{before}{begin}\n{text}\n{end}{after}"
    return page


def checkpoint_table(profiles: Mapping[str, Profile]) -> str:
    """Return a Markdown table of how each checkpoint is asked.

    Args:
        profiles: by the name of the checkpoint.
    """
    rows: dict[str, Callable[[Profile], str]] = {
        "learned": _task,
        "setting": lambda profile: f"`{model_setting(_task(profile))}`",
        "images per question": lambda profile: str(_images(profile)),
        "image size": _size,
        f"so {SAMPLE.width}x{SAMPLE.height} px with fx {SAMPLE.fx:g} enters as": _entering,
        "coordinates": _coordinates,
        "questions": _questions,
        "must agree": _agreement,
        "longest answer": lambda profile: f"{profile.max_new_tokens} tokens",
        "profile": lambda profile: f"`{profile.prompts.name}`",
    }
    lines = [
        "| | " + " | ".join(f"`{name}`" for name in profiles) + " |",
        "|---" * (len(profiles) + 1) + "|",
    ]
    for title, cell in rows.items():
        cells = " | ".join(cell(profile) for profile in profiles.values())
        lines.append(f"| {title} | {cells} |")
    return "\n".join(lines)


def wording_sections(profiles: Mapping[str, Profile]) -> str:
    """Return the questions and answers of each checkpoint, word for word."""
    return "\n\n".join(
        f"### {name}\n\n" + "\n\n".join(_blocks(profile)) for name, profile in profiles.items()
    )


def authors_profiles() -> dict[str, Profile]:
    """Return the profiles of the authors' checkpoints, by hub id, in the order of the tasks."""
    profiles = map(shipped_profile, authors_checkpoints().values())
    ordered = sorted(profiles, key=lambda profile: get_args(Task).index(_task(profile)))
    return {profile.checkpoint: profile for profile in ordered}


def _task(profile: Profile) -> str:
    """Name of the one task that a checkpoint learned."""
    (task,) = profile.prompts.wordings
    return task


def _images(profile: Profile) -> int:
    return 2 if _task(profile) in ("pose", "correspondence") else 1


def _size(profile: Profile) -> str:
    if profile.focal is None:
        return f"longest side {profile.longest_side} px, any focal length"
    how = "by fx, the aspect is kept" if profile.axes == "fx" else "on both axes"
    return f"focal length {profile.focal:g} px {how}"


def _entering(profile: Profile) -> str:
    view = model_view(profile, QWEN3_VL_LIMITS, SAMPLE).view
    tokens = view.width * view.height // QWEN3_VL_LIMITS.multiple**2
    return f"{view.width}x{view.height} px, {tokens:,} tokens"


def _coordinates(profile: Profile) -> str:
    prompts = profile.prompts
    if _task(profile) == "pose":
        return "none"
    rounding = "rounded" if prompts.text_rounding == "round" else "rounded down"
    return f"0 to {prompts.text_range - 1}, {rounding}"


def _questions(profile: Profile) -> str:
    prompts = profile.prompts
    if _task(profile) == "pose":
        return f"{len(prompts[PoseWording].parts)} per pair"
    if _task(profile) == "objects":
        wording = prompts[ObjectsWording]
        return f"{len(wording.relations)} relations, {len(wording.quantities)} lengths, direction"
    return "1 per pixel"


def _agreement(profile: Profile) -> str:
    if _task(profile) != "pose":
        return ""
    limit = ANGLE_LIMIT * profile.uncertainty.rotation_deg
    return f"rotation angle and yaw, pitch, roll, within {limit:g} degrees"


def _blocks(profile: Profile) -> list[str]:
    """Questions with the forms of their answers, as Markdown."""
    (wording,) = profile.prompts.wordings.values()
    if isinstance(wording, ObjectsWording):
        return _object_blocks(wording)
    texts = wording.templates()  # each question, then its answer
    pairs = zip(texts[::2], texts[1::2], strict=True)
    return [f"```\n{question}\n-> {answer!r}\n```" for question, answer in pairs]


def _object_blocks(wording: ObjectsWording) -> list[str]:
    asked = {**wording.relations, **wording.quantities, "direction": wording.direction}
    table = ["| name | question | phrasings |", "|---|---|---|"]
    for name, question in asked.items():
        texts = phrasings(question)
        table.append(f"| `{name}` | {texts[0]} | {len(texts)} |")
    region = f"`{{a}}` and `{{b}}` are objects, each named as `{wording.region}`."
    return [region, "\n".join(table)]
