"""`fireside version`."""

from __future__ import annotations

import json
import platform
from importlib.metadata import PackageNotFoundError
from importlib.metadata import version as installed_version
from typing import Annotated

import typer

from fireside import __version__


def version(as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False) -> None:
    """Print the versions of Fireside, Python and PyTorch."""
    versions = {"fireside": __version__, "python": platform.python_version(), "torch": _torch_version()}
    if as_json:
        typer.echo(json.dumps(versions))
    else:
        for name, number in versions.items():
            typer.echo(f"{name} {number or 'is not installed'}")


def _torch_version() -> str | None:
    try:
        return installed_version("torch")  # from its metadata: importing it takes seconds
    except PackageNotFoundError:
        return None
