"""What has to be there before a model can be run: its files, and our folders."""

from __future__ import annotations

from fireside.models.catalog import CATALOG
from fireside.models.fetching import storage_error
from fireside.models.local import DEFAULT_ALIAS, LocalModel, resolve_model
from fireside.settings import Settings


def find_or_fetch(name_or_path: str, settings: Settings) -> LocalModel:
    """The model, fetched first if the catalog has it and this machine has not. Raises `ModelError`."""
    wanted = settings.model if name_or_path == DEFAULT_ALIAS else name_or_path
    if wanted in CATALOG and not (settings.models_dir / wanted).exists():
        from fireside.cli.fetching import fetch  # with the progress bar and the HTTP client, for the first time only

        return fetch(wanted, settings)
    return resolve_model(wanted, settings)


def prepare_home(settings: Settings) -> None:
    """Makes the folders that a running engine writes to. Raises `StorageError` in one sentence."""
    try:
        settings.logs_dir.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise storage_error(error, settings.home) from error
