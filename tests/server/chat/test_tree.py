"""Paths and branches, against a tree that is walked from its root."""

from __future__ import annotations

import time
from dataclasses import dataclass

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fireside.server.chat.tree import latest_leaf, path_to


@dataclass(frozen=True)
class Node:
    id: str
    parent_id: str | None


@st.composite
def trees(draw: st.DrawFn) -> list[Node]:
    """Every message's parent is an earlier one, or none."""
    nodes: list[Node] = []
    for index in range(draw(st.integers(1, 12))):
        parent = draw(st.integers(-1, index - 1))
        nodes.append(Node(f"{index:02}", None if parent < 0 else nodes[parent].id))
    return draw(st.permutations(nodes))


def paths(nodes: list[Node], parent_id: str | None = None) -> dict[str, list[Node]]:
    """The path to every node, from the root down."""
    found: dict[str, list[Node]] = {}
    for node in nodes:
        if node.parent_id == parent_id:
            found[node.id] = [node]
            found |= {below: [node, *path] for below, path in paths(nodes, node.id).items()}
    return found


@given(trees())
def test_paths(nodes: list[Node]) -> None:
    for node_id, path in paths(nodes).items():
        assert path_to(nodes, node_id) == path
    assert path_to(nodes, None) == []


@given(trees())
def test_the_latest_leaf(nodes: list[Node]) -> None:
    for node in nodes:
        below = [path[-1] for path in paths(nodes).values() if node in path]
        leaves = [leaf for leaf in below if all(other.parent_id != leaf.id for other in nodes)]
        assert latest_leaf(nodes, node.id) == max(leaf.id for leaf in leaves)


def test_many_branches_take_no_longer_than_one() -> None:
    """A conversation may have 20,000 messages: half of them one after the other, and the others at their end."""
    chain = [Node(f"{index:05}", f"{index - 1:05}" if index else None) for index in range(10_000)]
    ends = [Node(f"{index:05}", "09999") for index in range(10_000, 20_000)]
    begun = time.process_time()
    assert latest_leaf(chain + ends, "00000") == "19999"
    assert latest_leaf(chain + ends, "10000") == "10000"
    assert time.process_time() - begun < 2


def test_unknown_ids() -> None:
    with pytest.raises(KeyError):
        path_to([Node("a", None)], "b")
    with pytest.raises(KeyError):
        latest_leaf([Node("a", None)], "b")


def test_a_circle_is_no_endless_loop() -> None:
    with pytest.raises(KeyError):
        path_to([Node("a", "b"), Node("b", "a")], "a")
