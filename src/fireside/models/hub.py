"""Models from the Hugging Face hub (or a mirror of it: `HF_ENDPOINT`), with resume and the hub's own checksums.

Since version 2, `hf_hub_download` throws away what it had when its process ends. A model is too large for that, so
the transfer is driven here, over the library's session and authentication.
"""

from __future__ import annotations

import logging
import re
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import httpx2
from huggingface_hub import HfApi, ModelInfo, get_session, hf_hub_url, hf_raise_for_status
from huggingface_hub.errors import (
    GatedRepoError,
    HfHubHTTPError,
    HFValidationError,
    OfflineModeIsEnabled,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)
from huggingface_hub.utils import build_hf_headers  # type: ignore[attr-defined]  # documented, yet not in its types
from huggingface_hub.utils import logging as hub_logging

from fireside import __version__
from fireside.models.catalog import HubSource
from fireside.models.config import config_from_hf
from fireside.models.fetching import (
    CONNECT_TIMEOUT,
    PullObserver,
    SourceFailed,
    format_bytes,
    git_blob_sha1_of,
    require_space,
    sha256_of,
    storage_error,
)
from fireside.models.json_file import read_json

# Everything a model is, and nothing that could run: no pickles, no Python.
_SMALL_FILES = frozenset(
    {
        "config.json",
        "generation_config.json",
        "tokenizer.json",
        "tokenizer_config.json",
        "special_tokens_map.json",
        "chat_template.jinja",
        "chat_template.json",
        "model.safetensors.index.json",
    }
)

_CHECKSUM = re.compile(r"[0-9a-f]{40}|[0-9a-f]{64}")  # it becomes a file's name, so that nothing else may be one

_READ_TIMEOUT = 30.0  # seconds without a byte after which a transfer counts as broken
_BARREN_ATTEMPTS = 4  # in a row that gave nothing, after which the hub counts as failed


@dataclass(frozen=True)
class HubFile:
    """A file of a repository. `sha256` is known for large files, `git_sha1` (of the git blob) for the others."""

    name: str
    size: int
    sha256: str | None
    git_sha1: str | None

    @property
    def local_name(self) -> str:
        """Flat: no name leads out of the model's folder."""
        return PurePosixPath(self.name).name

    @property
    def checksum(self) -> str:
        return self.sha256 or self.git_sha1 or ""

    def matches(self, path: Path) -> bool:
        if path.stat().st_size != self.size:
            return False
        return sha256_of(path) == self.sha256 if self.sha256 else git_blob_sha1_of(path) == self.git_sha1


@dataclass(frozen=True)
class HubModel:
    """What a source resolved to. `commit` pins it: every file comes from the same state of the repository."""

    commit: str
    license: str | None
    files: tuple[HubFile, ...]


def resolve(source: HubSource) -> HubModel:
    """Asks the hub which files `source` means. Raises `SourceFailed` with the reason in one line."""
    hub_logging.set_verbosity(logging.ERROR)  # its warnings would tear the progress bar; what matters is raised
    try:
        info = HfApi(library_name="fireside", library_version=__version__).model_info(
            source.repository, revision=source.revision, files_metadata=True, timeout=CONNECT_TIMEOUT
        )
    except (httpx2.HTTPError, OSError, HFValidationError) as error:
        raise SourceFailed(_reason(error, source)) from error
    files = _select(info, source)
    for file in files:
        if not _CHECKSUM.fullmatch(file.checksum):
            raise SourceFailed(f"{file.name}: the hub gives no checksum to hold it against ({file.checksum!r:.80})")
    return HubModel(commit=info.sha or source.revision, license=_license(info), files=tuple(files))


def fetch(source: HubSource, model: HubModel, files: Path, parts: Path, observer: PullObserver) -> None:
    """Downloads what `resolve` found into `files`; unfinished files wait in `parts` for the next attempt.

    Raises `SourceFailed`, `StorageError`, or `ModelError` if the config says that the model is not supported, which
    is known before its weights are fetched.
    """
    total = sum(file.size for file in model.files)
    present = sum(path.stat().st_size for folder in (files, parts) for path in folder.iterdir() if path.is_file())
    require_space(files, max(0, total - present))
    done = 0
    for file in model.files:
        target = files / file.local_name
        if not (target.is_file() and file.matches(target)):
            target.unlink(missing_ok=True)

            def report(position: int, before: int = done) -> None:
                observer.progress(before + position, total)

            _download(source, model.commit, file, target, parts, report)
        done += file.size
        observer.progress(done, total)
        if file.name == "config.json":
            config_from_hf(read_json(target), f"{source}: config.json")


