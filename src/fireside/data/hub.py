"""Data sets of the Hugging Face hub: which commit, and its rows as a stream."""

from __future__ import annotations

import re
from collections.abc import Iterator

from fireside.data.config import HUGGING_FACE, SourceConfig
from fireside.data.documents import DataError
from fireside.data.files import Row

_COMMIT = re.compile(r"[0-9a-f]{40}")


def is_on_hub(config: SourceConfig) -> bool:
    return config.path.startswith(HUGGING_FACE)


def resolved(config: SourceConfig) -> SourceConfig:
    """The source with its revision (a branch or tag; none: the default branch) as the commit that it is now.

    Sources of files, and those that name a commit, are left as they are. Raises `DataError`.
    """
    if not is_on_hub(config) or _COMMIT.fullmatch(config.revision or ""):
        return config
    from huggingface_hub import HfApi

    name = config.path.removeprefix(HUGGING_FACE)
    try:
        commit = HfApi().dataset_info(name, revision=config.revision).sha
    except Exception as error:  # whatever the hub or the network bring
        raise DataError(f"source {config.name}: the dataset {name} cannot be found: {error}") from error
    return config.model_copy(update={"revision": commit})


def hub_rows(config: SourceConfig) -> Iterator[Row]:
    """Rows of a dataset, streamed: nothing is kept on disk. Raises `DataError`."""
    try:
        import datasets
    except ImportError as error:
        raise DataError(f"source {config.name} is a Hugging Face dataset: pip install datasets, to read it") from error
    name = config.path.removeprefix(HUGGING_FACE)
    try:
        rows = datasets.load_dataset(
            name, config.subset, split=config.hf_split, revision=config.revision, streaming=True
        )
        for number, row in enumerate(rows, start=1):
            yield f"{config.path}:{number}", row
    except Exception as error:  # whatever the hub, the network or the dataset's files bring
        raise DataError(f"source {config.name}: the dataset {name} cannot be read: {error}") from error
