# SPDX-License-Identifier: Apache-2.0
"""The page about the authors' checkpoints, made from the profiles that ship with the package."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from vlm3_ros.engines.base import Profile
from vlm3_ros.engines.images import QWEN3_VL_LIMITS
from vlm3_ros.engines.profiles import authors_checkpoints, shipped_profile
from vlm3_ros.geometry.camera import PinholeCamera
from vlm3_ros.language.wordings.correspondence import CorrespondenceWording
from vlm3_ros.language.wordings.depth import DepthWording
from vlm3_ros.language.wordings.objects import ObjectsWording
from vlm3_ros.language.wordings.pose import PoseWording
from vlm3_ros.paths import shipped_profiles
from vlm3_ros.tasks.task import model_view
from vlm3_ros.tasks.verification import ANGLE_LIMIT

SAMPLE = PinholeCamera(640, 480, 525.0, 525.0, 319.5, 239.5)
"""An image whose size in the model the table states."""

ORDER = ("depth", "pose", "correspondence", "objects")

SETTINGS = {
    "depth": "`depth_model`",
    "pose": "`pose_model`",
    "correspondence": "`match_model`",
    "objects": "`object_model`",
}
"""Setting that names the checkpoint of a task."""

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
        "learned": lambda profile: ", ".join(profile.prompts.wordings),
        "setting": lambda profile: SETTINGS[next(iter(profile.prompts.wordings))],
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
    profiles = {hub_id: shipped_profile(name) for hub_id, name in authors_checkpoints().items()}
    return dict(
        sorted(profiles.items(), key=lambda item: ORDER.index(next(iter(item[1].prompts.wordings))))
    )


def _images(profile: Profile) -> int:
    return 2 if {"pose", "correspondence"} & profile.prompts.wordings.keys() else 1


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
    if "pose" in prompts.wordings:
        return "none"
    rounding = "rounded" if prompts.text_rounding == "round" else "rounded down"
    return f"0 to {prompts.text_range - 1}, {rounding}"


def _questions(profile: Profile) -> str:
    prompts = profile.prompts
    if "pose" in prompts.wordings:
        return f"{len(prompts[PoseWording].parts)} per pair"
    if "objects" in prompts.wordings:
        wording = prompts[ObjectsWording]
        return f"{len(wording.relations)} relations, {len(wording.quantities)} lengths, direction"
    return "1 per pixel"


def _agreement(profile: Profile) -> str:
    if "pose" not in profile.prompts.wordings:
        return ""
    limit = ANGLE_LIMIT * profile.uncertainty.rotation_deg
    return f"rotation angle and yaw, pitch, roll, within {limit:g} degrees"


def _blocks(profile: Profile) -> list[str]:
    """Questions and answers of all tasks of a profile."""
    prompts, blocks = profile.prompts, []
    if "depth" in prompts.wordings:
        depth = prompts[DepthWording]
        blocks.append(_block([depth.question], [depth.answer]))
    if "pose" in prompts.wordings:
        parts = prompts[PoseWording].parts.values()
        blocks += [_block([part.question], [part.answer]) for part in parts]
    if "correspondence" in prompts.wordings:
        match = prompts[CorrespondenceWording]
        blocks.append(_block([match.question], [match.answer]))
    if "objects" in prompts.wordings:
        blocks += _object_blocks(prompts[ObjectsWording])
    return blocks


def _object_blocks(wording: ObjectsWording) -> list[str]:
    asked = {**wording.relations, **wording.quantities, "direction": wording.direction}
    table = ["| name | question | phrasings |", "|---|---|---|"]
    for name, question in asked.items():
        phrasings = (question,) if isinstance(question, str) else tuple(question)
        table.append(f"| `{name}` | {phrasings[0]} | {len(phrasings)} |")
    region = f"`{{a}}` and `{{b}}` are objects, each named as `{wording.region}`."
    return [region, "\n".join(table)]


def _block(questions: list[str], answers: list[str]) -> str:
    return "```\n" + "\n".join([*questions, *(f"-> {answer!r}" for answer in answers)]) + "\n```"
