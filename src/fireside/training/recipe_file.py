"""Reading recipes: TOML, overrides on the command line, and errors that name the key and the nearest known one."""

from __future__ import annotations

import difflib
import json
import tomllib
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from types import UnionType
from typing import Any, Union, get_args, get_origin

from pydantic import BaseModel, ValidationError

from fireside.data.config import anchor_paths
from fireside.errors import RecipeError
from fireside.training.recipe import Recipe, TrainingConfig

SHARED = "training"  # the table whose values every stage takes
_STAGES = ("pretrain", "sft")
_BUDGETS = {"tokens": "epochs", "epochs": "tokens"}  # each says how long to train: the later word replaces the other


def load_recipe(path: Path, overrides: Sequence[str] = ()) -> Recipe:
    """The recipe in the TOML file `path`, with `overrides` such as "training.lr=3e-4" laid over it.

    Paths of data (sources, evaluation files, a classifier) are taken from the recipe's own folder. Raises
    `RecipeError` naming file and key.
    """
    try:
        raw = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise RecipeError(f"{path} cannot be read: {error}") from error
    except tomllib.TOMLDecodeError as error:
        raise RecipeError(f"{path} is not valid TOML: {error}") from error
    return recipe_from_values(raw, overrides, source=str(path), folder=path.absolute().parent)


def recipe_from_values(raw: dict[str, Any], overrides: Sequence[str], *, source: str, folder: Path) -> Recipe:
    """A recipe from the values of a TOML file, which it changes. source begins every error; folder is where relative
    paths begin. Raises `RecipeError`."""
    for override in overrides:
        _apply(raw, override)
    _share(raw, overrides, source)
    _anchor(raw, folder)
    return parse_recipe(raw, source)


def parse_recipe(raw: Any, source: str) -> Recipe:
    """A recipe from its parsed form. Raises `RecipeError`, beginning with `source`."""
    try:
        return Recipe.model_validate(raw)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"]))
        if first["type"] == "extra_forbidden":
            key = str(first["loc"][-1])
            known = _keys_at(Recipe, first["loc"][:-1])
            raise RecipeError(f"{source}: {where} is not a key of a recipe{_nearest(key, known)}") from None
        reason = first["msg"].removeprefix("Value error, ")
        shown = f", not {first['input']!r}" if isinstance(first["input"], str | int | float) else ""
        raise RecipeError(f"{source}: {where + ': ' if where else ''}{reason}{shown}") from None


def recipe_to_json(recipe: Recipe) -> str:
    """The recipe with every value it has, to be read again by `parse_recipe`."""
    return json.dumps(recipe.model_dump(mode="json"), indent=2, ensure_ascii=False) + "\n"


def differences(old: Any, new: Any, path: str = "") -> list[str]:
    """Where two parsed recipes differ: "sft.lr was 0.001 and is 0.002"."""
    if isinstance(old, dict) and isinstance(new, dict):
        keys = list(dict.fromkeys([*old, *new]))
        return [line for key in keys for line in differences(old.get(key), new.get(key), f"{path}.{key}".lstrip("."))]
    if isinstance(old, list) and isinstance(new, list) and len(old) == len(new):
        pairs = enumerate(zip(old, new, strict=True))
        return [line for index, (a, b) in pairs for line in differences(a, b, f"{path}.{index}")]
    return [] if old == new else [f"{path} was {old!r} and is {new!r}"]


def flat(values: Any, path: str = "") -> dict[str, Any]:
    """The values of tables within tables by their whole keys, as overrides name them: "sft.data.sources.0.path"."""
    if isinstance(values, dict):
        inner = values.items()
    elif isinstance(values, list) and any(isinstance(value, dict) for value in values):
        inner = {str(index): value for index, value in enumerate(values)}.items()
    else:
        return {path: values}
    return {key: value for name, below in inner for key, value in flat(below, f"{path}.{name}".lstrip(".")).items()}


def _apply(raw: dict[str, Any], override: str) -> None:
    key, equals, text = override.partition("=")
    if not equals or not key:
        raise RecipeError(f"{override!r} is not an override: write key=value, as in training.lr=3e-4")
    try:
        value = tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        value = text  # a bare word is a text, so that shells' quotes are enough
    *path, last = key.split(".")
    target: Any = raw
    for part in path:
        target = _child(target, part, override)
    if isinstance(target, list):
        target[_index(target, last, override)] = value
    elif isinstance(target, dict):
        target[last] = value
        target.pop(_BUDGETS.get(last, ""), None)
    else:
        raise RecipeError(f"{override!r}: {'.'.join(path)} is not a table")


def _child(target: Any, part: str, override: str) -> Any:
    if isinstance(target, dict):
        return target.setdefault(part, {})
    if isinstance(target, list):
        return target[_index(target, part, override)]
    raise RecipeError(f"{override!r}: there is no table above {part}")


def _index(items: list[Any], part: str, override: str) -> int:
    if not part.isdecimal() or int(part) >= len(items):
        raise RecipeError(f"{override!r}: {part} is not the number of one of {len(items)} entries, counted from 0")
    return int(part)


def _share(raw: dict[str, Any], overrides: Iterable[str], source: str) -> None:
    """Moves `[training]` into the stages that do not say otherwise."""
    shared = raw.pop(SHARED, {})
    if not isinstance(shared, dict):
        raise RecipeError(f"{source}: training must be a table")
    for key in shared:
        if key not in TrainingConfig.model_fields:
            known = _nearest(key, TrainingConfig.model_fields)
            raise RecipeError(f"{source}: {SHARED}.{key} is not a key of a recipe{known}")
    stages = [raw[name] for name in _STAGES if isinstance(raw.get(name), dict)]
    for override in overrides:
        table, _, key = override.partition("=")[0].partition(".")
        if table == SHARED and stages and all(key in stage for stage in stages):
            raise RecipeError(
                f"{override!r} has no effect: every stage sets {key} itself; override {_STAGES[-1]}.{key}"
            )
    for stage in stages:
        for key, value in shared.items():
            if _BUDGETS.get(key, "") not in stage:
                stage.setdefault(key, value)


def _anchor(raw: dict[str, Any], folder: Path) -> None:
    for name in _STAGES:
        stage = raw.get(name)
        if isinstance(stage, dict):
            anchor_paths(stage.get("data"), folder)


def _keys_at(model: type[BaseModel], location: Sequence[int | str]) -> list[str]:
    """The keys of the table at `location` below `model`."""
    for part in location:
        if isinstance(part, int):
            continue
        field = model.model_fields.get(part)
        inner = next(_models(field.annotation), None) if field else None
        if inner is None:
            return []
        model = inner
    return list(model.model_fields)


def _models(annotation: Any) -> Iterator[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    elif get_origin(annotation) in (Union, UnionType, tuple, list):
        for argument in get_args(annotation):
            yield from _models(argument)


def _nearest(key: str, known: Iterable[str]) -> str:
    names = sorted(known)
    nearest = difflib.get_close_matches(key, names, n=1, cutoff=0.5)
    return f"; did you mean {nearest[0]}?" if nearest else f"; known: {', '.join(names)}"
