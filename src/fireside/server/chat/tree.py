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
    nodes = list(nodes)
    if all(node.id != node_id for node in nodes):
        raise KeyError(node_id)
    parents = {node.parent_id for node in nodes}
    by_id = {node.id: node for node in nodes}
    leaves = sorted((node.id for node in nodes if node.id not in parents), reverse=True)
    return next(leaf for leaf in leaves if _is_below(by_id, leaf, node_id))


def _is_below(by_id: dict[str, N], node_id: str | None, ancestor_id: str) -> bool:
    while node_id is not None and node_id != ancestor_id:
        node_id = by_id[node_id].parent_id
    return node_id is not None