def _select(info: ModelInfo, source: HubSource) -> list[HubFile]:
    """The files to fetch, small ones first, so that an unsupported config ends the pull before the weights begin."""
    found = {
        sibling.rfilename: HubFile(
            name=sibling.rfilename,
            size=(sibling.lfs.size if sibling.lfs else sibling.size) or 0,
            sha256=sibling.lfs.sha256 if sibling.lfs else None,
            git_sha1=sibling.blob_id,
        )
        for sibling in info.siblings or ()
    }
    if source.file is not None:
        if source.file not in found:
            raise SourceFailed(f"{source.repository} has no file {source.file}{_known_ggufs(found)}")
        return [found[source.file]]
    weights = [
        file
        for name, file in found.items()
        # Mistral's repositories hold the weights a second time, as consolidated*.safetensors.
        if name == "model.safetensors" or re.fullmatch(r"model-[^/]+\.safetensors", name)
    ]
    if weights:
        for needed in ("config.json", "tokenizer.json"):
            if needed not in found:
                raise SourceFailed(f"{source.repository} has no {needed}, without which its weights cannot be used")
        small = [file for name, file in found.items() if name in _SMALL_FILES]
        return [*sorted(small, key=lambda file: file.name), *sorted(weights, key=lambda file: file.name)]
    ggufs = [file for name, file in found.items() if name.endswith(".gguf") and "/" not in name]
    if len(ggufs) == 1:
        return ggufs
    if ggufs:
        raise SourceFailed(f"{source.repository} holds several GGUF files{_known_ggufs(found)}")
    pickles = sorted(name for name in found if name.endswith((".bin", ".pt", ".pth")))
    if pickles:
        raise SourceFailed(
            f"{source.repository} holds its weights as pickles only ({pickles[0]}), which can run code when they are "
            "loaded; Fireside loads safetensors and GGUF"
        )
    raise SourceFailed(f"{source.repository} holds no model: no model.safetensors and no .gguf file")


def _known_ggufs(names: Iterable[str]) -> str:
    ggufs = sorted(name for name in names if name.endswith(".gguf"))
    return f"; name one as hf:OWNER/REPO/FILE: {', '.join(ggufs)}" if ggufs else ""


def _license(info: ModelInfo) -> str | None:
    for tag in info.tags or ():
        if tag.startswith("license:"):
            return tag.removeprefix("license:")
    return None


def _download(
    source: HubSource, commit: str, file: HubFile, target: Path, parts: Path, report: Callable[[int], None]
) -> None:
    part = parts / f"{file.checksum}.part"  # named by content: a file that changed begins anew
    try:
        try:
            _transfer(hf_hub_url(source.repository, file.name, revision=commit), file.size, part, report)
        except (httpx2.HTTPError, OfflineModeIsEnabled) as error:
            raise SourceFailed(f"{file.name}: {_reason(error, source)}{_kept(part)}") from error
        if not file.matches(part):
            part.unlink()
            raise SourceFailed(f"{file.name} arrived damaged: its sum is not the one that the hub names")
        part.replace(target)
    except OSError as error:
        raise storage_error(error, target) from error


def _transfer(url: str, size: int, part: Path, report: Callable[[int], None]) -> None:
    """Appends to `part` until it is `size` bytes long, through as many broken connections as give something each.

    Raises `httpx2.HTTPError` once `_BARREN_ATTEMPTS` in a row gave nothing.
    """
    headers = build_hf_headers(library_name="fireside", library_version=__version__)
    headers["Accept-Encoding"] = "identity"  # an offset into compressed data would mean nothing
    barren = 0
    part.touch()
    while (start := part.stat().st_size) < size:
        report(start)
        if start:
            headers["Range"] = f"bytes={start}-"
        failure: httpx2.TransportError = httpx2.RemoteProtocolError("the transfer ended early")
        try:
            with (
                get_session().stream("GET", url, headers=headers, timeout=_READ_TIMEOUT) as response,
                part.open("ab") as writer,
            ):
                hf_raise_for_status(response)
                if start and response.status_code != httpx2.codes.PARTIAL_CONTENT:
                    writer.truncate(0)  # the server does not know ranges and begins anew
                for chunk in response.iter_bytes():
                    writer.write(chunk)
                    report(writer.tell())
        except httpx2.TransportError as error:
            failure = error
        barren = 0 if part.stat().st_size > start else barren + 1
        if barren == _BARREN_ATTEMPTS:
            raise failure
        if barren:
            time.sleep(2.0 ** (barren - 1))


def _kept(part: Path) -> str:
    size = part.stat().st_size
    return f"; the {format_bytes(size)} that are here are kept for the next attempt" if size else ""


def _reason(error: Exception, source: HubSource) -> str:
    if isinstance(error, GatedRepoError):
        return (
            f"{source.repository} asks you to accept its licence on its page, then to identify yourself: "
            "set HF_TOKEN, or run hf auth login"
        )
    if isinstance(error, RepositoryNotFoundError):
        return f"the hub has no repository {source.repository}, or it is private (then set HF_TOKEN)"
    if isinstance(error, RevisionNotFoundError):
        return f"{source.repository} has no revision {source.revision}"
    if isinstance(error, OfflineModeIsEnabled):
        return "HF_HUB_OFFLINE is set"
    if isinstance(error, HfHubHTTPError):
        return f"the hub answered {error.response.status_code} {error.response.reason_phrase}".rstrip()
    if isinstance(error, httpx2.TimeoutException):
        return "the hub does not answer"
    if isinstance(error, httpx2.HTTPError):
        return f"the hub cannot be reached ({str(error) or type(error).__name__})"
    return str(error).splitlines()[0] if str(error) else type(error).__name__
