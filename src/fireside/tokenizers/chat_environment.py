"""The Jinja that chat templates are written in: Hugging Face's conventions, inside a sandbox with bounds.

A template comes with the model, from whoever published it. Jinja's sandbox keeps it from the interpreter; the bounds
here keep it from running or growing without end: loop passes and calls draw on one budget per rendering, and no
string outgrows `MAX_TEXT`.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sized
from contextvars import ContextVar
from datetime import datetime
from typing import Any, NoReturn

import jinja2
from jinja2 import nodes
from jinja2.exceptions import SecurityError
from jinja2.ext import Extension, loopcontrols
from jinja2.parser import Parser
from jinja2.runtime import Context
from jinja2.sandbox import ImmutableSandboxedEnvironment
from jinja2.utils import Namespace
from jinja2.visitor import NodeTransformer

MAX_TEXT = 1 << 25  # characters, of the output and of any string on the way to it
MAX_STEPS = 2_000_000  # passes of loops: a second or two
CALL_STEPS = 5  # what a call costs of them
WIDE_FORMAT = re.compile(r"%[^a-zA-Z%]*(\*|\d{5})")


class RefusedByTemplate(jinja2.TemplateError):
    """`raise_exception(message)` in a template: it cannot render this conversation, and says why."""


class _Budget:
    def __init__(self) -> None:
        self.steps = MAX_STEPS

    def spend(self, steps: int) -> None:
        self.steps -= steps
        if self.steps < 0:
            raise SecurityError(f"it takes more than {MAX_STEPS:,} steps")


_budget: ContextVar[_Budget] = ContextVar("chat template budget")


def render_bounded(template: jinja2.Template, variables: Mapping[str, Any]) -> str:
    """Render a template of `ChatEnvironment`. Raises whatever the template provokes, `SecurityError` for a bound."""
    token = _budget.set(_Budget())
    try:
        pieces: list[str] = []
        size = 0
        for piece in template.generate(variables):
            size += len(piece)
            _check_size(size)
            pieces.append(piece)
        return "".join(pieces)
    finally:
        _budget.reset(token)


class ChatEnvironment(ImmutableSandboxedEnvironment):
    """Jinja as `transformers` sets it up for chat templates, with bounds."""

    intercepted_binops = frozenset({"+", "*", "**", "%"})

    def __init__(self) -> None:
        super().__init__(trim_blocks=True, lstrip_blocks=True, extensions=[_Generation, loopcontrols])
        self.filters["tojson"] = _tojson
        self.filters["bounded_loop"] = _bounded_loop
        self.filters["bounded_concat"] = _bounded_concat
        del self.filters["center"]  # no template pads to a width, and a width can be anything
        del self.globals["lipsum"]
        self.globals |= {
            "raise_exception": _raise_exception,
            "strftime_now": _strftime_now,
            "namespace": _Namespace,
            "dict": lambda *args, **kwargs: dict(*args, **kwargs),  # the type itself has attributes to climb
        }

    def _parse(self, source: str, name: str | None, filename: str | None) -> nodes.Template:
        bounded: nodes.Template = _Bound().visit(super()._parse(source, name, filename))
        return bounded

    def call(self, context: Context, obj: Any, /, *args: Any, **kwargs: Any) -> Any:
        _spend(CALL_STEPS)
        if any(type(value) is int and value > MAX_TEXT for value in (*args, *kwargs.values())):
            raise SecurityError(f"it calls a function with a number above {MAX_TEXT:,}")
        result = super().call(context, obj, *args, **kwargs)
        if isinstance(result, str):
            _check_size(len(result))
        return result

    def call_binop(self, context: Context, operator: str, left: Any, right: Any) -> Any:
        if operator == "**" and (abs(left) > MAX_TEXT or abs(right) > 64):
            raise SecurityError("it raises to a power beyond the bounds")
        if operator == "%" and isinstance(left, str) and WIDE_FORMAT.search(left):
            raise SecurityError("it formats to a width beyond the bounds")
        if operator == "*":
            for sequence, times in ((left, right), (right, left)):
                if isinstance(sequence, str | list | tuple) and isinstance(times, int):
                    _check_size(len(sequence) * times)
        elif operator == "+" and isinstance(left, str) and isinstance(right, str):
            _check_size(len(left) + len(right))
        return super().call_binop(context, operator, left, right)


class _Generation(Extension):
    """`{% generation %}` marks the assistant's words for training; rendering passes over it."""

    tags = {"generation"}  # noqa: RUF012 - Jinja's own declaration

    def parse(self, parser: Parser) -> nodes.Node | list[nodes.Node]:
        line = next(parser.stream).lineno
        body = parser.parse_statements(("name:endgeneration",), drop_needle=True)
        return nodes.Scope(body, lineno=line)


class _Bound(NodeTransformer):
    """Puts the bounds on loops and on `~`, which Jinja offers no hook for."""

    def visit_For(self, node: nodes.For) -> nodes.Node:
        self.generic_visit(node)
        node.iter = _filter(node.iter, "bounded_loop")
        return node

    def visit_Concat(self, node: nodes.Concat) -> nodes.Node:
        self.generic_visit(node)
        return _filter(nodes.List(node.nodes, lineno=node.lineno), "bounded_concat")


def _filter(node: Any, name: str) -> nodes.Filter:
    return nodes.Filter(node, name, [], [], None, None, lineno=node.lineno, environment=node.environment)


@jinja2.pass_context  # which also keeps Jinja from evaluating it while compiling
def _bounded_loop(context: Context, items: Iterable[Any]) -> Iterable[Any]:
    if not isinstance(items, Sized):
        return _counted(items)
    _spend(len(items))
    return items


def _counted(items: Iterable[Any]) -> Iterator[Any]:
    for item in items:
        _spend(1)
        yield item


@jinja2.pass_context
def _bounded_concat(context: Context, values: list[Any]) -> str:
    texts = [str(value) for value in values]
    _check_size(sum(map(len, texts)))
    return "".join(texts)


def _spend(steps: int) -> None:
    _budget.get().spend(steps)


def _check_size(size: int) -> None:
    if size > MAX_TEXT:
        raise SecurityError(f"it makes a text longer than {MAX_TEXT:,} characters")


class _Namespace(Namespace):
    """`namespace(...)`, without names that reach into Python."""

    def __init__(*args: Any, **kwargs: Any) -> None:
        attributes = dict(*args[1:], **kwargs)
        for name in attributes:
            _check_name(name)
        Namespace.__init__(args[0], attributes)

    def __setitem__(self, name: str, value: Any) -> None:
        _check_name(name)
        super().__setitem__(name, value)


def _check_name(name: object) -> None:
    if not isinstance(name, str) or name.startswith("_"):
        raise SecurityError(f"a namespace holds no attribute named {name!r}")


def _tojson(
    value: Any,
    ensure_ascii: bool = False,
    indent: int | None = None,
    separators: tuple[str, str] | None = None,
    sort_keys: bool = False,
) -> str:
    """JSON as it is, without the escapes for HTML that Jinja's own filter adds."""
    if isinstance(indent, int):
        indent = min(indent, 16)
    return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)


def _strftime_now(format: str) -> str:
    return datetime.now().strftime(format)


def _raise_exception(message: str) -> NoReturn:
    raise RefusedByTemplate(message)
