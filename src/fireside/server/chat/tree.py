"""A conversation as a tree: every message names the one before it, and an edit is one more child of the same parent.

Pure functions over nodes in any order; later ids are later messages.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Protocol, TypeVar


class Node(Protocol):
    @property
    def id(self) -> str: ...

    @property
    def parent_id(self) -> str | None: ...


N = TypeVar("N", bound=Node)


def path_to(nodes: Iterable[N], leaf_id: str | None) -> list[N]:
    """From the first message to `leaf_id`, both included; empty for None. Raises KeyError for an unknown id."""
    by_id = {node.id: node for node in nodes}
    path: list[N] = []
    while leaf_id is not None:
        node = by_id.pop(leaf_id)  # popped, so that a circle in damaged data is an error and not an endless loop
        path.append(node)
        leaf_id = node.parent_id
    return path[::-1]


def latest_leaf(nodes: Iterable[N], node_id: str) -> str:
    """The end of the branch that was last written below `node_id`: what to show when somebody turns to it.

    Raises KeyError for an unknown id.
    """
    children: dict[str | None, list[str]] = {}
    is_known = False
    for node in nodes:
        children.setdefault(node.parent_id, []).append(node.id)
        is_known = is_known or node.id == node_id
    if not is_known:
        raise KeyError(node_id)
    latest, below = "", [node_id]
    while below:
        at = below.pop()
        # Popped, so that a circle in damaged data ends as well.
        if further := children.pop(at, None):
            below += further
        else:
            latest = max(latest, at)
    return latest
