"""The errors that a person meets. Each says what was wrong, where, and what to do."""

from __future__ import annotations


class FiresideError(Exception):
    """Something a person can act on. The message is one sentence fit to be shown without a traceback.

    `exit_code` is what a command exits with when the error ends it.
    """

    exit_code = 1


class ModelError(FiresideError):
    """Weights, config, tokenizer or template cannot be used: damaged, unsupported or missing."""


class SettingsError(FiresideError):
    """A setting is unknown, of the wrong type or out of range."""

    exit_code = 2


class RecipeError(FiresideError):
    """A recipe is not valid TOML, has an unknown key, or a value that cannot be."""

    exit_code = 2


class RunError(FiresideError):
    """A training run cannot begin, go on, or be read."""


class DivergedError(RunError):
    """The loss is no longer a finite number."""

    exit_code = 3


class OutOfMemoryError(RunError):
    """A recipe would need more memory than the machine has."""

    exit_code = 4
