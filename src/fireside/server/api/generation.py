"""From the fields that both completion routes share to the assistant's terms, and back."""

from __future__ import annotations

import json
import logging
import secrets
import time
import uuid
from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import msgspec

from fireside import __version__
from fireside.assistant.text import (
    ChatPrompt,
    CompletionPrompt,
    OutputConstraint,
    TextChunk,
    TextOptions,
    TokenText,
    Usage,
)
from fireside.assistant.text_model import TextModel
from fireside.engine.messages import SamplingParams
from fireside.server.api.schemas.chat import JSONObjectFormat, JSONSchemaFormat, ResponseFormat
from fireside.server.api.schemas.common import MAX_PRIORITY
from fireside.server.api.schemas.generation import GenerationFields, StructuredOutputs
from fireside.server.errors import as_api_error, internal_error, invalid
from fireside.server.streaming import Primed, event, merge

if TYPE_CHECKING:
    from fireside.server.deps import Context  # which holds the runs of the app, which are made with this

LOWEST_LOGPROB = -9999.0  # stands for minus infinity, which JSON does not have; OpenAI's choice too

_SEED_MASK = 2**63 - 1

logger = logging.getLogger(__name__)


def text_options(
    fields: GenerationFields,
    model: TextModel,
    *,
    max_tokens: int | None,
    logprobs: int | None,
    prompt_logprobs: int | None = None,
    prediction: str = "",
) -> TextOptions:
    """`max_tokens` None means all that is left of the context; 0 asks for no token at all.

    What the caller leaves out is as the model's authors want it, and else as in OpenAI's API.
    Raises `ApiError` 400 for token ids that the model does not have.
    """
    defaults = model.defaults
    sampling = SamplingParams(
        max_tokens=max_tokens or 0,
        temperature=_first(fields.temperature, defaults.temperature, 1.0),
        top_p=_first(fields.top_p, defaults.top_p, 1.0),
        top_k=max(0, _first(fields.top_k, defaults.top_k, 0)),
        min_p=_first(fields.min_p, defaults.min_p, 0.0),
        repetition_penalty=_first(fields.repetition_penalty, defaults.repetition_penalty, 1.0),
        frequency_penalty=fields.frequency_penalty or 0.0,
        presence_penalty=fields.presence_penalty or 0.0,
        logit_bias=_logit_bias(fields.logit_bias or {}, model),
        stop_token_ids=tuple(check_token_ids("stop_token_ids", fields.stop_token_ids or (), model)),
        min_tokens=fields.min_tokens or 0,
        seed=secrets.randbits(63) if fields.seed is None else fields.seed,
        logprobs=logprobs,
        prompt_logprobs=max((k for k in (fields.prompt_logprobs, prompt_logprobs) if k is not None), default=None),
    )
    if max_tokens and sampling.min_tokens > max_tokens:
        raise invalid("min_tokens", f"is {sampling.min_tokens}, more than the {max_tokens} that may be generated")
    return TextOptions(
        sampling=sampling,
        stop=(fields.stop,) if isinstance(fields.stop, str) else tuple(fields.stop or ()),
        ignore_eos=bool(fields.ignore_eos),
        skip_special_tokens=fields.skip_special_tokens is not False,
        include_stop_str_in_output=bool(fields.include_stop_str_in_output),
        priority=max(-MAX_PRIORITY, min(fields.priority or 0, MAX_PRIORITY)),
        score_only=max_tokens == 0,
        prediction=prediction,
    )


def _first(*values: Any) -> Any:
    """The first value that is given; the last one if none is."""
    return next((value for value in values if value is not None), None)


def _logit_bias(bias: dict[str, float], model: TextModel) -> dict[int, float]:
    for key in bias:
        if not key.isascii() or not key.isdigit() or len(key) > 10:
            raise invalid("logit_bias", f"{key[:32]!r} is not a token id")
    ids = {int(key): value for key, value in bias.items()}
    check_token_ids("logit_bias", tuple(ids), model)
    return ids


def check_token_ids(param: str, ids: Sequence[int], model: TextModel) -> Sequence[int]:
    """Raises `ApiError` 400 for an id that is not in the model's vocabulary."""
    size = model.tokenizer.vocab_size
    if ids and max(ids) >= size:
        raise invalid(param, f"the token id {max(ids)} is not in the model's vocabulary of {size}")
    return ids


def constraint_of(fields: GenerationFields, response_format: ResponseFormat | None) -> OutputConstraint | None:
    """The one form that the answer must have. Raises `ApiError` 400 if several are asked for."""
    found: list[OutputConstraint] = []
    match response_format:
        case JSONObjectFormat():
            found.append(OutputConstraint(kind="json_object"))
        case JSONSchemaFormat(json_schema=described):
            found.append(_json(described.schema_ or {}, "response_format"))
    outputs = fields.structured_outputs or StructuredOutputs.model_construct()
    for name, schema in (("guided_json", fields.guided_json), ("structured_outputs.json", outputs.json_)):
        if schema is not None:
            found.append(_json(schema, name))
    for name, pattern in (("guided_regex", fields.guided_regex), ("structured_outputs.regex", outputs.regex)):
        if pattern is not None:
            found.append(OutputConstraint(kind="regex", pattern=pattern, param=name))
    for name, choices in (("guided_choice", fields.guided_choice), ("structured_outputs.choice", outputs.choice)):
        if choices is not None:
            found.append(OutputConstraint(kind="choice", choices=tuple(choices), param=name))
    if outputs.json_object:
        found.append(OutputConstraint(kind="json_object", param="structured_outputs.json_object"))
    if len(found) > 1:
        raise invalid(found[1].param, f"cannot be combined with {found[0].param}: an answer has one form")
    return found[0] if found else None


