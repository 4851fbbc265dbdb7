"""`AnswerReader`: from the token ids of one request to the text, tool calls and log-probabilities people see."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from fireside.assistant.stop_strings import StopStrings
from fireside.assistant.text import TextChunk, TextOptions, TokenText, Usage
from fireside.assistant.tool_calls.parser import Parsed, ToolCallParser
from fireside.engine.messages import FinishReason, GenerationOutput, TokenLogprobs
from fireside.tokenizers.detokenizer import IncrementalDetokenizer
from fireside.tokenizers.tokenizer import Tokenizer


class AnswerReader:
    """Reads one answer. What its chunks add up to does not depend on how the engine cut the tokens into outputs.

    prompt_ids: what is answered. continuing: the text goes on from the prompt's, as a completion does.
    tools: parses tool calls, if tools are on offer. markers: control tokens to show as text, by id, whatever
    `options.skip_special_tokens` says (those that begin and end a tool call).

    Stop strings count from the token after `min_tokens` on. The stop token itself is part of the usage, but of text,
    ids and log-probabilities only if `include_stop_str_in_output` is set.
    """

    def __init__(
        self,
        tokenizer: Tokenizer,
        options: TextOptions,
        prompt_ids: Sequence[int],
        *,
        continuing: bool,
        tools: ToolCallParser | None = None,
        markers: dict[int, str] | None = None,
    ) -> None:
        self._tokenizer = tokenizer
        self._options = options
        self._prompt_ids = prompt_ids
        self._tools = tools
        self._markers = markers or {}
        self._detokenizer = IncrementalDetokenizer(tokenizer, options.skip_special_tokens, continuing=continuing)
        self._stops = StopStrings(options.stop, include=options.include_stop_str_in_output)
        self._completion_tokens = 0
        self._cached_tokens = 0
        self._prediction = (0, 0)  # tokens accepted and rejected

    def read(self, output: GenerationOutput) -> TextChunk:
        """What one output adds. The answer is over if the chunk has a finish reason, whatever the output says."""
        self._cached_tokens = max(self._cached_tokens, output.cached_tokens)
        self._prediction = (output.accepted_prediction_tokens, output.rejected_prediction_tokens)
        parts: list[Parsed] = []
        kept = 0
        for token_id in output.token_ids:
            self._completion_tokens += 1
            is_stop_token = token_id == output.stopped_by and kept == len(output.token_ids) - 1
            if is_stop_token and not self._options.include_stop_str_in_output:
                break
            kept += 1
            parts.append(self._parse(self._stop(self._detokenize(token_id))))
            if self._stops.hit is not None or (self._tools and self._tools.is_done):
                break
        reason = self._finish_reason(output)
        if reason is not None:
            parts.append(self._finish())
            if self._stops.hit is not None:  # the end of a character, or of the answer, can complete one
                reason = "stop"
            if self._tools and self._tools.num_calls and reason == "stop":
                reason = "tool_calls"
        return TextChunk(
            text="".join(part.text for part in parts),
            tool_calls=tuple(delta for part in parts for delta in part.tool_calls),
            token_ids=output.token_ids[:kept],
            logprobs=self._token_texts(output, kept),
            prompt_logprobs=self._prompt_texts(output),
            finish_reason=reason,
            stop_reason=None
            if reason is None
            else self._stops.hit
            if self._stops.hit is not None
            else output.stopped_by,
            usage=None if reason is None else self._usage(),
        )

    def _detokenize(self, token_id: int) -> str:
        marker = self._markers.get(token_id)
        if marker is None:
            return self._detokenizer.push((token_id,))
        return self._detokenizer.finish() + marker

    def _stop(self, text: str) -> str:
        if self._completion_tokens <= self._options.sampling.min_tokens:
            return text
        return self._stops.push(text)

    def _parse(self, text: str) -> Parsed:
        return self._tools.push(text) if self._tools else Parsed(text)

    def _finish_reason(self, output: GenerationOutput) -> Literal["stop", "length", "tool_calls"] | None:
        if self._stops.hit is not None or (self._tools and self._tools.is_done):
            return "stop"
        if output.finish_reason is None:
            return None
        return "length" if output.finish_reason is FinishReason.LENGTH else "stop"

    def _finish(self) -> Parsed:
        """Everything that was held back."""
        text = self._stop(self._detokenizer.finish()) if self._stops.hit is None else ""
        text += self._stops.finish()
        parsed = self._parse(text)
        if not self._tools:
            return parsed
        rest = self._tools.finish()
        return Parsed(parsed.text + rest.text, parsed.tool_calls + rest.tool_calls)

    def _usage(self) -> Usage:
        return Usage(
            prompt_tokens=len(self._prompt_ids),
            completion_tokens=self._completion_tokens,
            cached_tokens=self._cached_tokens,
            prediction=self._prediction if self._options.prediction else None,
        )

    def _token_texts(self, output: GenerationOutput, kept: int) -> tuple[TokenText, ...] | None:
        if output.logprobs is None:
            return None
        pairs = zip(output.token_ids[:kept], output.logprobs, strict=False)
        return tuple(self._token_text(token_id, logprobs) for token_id, logprobs in pairs)

    def _prompt_texts(self, output: GenerationOutput) -> tuple[TokenText | None, ...] | None:
        if output.prompt_logprobs is None:
            return None
        pairs = zip(self._prompt_ids, output.prompt_logprobs, strict=True)
        return tuple(None if logprobs is None else self._token_text(token_id, logprobs) for token_id, logprobs in pairs)

    def _token_text(self, token_id: int, logprobs: TokenLogprobs) -> TokenText:
        top = tuple(self._one_token(other, logprob) for other, logprob in logprobs.top)
        return self._one_token(token_id, logprobs.logprob, top)

    def _one_token(self, token_id: int, logprob: float, top: tuple[TokenText, ...] = ()) -> TokenText:
        data = self._tokenizer.token_bytes(token_id)
        text = data.decode("utf-8", errors="replace")
        return TokenText(id=token_id, text=text, bytes=tuple(data), logprob=logprob, top=top)
