"""What is wrong with a prompt, in the terms of the request that brought it."""

from __future__ import annotations

from fireside.errors import FiresideError


class PromptError(FiresideError):
    """The request can never be served as it is.

    `param` names the part of the request (`messages[3].role`), `code` is one of OpenAI's error codes.
    """

    def __init__(self, message: str, *, param: str | None = None, code: str | None = "invalid_value") -> None:
        super().__init__(message)
        self.param = param
        self.code = code


class ContextLengthExceeded(PromptError):
    """Prompt and answer do not fit. All three numbers are in tokens; `max_tokens` is None if it was left open.

    is_counted: False for a prompt so long that counting ended at `prompt_tokens`.
    """

    def __init__(
        self,
        *,
        prompt_tokens: int,
        max_tokens: int | None,
        context_length: int,
        param: str,
        is_counted: bool = True,
    ) -> None:
        asked = f"{'' if is_counted else 'over '}{prompt_tokens:,} tokens of prompt"
        if max_tokens:
            asked += f" and {max_tokens:,} of answer"
        else:
            asked += ", which leaves no room for an answer" if prompt_tokens == context_length else ""
        super().__init__(
            f"This model's context holds {context_length:,} tokens, and the request needs {asked}. "
            "Shorten the prompt" + (" or lower max_tokens." if max_tokens else "."),
            param=param,
            code="context_length_exceeded",
        )
        self.prompt_tokens = prompt_tokens
        self.max_tokens = max_tokens
        self.context_length = context_length