def _json(schema: dict[str, Any] | str, param: str) -> OutputConstraint:
    if isinstance(schema, str):
        try:
            schema = json.loads(schema)
        except (ValueError, RecursionError) as exc:
            raise invalid(param, f"is not the text of a JSON schema: {exc}") from exc
        if not isinstance(schema, dict):
            raise invalid(param, "a JSON schema is an object")
    return OutputConstraint(kind="json_schema", schema=schema, param=param)


@dataclass(frozen=True)
class Answer:
    """What is in the making for one HTTP request: its choices, in the order of the prompts."""

    id: str
    created: int
    model: TextModel
    choices: int
    chunks: Primed[tuple[int, TextChunk]]

    @property
    def fingerprint(self) -> str | None:
        """Changes whenever the same seed might give another answer."""
        info = self.model.engine.info
        return f"fireside-{__version__}-{info.backend}-{info.device}-{info.dtype}" if info else None


async def start_answer(
    context: Context,
    model: TextModel,
    prompts: Sequence[ChatPrompt | CompletionPrompt],
    options: TextOptions,
    *,
    choices_per_prompt: int,
    id_prefix: str,
) -> Answer:
    """The choices of the first prompt, then those of the second, and so on.

    Raises what stands in the way, if that shows before the first token.
    """
    answer_id = f"{id_prefix}-{uuid.uuid4().hex}"
    streams: list[AsyncGenerator[TextChunk]] = []
    for prompt in prompts:
        # One choice encodes its prompt itself, so that its time to the first token counts that.
        prompt_ids = await model.encode(prompt) if choices_per_prompt > 1 else None
        for _ in range(choices_per_prompt):
            index = len(streams)
            chunks = model.generate(prompt, _seeded(options, index), f"{answer_id}-{index}", prompt_ids=prompt_ids)
            streams.append(context.metrics.watch(model.name, chunks))
    merged = Primed(merge(streams))
    # A grammar is refused, if at all, within its time limit: that refusal is still to be a status.
    await merged.start(patience=context.settings.grammar_timeout + 1.0)
    return Answer(answer_id, int(time.time()), model, len(streams), merged)


def _seeded(options: TextOptions, index: int) -> TextOptions:
    """Choice 0 has the caller's seed, so that it is the same whatever `n` is; the others have seeds of their own."""
    if index == 0:
        return options
    seed = (options.sampling.seed + index) & _SEED_MASK
    return replace(options, sampling=msgspec.structs.replace(options.sampling, seed=seed))


def usage_of(last: TextChunk) -> Usage:
    assert last.usage is not None  # `TextChunk` promises it of the last one
    return last.usage


def usage_dict(usages: Sequence[Usage], choices_per_prompt: int) -> dict[str, Any]:
    """OpenAI's `usage`: each prompt counts once, however many choices it has (they lie side by side)."""
    prompt_tokens = sum(usage.prompt_tokens for usage in usages[::choices_per_prompt])
    completion_tokens = sum(usage.completion_tokens for usage in usages)
    details: dict[str, Any] = {
        "prompt_tokens": prompt_tokens,
        "completion_tokens": completion_tokens,
        "total_tokens": prompt_tokens + completion_tokens,
        "prompt_tokens_details": {"cached_tokens": sum(usage.cached_tokens for usage in usages[::choices_per_prompt])},
    }
    if predictions := [usage.prediction for usage in usages if usage.prediction is not None]:
        accepted, rejected = map(sum, zip(*predictions, strict=True))
        details["completion_tokens_details"] = {
            "accepted_prediction_tokens": accepted,
            "rejected_prediction_tokens": rejected,
        }
    return details


def failure_event(exc: Exception) -> bytes:
    """What a stream ends with when it fails on the way: the status has been sent, so the envelope comes as an event."""
    error = as_api_error(exc)
    if error is None:
        logger.error("an answer failed while it was streamed", exc_info=exc)
        error = internal_error()
    return event(error.body)


def prompt_logprobs_list(tokens: Sequence[TokenText | None]) -> list[dict[str, Any] | None]:
    """vLLM's `prompt_logprobs`."""
    return [None if token is None else _ranked(token) for token in tokens]


def _ranked(token: TokenText) -> dict[str, Any]:
    ranked = {str(t.id): _prompt_logprob(t, rank) for rank, t in enumerate(token.top, 1)}
    return {str(token.id): _prompt_logprob(token, None)} | ranked


def _prompt_logprob(token: TokenText, rank: int | None) -> dict[str, Any]:
    return {"logprob": finite(token.logprob), "rank": rank, "decoded_token": token.text}


def finite(logprob: float) -> float:
    return max(logprob, LOWEST_LOGPROB)
