"""A tree out of what an export says of it: links to nowhere, circles and nodes without a message included."""

from __future__ import annotations

import heapq
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from fireside.server.moving.parsed import MAX_MESSAGES, Message, Notes, Reason


class TooManyMessages(ValueError):
    pass


@dataclass
class Node:
    """message: None for one that is only passed through. children: in which order, where the export says so."""

    parent: str | None
    message: Message | None
    children: Sequence[str] = ()


def ordered(nodes: Mapping[str, Node], notes: Notes, *, by_time: bool = True) -> list[Message]:
    """The messages, each behind its parent and otherwise by their times; parents are the nearest ones with a message.

    Siblings without times, and all if not `by_time`, stay in the order of the export. Raises `TooManyMessages`.
    """
    if len(nodes) > 2 * MAX_MESSAGES or sum(node.message is not None for node in nodes.values()) > MAX_MESSAGES:
        raise TooManyMessages
    parents = _parents(nodes, notes)
    children: dict[str | None, list[str]] = {}
    for key, parent in parents.items():
        children.setdefault(parent, []).append(key)
    for parent, keys in children.items():
        if parent is not None and nodes[parent].children:
            places = {key: place for place, key in enumerate(nodes[parent].children)}
            keys.sort(key=lambda key: places.get(key, len(places)))
    ranks = {
        key: _stamp(node.message.created_at if node.message else None) if by_time else float(place)
        for place, (key, node) in enumerate(nodes.items())
    }
    reached: set[str] = set()
    messages: list[Message] = []
    _walk(nodes, children, ranks, children.get(None, []), reached, messages)
    for key in nodes:  # what is not reached is in a circle, or hangs on one: it is cut open where it is met first
        if key not in reached:
            notes.add(Reason.CIRCLE)
            _walk(nodes, children, ranks, [key], reached, messages)
    return messages


def nearest(nodes: Mapping[str, Node], key: object) -> str | None:
    """The source_id of the nearest message, from the node `key` on upwards: what was shown may be left out here."""
    seen: set[object] = set()
    while isinstance(key, str) and key in nodes and key not in seen:
        seen.add(key)
        if (message := nodes[key].message) is not None:
            return message.source_id
        key = nodes[key].parent
    return None


def _parents(nodes: Mapping[str, Node], notes: Notes) -> dict[str, str | None]:
    """By both directions that exports know: a node that names no parent may be named as a child."""
    claimed = {child: key for key, node in nodes.items() for child in node.children}
    parents: dict[str, str | None] = {}
    for key, node in nodes.items():
        parent = node.parent if node.parent is not None else claimed.get(key)
        if parent is not None and parent not in nodes:
            if node.message is not None:
                notes.add(Reason.NO_PARENT)
            parent = None
        parents[key] = parent
    return parents


def _walk(
    nodes: Mapping[str, Node],
    children: Mapping[str | None, list[str]],
    ranks: Mapping[str, float],
    roots: Sequence[str],
    reached: set[str],
    messages: list[Message],
) -> None:
    """Appends what is below `roots`. A queue by rank, in which nothing stands before its parent."""
    queue: list[tuple[float, int, str, str | None]] = []
    count = 0

    def add(keys: Sequence[str], earliest: float, above: str | None) -> None:
        nonlocal count
        for key in keys:
            if key in reached:
                continue
            reached.add(key)
            heapq.heappush(queue, (max(earliest, ranks[key]), count, key, above))
            count += 1

    add(roots, 0, None)
    while queue:
        rank, _, key, above = heapq.heappop(queue)
        message = nodes[key].message
        if message is not None:
            message.parent = above
            messages.append(message)
            above = message.source_id
        add(children.get(key, ()), rank, above)


def _stamp(time: datetime | None) -> float:
    return time.timestamp() if time else 0.0
