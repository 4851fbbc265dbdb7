"""Typed reading of configuration that a stranger wrote. Free of torch."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from fireside.errors import ModelError


class Fields:
    """A mapping whose values are checked as they are read: a missing or mistyped one is a `ModelError` naming it.

    null counts as missing. `source` begins every message.
    """

    def __init__(self, values: Mapping[str, Any], source: str) -> None:
        self.values, self.source = values, source

    def integer(self, key: str, default: int | None = None) -> int:
        value = self._value(key, default)
        if isinstance(value, bool) or not isinstance(value, int):
            raise self._mistyped(key, value, "a whole number")
        return value

    def optional_integer(self, key: str) -> int | None:
        return None if self.values.get(key) is None else self.integer(key)

    def number(self, key: str, default: float | None = None) -> float:
        value = self._value(key, default)
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise self._mistyped(key, value, "a number")
        return float(value)

    def optional_number(self, key: str) -> float | None:
        return None if self.values.get(key) is None else self.number(key)

    def boolean(self, key: str, default: bool) -> bool:
        value = self._value(key, default)
        if not isinstance(value, bool):
            raise self._mistyped(key, value, "true or false")
        return value

    def text(self, key: str, default: str) -> str:
        value = self._value(key, default)
        if not isinstance(value, str):
            raise self._mistyped(key, value, "a text")
        return value

    def _value(self, key: str, default: Any) -> Any:
        value = self.values.get(key)
        value = default if value is None else value
        if value is None:
            raise ModelError(f"{self.source} has no {key}, which this kind of model needs")
        return value

    def _mistyped(self, key: str, value: Any, wanted: str) -> ModelError:
        return ModelError(f"{self.source}: {key} is {value!r}; it must be {wanted}")
