"""From a `WorkerConfig` to a running `Engine`."""

from __future__ import annotations

import logging
import re
from collections.abc import Sequence
from hashlib import sha256
from pathlib import Path

from fireside.engine.backend import load_runner, native_types
from fireside.engine.engine import Engine
from fireside.engine.fingerprint import fingerprint, model_fingerprint
from fireside.engine.grammar import GrammarCompiler
from fireside.engine.messages import EngineInfo, WorkerConfig
from fireside.engine.native_runner import NativeRunner, native_shape
from fireside.engine.resources import available_cores
from fireside.engine.runner import Runner
from fireside.engine.saved_prefixes import SavedPrefixes
from fireside.engine.speculation.costs import first_costs
from fireside.engine.speculation.draft_model import DraftModel
from fireside.engine.speculation.speculator import Speculator
from fireside.errors import ModelError
from fireside.models.checkpoint import Checkpoint, open_checkpoint
from fireside.models.local import open_model

log = logging.getLogger(__name__)


def load_engine(config: WorkerConfig) -> tuple[Engine, EngineInfo]:
    """Raises `ModelError` if the model cannot be served as the config asks."""
    path = Path(config.model)
    models_dir = None if config.models_dir is None else Path(config.models_dir)
    saves = config.prefix_folder is not None and config.saved_prefix_tokens > 0
    identity = model_fingerprint(path, models_dir) if saves else ""
    checkpoint = open_checkpoint(path, models_dir)
    own_context = checkpoint.config.max_position_embeddings
    max_context = min(config.max_context or own_context, own_context)
    draft = _open_draft(config, models_dir)
    runner = load_runner(checkpoint, config, max_context, draft=draft)
    speculator = _speculator(runner, draft, config, max_context)

    def load_vocabulary() -> tuple[str, Sequence[int]]:
        model = open_model(path, models_dir=models_dir)
        return model.load_tokenizer().to_json(), model.generation.eos_token_ids

    engine = Engine(
        runner,
        max_context=max_context,
        max_batch_tokens=config.max_batch_tokens,
        max_running=config.max_running,
        max_waiting=config.max_waiting,
        grammar_compiler=GrammarCompiler(checkpoint.config.vocab_size, load_vocabulary),
        grammar_timeout=config.grammar_timeout,
        speculator=speculator,
        saved_prefixes=_saved_prefixes(config, fingerprint(identity, checkpoint.config, runner)) if saves else None,
    )
    info = EngineInfo(
        model=config.name, device=runner.device, dtype=runner.dtype, backend=runner.backend,
        max_context=engine.max_context, block_size=runner.block_size, num_blocks=runner.num_blocks,
        draft_model=None if speculator is None or speculator.draft_model is None else config.draft_model,
    )  # fmt: skip
    return engine, info


def _saved_prefixes(config: WorkerConfig, fingerprint: str) -> SavedPrefixes:
    assert config.prefix_folder is not None
    # One file for what somebody runs under these settings, whatever the fingerprint: what is stale gets replaced.
    settings = f"{Path(config.model).resolve()} {config.device} {config.dtype} {config.kv_cache_dtype}"
    name = (
        f"{re.sub(r'[^A-Za-z0-9._-]', '_', config.name)[:64]}-{sha256(settings.encode()).hexdigest()[:12]}.safetensors"
    )
    return SavedPrefixes(Path(config.prefix_folder) / name, fingerprint, config.saved_prefix_tokens)


def _open_draft(config: WorkerConfig, models_dir: Path | None) -> Checkpoint | None:
    """The draft model's weights, if one is named and guesses are wanted.

    Raises `ModelError` unless it means the same as the model by every token id that both have.
    """
    if config.draft_model is None or not config.speculative_tokens:
        return None
    model, draft = (open_model(Path(one), models_dir=models_dir) for one in (config.model, config.draft_model))
    ours, theirs = (one.load_tokenizer().vocabulary() for one in (model, draft))
    differing = [token_id for token_id in ours.keys() & theirs.keys() if ours[token_id] != theirs[token_id]]
    if differing:
        first = min(differing)
        raise ModelError(
            f"{draft.path} cannot be the draft model: its tokenizer is another than that of {config.name} "
            f"({len(differing):,} ids differ; {first} is {theirs[first]!r} and not {ours[first]!r}): "
            "set draft_model to a smaller model of the same family, or leave it out"
        )
    return open_checkpoint(draft.path, models_dir)


def _speculator(runner: Runner, draft: Checkpoint | None, config: WorkerConfig, max_context: int) -> Speculator | None:
    """None where rounding depends on the batch: a guess could change an answer.

    Raises `ModelError` if the draft model would be used and cannot run.
    """
    if not runner.batch_invariant:
        if draft is not None:
            log.warning("draft_model is not used: with the %s backend its guesses could change answers", runner.backend)
        return None
    if not config.speculative_tokens:
        return None
    draft_model = None
    if draft is not None:
        reason = native_shape(draft.config).unsupported()
        if reason:
            raise ModelError(f"{draft.path} cannot be the draft model, as the native kernels cannot run it: {reason}")
        draft_runner = NativeRunner(
            draft, num_blocks=runner.num_blocks, max_context=max_context, threads=config.threads or available_cores(),
            **native_types(config),
        )  # fmt: skip
        draft_model = DraftModel(draft_runner, first_costs(draft_runner))
    return Speculator(
        config.speculative_tokens,
        recent_outputs=config.speculative_recent,
        draft_model=draft_model,
        costs=first_costs(runner),
    )
