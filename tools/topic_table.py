# SPDX-License-Identifier: Apache-2.0
"""Compare the topics and services in a node's docstring with those of a running node.

A docstring has sections such as

    Publishers (reliable; metres in the optical frame):
        points (sensor_msgs/PointCloud2): the answers
        depth/image_rect (sensor_msgs/Image, 32FC1): the grid as a small depth image, which may
            take more lines
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from rclpy.node import Node
from rclpy.qos import DurabilityPolicy, HistoryPolicy, QoSProfile, ReliabilityPolicy

KINDS = {"Subscribers": "Subscribes", "Publishers": "Publishes", "Services": "Serves"}
"""Sections of docstrings, and their headings on the pages."""

_SECTION = re.compile(rf"({'|'.join(KINDS)})(?: \((.*)\))?:")
_ENTRY = re.compile(r"([\w/~]+(?:, [\w/~]+)*) \((\w+/\w+)(?:, ([^)]*))?\): (.+)")

_EVERY_NODE = ("lifecycle_msgs", "rcl_interfaces", "type_description_interfaces")
"""Packages of the topics and services that every ROS node has."""

_CONDITIONAL = {
    ("Subscribers", "/tf"): "tf2_ros",
    ("Subscribers", "/tf_static"): "tf2_ros",
    ("Subscribers", "detections"): "vision_msgs",
    ("Publishers", "objects/detections"): "vision_msgs",
    ("Publishers", "objects/markers"): "vision_msgs",
}
"""Topics that exist only with another package, by kind and name. The pages always list them."""


class DocumentationError(Exception):
    """A docstring that does not match its node."""


@dataclass(frozen=True)
class Documented:
    """A topic or a service in a docstring: names of one kind (a key of `KINDS`) and type."""

    kind: str
    name: str
    type: str
    text: str


@dataclass(frozen=True)
class Section:
    """A section of a docstring: its kind, a note on all entries, and the entries."""

    kind: str
    note: str
    entries: list[Documented]


@dataclass(frozen=True)
class Existing:
    """A topic or a service of a running node: its type, and its QoS in words."""

    type: str
    qos: str


def documented_sections(node_class: type[Node]) -> list[Section]:
    """Parse the sections of a node's docstring about topics and services.

    Raises:
        DocumentationError: if a line is no entry; it names the node and the line.
    """
    sections: list[Section] = []
    for lines in _paragraphs(inspect.getdoc(node_class) or ""):
        if not (heading := _SECTION.fullmatch(lines[0])):
            continue
        kind, note = heading.groups()
        entries: list[str] = []
        for line in lines[1:]:
            if line.startswith(" " * 8):
                entries[-1] += f" {line.strip()}"
            else:
                entries.append(line.strip())
        parsed = [entry for text in entries for entry in _parsed(node_class, kind, text)]
        sections.append(Section(kind, note or "", parsed))
    if not sections:
        raise DocumentationError(
            f"{node_class.__name__}: its docstring has none of {', '.join(KINDS)}"
        )
    return sections


def summary(node_class: type[Node]) -> str:
    """Return the first paragraph of a node's docstring, in one line."""
    return " ".join(next(_paragraphs(inspect.getdoc(node_class) or "")))


def existing_interfaces(node: Node) -> dict[tuple[str, str], Existing]:
    """Return a node's topics and services, by kind and by name as in docstrings.

    Those of every node are left out: parameter and lifecycle services, /rosout and the like.
    """
    endpoints = [
        *(("Subscribers", s.topic_name, s.msg_type, s.qos_profile) for s in node.subscriptions),
        *(("Publishers", p.topic_name, p.msg_type, p.qos_profile) for p in node.publishers),
        *(("Services", s.service_name, s.srv_type, None) for s in node.services),
    ]
    result = {}
    for kind, name, interface, qos in endpoints:
        package = interface.__module__.split(".")[0]
        if package not in _EVERY_NODE:
            type_name = f"{package}/{interface.__name__}"
            result[kind, _written(node, name)] = Existing(type_name, _words(qos) if qos else "")
    return result


def topic_tables(node_class: type[Node], existing: dict[tuple[str, str], Existing]) -> str:
    """Return a Markdown table for each section of a node's docstring.

    Args:
        node_class: of the node.
        existing: topics and services of a running node.

    Raises:
        DocumentationError: if the docstring and the node differ.
    """
    sections = documented_sections(node_class)
    check(node_class.__name__, [e for section in sections for e in section.entries], existing)
    return "\n\n".join(_table(section, existing) for section in sections)


def check(
    node: str, documented: Iterable[Documented], existing: dict[tuple[str, str], Existing]
) -> None:
    """Compare documented topics and services with existing ones.

    Raises:
        DocumentationError: with every difference: undocumented, missing, of another type.
    """
    by_key = {(entry.kind, entry.name): entry for entry in documented}
    faults = [
        f"{kind} {name} ({existing[kind, name].type}) is not documented"
        for kind, name in existing
        if (kind, name) not in by_key
    ]
    for (kind, name), entry in by_key.items():
        if real := existing.get((kind, name)):
            if real.type != entry.type:
                faults.append(f"{kind} {name} is {real.type}, documented as {entry.type}")
        elif (kind, name) not in _CONDITIONAL:
            faults.append(f"{kind} {name} is documented and does not exist")
    if faults:
        raise DocumentationError(f"{node}: {'; '.join(faults)}")


def _paragraphs(text: str) -> Iterator[list[str]]:
    for paragraph in re.split(r"\n\s*\n", text):
        yield paragraph.splitlines()


def _parsed(node_class: type[Node], kind: str, text: str) -> list[Documented]:
    match = _ENTRY.fullmatch(text)
    if not match:
        raise DocumentationError(
            f"{node_class.__name__}: {text!r} does not read 'topic (package/Type): what it is'"
        )
    names, type_name, form, description = match.groups()
    if form:
        description = f"{form}: {description}"
    return [Documented(kind, name, type_name, description) for name in names.split(", ")]


def _written(node: Node, name: str) -> str:
    """Shorten a full name as docstrings do: relative to the namespace, `~` for the node."""
    own, namespace = f"{node.get_fully_qualified_name()}/", f"{node.get_namespace()}/"
    if name.startswith(own):
        return f"~/{name.removeprefix(own)}"
    return name.removeprefix(namespace)


def _words(qos: QoSProfile) -> str:
    words = ["best effort" if qos.reliability == ReliabilityPolicy.BEST_EFFORT else "reliable"]
    if qos.durability == DurabilityPolicy.TRANSIENT_LOCAL:
        words.append("transient local")
    words.append("keep all" if qos.history == HistoryPolicy.KEEP_ALL else f"depth {qos.depth}")
    return ", ".join(words)


def _table(section: Section, existing: dict[tuple[str, str], Existing]) -> str:
    heading = f"**{KINDS[section.kind]}**" + (f" ({section.note})" if section.note else "")
    if section.kind == "Services":
        rows = [f"| `{e.name}` | {e.type} | {e.text} |" for e in section.entries]
        return "\n".join([heading, "", "| service | type | |", "|---|---|---|", *rows])
    rows = []
    for entry in section.entries:
        package = _CONDITIONAL.get((entry.kind, entry.name))
        qos = existing[entry.kind, entry.name].qos if not package else f"with {package}"
        rows.append(f"| `{entry.name}` | {entry.type} | {qos} | {entry.text} |")
    return "\n".join([heading, "", "| topic | type | QoS | |", "|---|---|---|---|", *rows])
