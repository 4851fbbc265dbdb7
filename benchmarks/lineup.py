"""Who is compared: our engine and the peers found installed, each started as a process of its own.

Peers live in a virtual environment of their own (`make peers`): what they need must not decide what we run on.
"""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.contenders.protocol import Generation, Options

from fireside.models.local import LocalModel

ROOT = Path(__file__).resolve().parent.parent
OURS = "fireside"
_DISTRIBUTIONS = ("transformers", "llama-cpp-python", "openvino-genai")
_REQUANTIZER = "llama-cpp-python"
# Name, script, distribution, and the type that it has its fastest kernels for.
_GGUF_PEERS = (
    ("llama.cpp", "llamacpp", "llama-cpp-python", "Q4_0"),
    ("openvino", "openvino_pipeline", "openvino-genai", "Q8_0"),
)
_ASK_FOR_VERSIONS = f"""
import json
from importlib.metadata import PackageNotFoundError, version
found = {{}}
for name in {_DISTRIBUTIONS!r}:
    try:
        found[name] = version(name)
    except PackageNotFoundError:
        pass
print(json.dumps(found))
"""


class ContenderError(Exception):
    """A contender's process has ended where it should have answered; the message is the last that it said."""


@dataclass(frozen=True)
class Entry:
    """One line of the comparison. `weights`: the type they are stored in, for the reader."""

    name: str
    script: str
    python: str
    model: Path
    weights: str


class Child:
    """A contender's process, which answers with `Generation`s (contenders/protocol.py)."""

    def __init__(self, entry: Entry, threads: int) -> None:
        """Returns once the model is loaded."""
        self._log = tempfile.TemporaryFile("w+")  # noqa: SIM115 - `close` closes it
        environment = os.environ | {"OMP_NUM_THREADS": str(threads)}
        self._process = subprocess.Popen(
            [entry.python, "-m", f"benchmarks.contenders.{entry.script}"], cwd=ROOT, env=environment,
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self._log, text=True, bufsize=1,
        )  # fmt: skip
        try:
            self.about: dict[str, Any] = self._ask(vars(Options(str(entry.model), threads)))
        except BaseException:
            self.close()
            raise

    def generate(self, prompts: list[list[int]], max_tokens: int) -> Generation:
        """Greedy and without end tokens. Raises `ContenderError`."""
        return Generation(**self._ask({"prompts": prompts, "max_tokens": max_tokens}))

    def close(self) -> None:
        self._process.kill()
        self._process.wait()
        self._log.close()

    def _ask(self, message: dict[str, Any]) -> dict[str, Any]:
        assert self._process.stdin is not None and self._process.stdout is not None
        try:
            print(json.dumps(message), file=self._process.stdin)
            reply = self._process.stdout.readline()
        except BrokenPipeError:
            reply = ""
        if not reply:
            self._log.seek(0)
            said = [line for line in self._log.read().splitlines() if line.strip()]
            raise ContenderError(said[-1].strip() if said else "it ended without a word")
        answer: dict[str, Any] = json.loads(reply)
        return answer


@contextmanager
def entries(model: LocalModel, peers: Path, only: Sequence[str] | None = None) -> Iterator[list[Entry]]:
    """Our engine first, then what `peers` holds, with the weights that each can load; of them those that `only` names.

    llama.cpp and OpenVINO load the same GGUF file as we do, and also what llama.cpp makes of it in the type that each
    is fastest with (kept in the cache folder). transformers gets the same weights dequantised to bfloat16, in a folder
    that lasts as long as the context. `only`: beginnings of names.
    """
    python = peers.absolute() / "bin" / "python"  # not resolved: the link is what makes it that environment's
    path = model.path.resolve()
    versions = _versions(python)

    def wanted(name: str, distribution: str) -> bool:
        return distribution in versions and (only is None or name.startswith(tuple(only)))

    found = [Entry(OURS, "fireside_engine", sys.executable, path, model.weight_type)]
    with tempfile.TemporaryDirectory(prefix="fireside-benchmark-") as folder:
        if wanted("transformers-bf16", "transformers"):
            unpacked = path if model.format == "safetensors" else _dequantized(path, Path(folder) / "bfloat16")
            found.append(Entry("transformers-bf16", "transformers_generate", str(python), unpacked, "bfloat16"))
        for name, script, distribution, fastest in _GGUF_PEERS if model.format == "gguf" else ():
            for kind in dict.fromkeys([model.weight_type, fastest]):
                as_stored = kind == model.weight_type
                if wanted(f"{name}-{kind.lower()}", distribution) and (as_stored or _REQUANTIZER in versions):
                    file = path if as_stored else _requantized(path, kind, python)
                    found.append(Entry(f"{name}-{kind.lower()}", script, str(python), file, kind))
        yield found


def _versions(python: Path) -> dict[str, str]:
    """Of the peers' distributions that are installed."""
    if not python.exists():
        return {}
    asked = subprocess.run([python, "-c", _ASK_FOR_VERSIONS], capture_output=True, text=True, check=True)
    versions: dict[str, str] = json.loads(asked.stdout)
    return versions


def _dequantized(model: Path, folder: Path) -> Path:
    import torch  # by this function alone, and it takes a while

    from fireside.models.checkpoint import open_checkpoint
    from fireside.models.decoder import load_decoder
    from fireside.models.saving import save_pretrained

    save_pretrained(load_decoder(open_checkpoint(model), torch.bfloat16), folder)
    return folder


def _requantized(model: Path, kind: str, python: Path) -> Path:
    """Named by the contents of its source, so that it is made once and never stale."""
    with model.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()[:16]
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "fireside" / "benchmarks"
    target = cache / f"{model.stem}-{digest}-as-{kind}.gguf"
    if not target.exists():
        cache.mkdir(parents=True, exist_ok=True)
        script = "benchmarks.contenders.requantize"
        command: list[str | Path] = [python, "-m", script, model, target, kind]
        made = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
        if made.returncode:
            raise SystemExit(f"{kind} cannot be made of {model}:\n{made.stderr[-2000:]}")
    return target
