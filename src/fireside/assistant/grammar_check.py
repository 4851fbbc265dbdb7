"""Tries out grammars, as a program of its own: `structured.GrammarChecker` starts it and talks to it by lines of JSON.

A schema of one kilobyte can keep llguidance busy for minutes and fill gigabytes, and a thread inside Rust cannot be
stopped. A process can. It imports nothing of Fireside, so that it starts at once from any folder.

A line in: {"grammars": [...]}, llguidance's grammars, where {"regex": ...} may stand for a Lark grammar.
A line out: {"grammar": the serialised form} or {"error": what is wrong}. The first line out is {"ready": true}.
"""

from __future__ import annotations

import json
import sys
from typing import Any

from llguidance import LLMatcher, LLParserLimits, LLTokenizer, regex_to_lark

_MEMORY_LIMIT = 1 << 30  # bytes of address space; honest grammars take some tens of megabytes


def main() -> None:
    limit_memory()
    # Bytes for tokens: enough to meet what a first mask would meet with the real vocabulary.
    tokenizer = LLTokenizer("byte")
    answer({"ready": True})
    for line in sys.stdin:
        answer(check(json.loads(line)["grammars"], tokenizer))


def answer(value: dict[str, Any]) -> None:
    print(json.dumps(value), flush=True)


def limit_memory() -> None:
    if sys.platform == "linux":  # elsewhere the kernel does not hold to it, and the time limit has to do
        import resource

        resource.setrlimit(resource.RLIMIT_AS, (_MEMORY_LIMIT, _MEMORY_LIMIT))


def check(grammars: list[dict[str, Any]], tokenizer: LLTokenizer) -> dict[str, Any]:
    for part in grammars:
        if "regex" in part:
            part["lark_grammar"] = f"start: /{regex_to_lark(part.pop('regex'))}/"
    grammar = json.dumps({"grammars": grammars})
    limits = LLParserLimits(verbose_errors=False)
    try:
        failed, messages = LLMatcher.validate_grammar_with_warnings(grammar, limits=limits)
        if failed:
            return {"error": messages[0]}
        # Grammars that name special tokens need the real vocabulary; the worker compiles those the first time.
        if not messages:
            matcher = LLMatcher(tokenizer, grammar, log_level=0, limits=limits)
            matcher.compute_bitmask()
            if matcher.is_error():
                return {"error": matcher.get_error()}
    except ValueError as error:
        return {"error": str(error)}
    return {"grammar": grammar}


if __name__ == "__main__":
    main()
