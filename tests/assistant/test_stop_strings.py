"""`StopStrings` against the definition: the text up to the first stop string that is complete."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from fireside.assistant.stop_strings import StopStrings, held_back
from tests.assistant.models import pieces

texts = st.text("ab\n", max_size=30)
stops = st.lists(st.text("ab\n", min_size=1, max_size=4), max_size=4)
cuts = st.lists(st.integers(0, 30), max_size=8)


def by_definition(text: str, strings: list[str], include: bool) -> tuple[str, str | None]:
    for end in range(1, len(text) + 1):
        ending = [string for string in strings if text[:end].endswith(string)]
        if ending:
            longest = max(ending, key=len)
            return text[: end if include else end - len(longest)], longest
    return text, None


@given(texts, stops, cuts, st.booleans())
def test_any_cutting_gives_what_the_definition_says(
    text: str, strings: list[str], cut: list[int], include: bool
) -> None:
    stop = StopStrings(strings, include=include)
    out = "".join(stop.push(piece) for piece in pieces(text, cut)) + stop.finish()
    assert (out, stop.hit) == by_definition(text, strings, include)


def test_only_what_may_begin_a_stop_string_is_held_back() -> None:
    stop = StopStrings(["User:"])
    assert stop.push("Hello Us") == "Hello "
    assert stop.push("A") == "UsA"
    assert stop.push(" User") == " "
    assert stop.push(": and more") == ""
    assert (stop.hit, stop.push("never"), stop.finish()) == ("User:", "", "")


def test_held_back_does_not_count_whole_strings() -> None:
    assert held_back("xab", ["ab"]) == 0
    assert held_back("xaba", ["ab"]) == 1
    assert held_back("x", []) == 0
