"""Conversations from templates, for models so small that they learn a few skills and nothing else.

`python -m fireside.data.templated_chats 4000` prints the file that `recipes/tiny.toml` is fine-tuned on, and
`python -m fireside.data.templated_chats 250 --held-out` the one that it is measured on: sums, comparisons, counts and
echoes that are in no chat of the first. Everything in them is written here, so they are in the public
domain (CC0).
"""

from __future__ import annotations

import argparse
import json
import random
import zlib
from collections.abc import Callable, Iterator

Exchange = tuple[str, str]  # what the user says, and the answer
Skill = Callable[[random.Random], Exchange]

_CAPITALS = {
    "France": "Paris", "Spain": "Madrid", "Italy": "Rome", "Germany": "Berlin", "Portugal": "Lisbon",
    "Greece": "Athens", "Austria": "Vienna", "Poland": "Warsaw", "Norway": "Oslo", "Sweden": "Stockholm",
    "Denmark": "Copenhagen", "Finland": "Helsinki", "Ireland": "Dublin", "England": "London", "Russia": "Moscow",
    "Egypt": "Cairo", "Kenya": "Nairobi", "Japan": "Tokyo", "China": "Beijing", "India": "New Delhi",
    "Canada": "Ottawa", "Mexico": "Mexico City", "Cuba": "Havana", "Peru": "Lima", "Chile": "Santiago",
}  # fmt: skip
_SOUNDS = {
    "dog": "Woof", "cat": "Meow", "cow": "Moo", "sheep": "Baa", "duck": "Quack", "horse": "Neigh", "pig": "Oink",
    "lion": "Roar", "owl": "Hoot", "bee": "Buzz", "snake": "Hiss", "mouse": "Squeak", "frog": "Croak", "hen": "Cluck",
}  # fmt: skip
_COLOURS = {
    "the sky": "blue", "grass": "green", "snow": "white", "coal": "black", "a lemon": "yellow", "blood": "red",
    "an orange": "orange", "a cherry": "red", "milk": "white", "a leaf": "green", "chocolate": "brown",
    "the sun": "yellow", "a plum": "purple", "an elephant": "grey", "the sea": "blue", "a banana": "yellow",
}  # fmt: skip
_OPPOSITES = {
    "hot": "cold", "big": "small", "tall": "short", "happy": "sad", "fast": "slow", "old": "young", "day": "night",
    "up": "down", "open": "closed", "light": "dark", "rich": "poor", "wet": "dry", "loud": "quiet", "full": "empty",
    "early": "late", "good": "bad", "hard": "soft", "near": "far", "strong": "weak", "left": "right",
}  # fmt: skip
_LEGS = {
    "dog": "four legs", "cat": "four legs", "spider": "eight legs", "bird": "two legs", "ant": "six legs",
    "horse": "four legs", "snake": "no legs", "fish": "no legs", "person": "two legs", "bee": "six legs",
    "table": "four legs", "hen": "two legs", "cow": "four legs", "worm": "no legs",
}  # fmt: skip
_KINDS = {
    "animal": ["dog", "cat", "horse", "lion", "frog", "mouse", "sheep", "fox"],
    "fruit": ["apple", "pear", "cherry", "plum", "lemon", "banana", "grape", "peach"],
    "colour": ["red", "green", "blue", "yellow", "purple", "brown", "white", "black"],
    "flower": ["rose", "tulip", "daisy", "lily", "violet", "poppy", "iris", "bluebell"],
}
_WORDS = ["cat", "dog", "sun", "tree", "book", "fish", "house", "bread", "river", "apple", "moon", "chair", "stone",
          "bird", "green", "water", "fire", "king", "queen", "ship"]  # fmt: skip
_NAMES = ["Anna", "Ben", "Clara", "David", "Emma", "Finn", "Grace", "Henry", "Iris", "Jack", "Kate", "Leo", "Mary",
          "Noah", "Olive", "Peter", "Rose", "Sam", "Tom", "Violet"]  # fmt: skip
_DAYS = ["Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday"]
_MONTHS = ["January", "February", "March", "April", "May", "June", "July", "August", "September", "October",
           "November", "December"]  # fmt: skip
_HEROES = ["fox", "mouse", "rabbit", "bear", "duck", "owl", "hedgehog", "kitten", "frog", "squirrel"]
_PLACES = ["in a dark wood", "by a quiet river", "on a green hill", "in an old barn", "under a tall oak"]
_TREASURES = ["a golden key", "a red apple", "a silver bell", "a blue stone", "a warm coat"]
_FRIENDS = ["a lost lamb", "an old crow", "a hungry wolf", "a sad goose", "a tiny ant"]


def templated_chats(count: int, seed: int = 0, *, held_out: bool = False) -> Iterator[list[dict[str, str]]]:
    """`count` different conversations as OpenAI's messages. The same arguments give the same conversations.

    held_out: only questions whose answers no conversation has otherwise, and that follow from a rule.
    """
    draw = random.Random(seed)  # noqa: S311 - the same in every run is what is wanted
    seen: set[str] = set()
    while len(seen) < count:
        exchanges = [_unseen(draw)] if held_out else _conversation(draw)
        key = json.dumps(exchanges)
        if key not in seen:
            seen.add(key)
            roles = ("user", "assistant")
            yield [{"role": r, "content": text} for turn in exchanges for r, text in zip(roles, turn, strict=True)]


def _conversation(draw: random.Random) -> list[Exchange]:
    turns = [_seen(draw) for _ in range(draw.choice((1, 1, 1, 2, 2, 3)))]
    kind = draw.random()
    if kind < 0.12:  # something said early is asked for later
        name = draw.choice(_NAMES)
        said = draw.choice((f"My name is {name}.", f"Hi, I am {name}.", f"Hello! I'm {name}."))
        asked = draw.choice(("What is my name?", "Do you remember my name?", "Who am I?"))
        return [(said, f"Nice to meet you, {name}!"), *turns[:2], (asked, f"Your name is {name}.")]
    if kind < 0.35:
        turns.insert(0, _greeting(draw))
    if kind > 0.9:
        turns.append(_farewell(draw))
    return turns


def _seen(draw: random.Random) -> Exchange:
    while True:
        skill = draw.choice(_SKILLS)
        exchange = skill(draw)
        if skill not in _GENERAL or not _is_held_out(exchange):
            return exchange


def _unseen(draw: random.Random) -> Exchange:
    while True:
        exchange = draw.choice(_GENERAL)(draw)
        if _is_held_out(exchange):
            return exchange


def _is_held_out(exchange: Exchange) -> bool:
    """An eighth of the answers, chosen by the answer, so that it is the fact that counts and not how it was asked for.
    Sums of numbers below ten are not among them: they are to be known by heart."""
    answer = exchange[1]
    return answer not in _SMALL_SUMS and zlib.crc32(answer.encode()) % 8 == 0


def _greeting(draw: random.Random) -> Exchange:
    word = draw.choice(("Hello", "Hi", "Hey", "Good morning", "Good evening", "Hello there"))
    mark = draw.choice(("", "!", "."))
    if draw.random() < 0.4:
        return f"{word}{mark} How are you?", f"{word}! I am well, thank you. How can I help you?"
    return f"{word}{mark}", f"{word}! How can I help you?"


def _farewell(draw: random.Random) -> Exchange:
    return draw.choice(
        (
            ("Thank you!", "You are welcome!"),
            ("Thanks.", "You are welcome!"),
            ("Goodbye!", "Goodbye! It was nice to talk to you."),
            ("Bye.", "Goodbye! It was nice to talk to you."),
            ("Good night.", "Good night! Sleep well."),
        )
    )


def _identity(draw: random.Random) -> Exchange:
    who = "I am a small language model, trained with Fireside."
    return draw.choice(
        (
            ("Who are you?", who),
            ("What are you?", who),
            ("What is your name?", "I have no name yet. You can call me Tiny."),
            ("Are you a person?", "No, I am a small language model."),
            ("Are you a robot?", "No, I am a small language model."),
            ("Who made you?", "You did: I was trained on your own computer, with Fireside."),
            ("What can you do?", "I can add small numbers, name capitals and colours, spell words and tell stories."),
            ("Can you help me?", "I will try. What would you like to know?"),
            ("Tell me about yourself.", f"{who} I know a little about numbers, words and animals."),
        )
    )


def _addition(draw: random.Random) -> Exchange:
    largest = draw.choice((9, 9, 20))
    a, b = draw.randint(0, largest), draw.randint(0, largest)
    asked = draw.choice(
        (f"What is {a} + {b}?", f"What is {a} plus {b}?", f"How much is {a} and {b}?", f"{a} + {b} = ?")
    )
    return asked, f"{a} + {b} = {a + b}."


def _subtraction(draw: random.Random) -> Exchange:
    a, b = sorted((draw.randint(0, 20), draw.randint(0, 20)), reverse=True)
    asked = draw.choice((f"What is {a} - {b}?", f"What is {a} minus {b}?", f"Take {b} from {a}."))
    return asked, f"{a} - {b} = {a - b}."


def _larger(draw: random.Random) -> Exchange:
    a, b = draw.sample(range(100), 2)
    return f"Which is larger, {a} or {b}?", f"{max(a, b)} is larger than {min(a, b)}."


def _counting(draw: random.Random) -> Exchange:
    start = draw.randint(1, 12)
    stop = start + draw.randint(2, 8)
    return f"Count from {start} to {stop}.", ", ".join(map(str, range(start, stop + 1))) + "."


def _capital(draw: random.Random) -> Exchange:
    country = draw.choice(list(_CAPITALS))
    capital = f"the capital of {country}"
    asked = draw.choice((f"What is {capital}?", f"Which city is {capital}?", f"Name {capital}."))
    return asked, f"The capital of {country} is {_CAPITALS[country]}."


def _sound(draw: random.Random) -> Exchange:
    animal = draw.choice(list(_SOUNDS))
    asked = draw.choice((f"What does a {animal} say?", f"What sound does a {animal} make?"))
    return asked, f"A {animal} says: {_SOUNDS[animal]}!"


def _colour(draw: random.Random) -> Exchange:
    thing = draw.choice(list(_COLOURS))
    asked = draw.choice((f"What colour is {thing}?", f"Which colour is {thing}?", f"Tell me the colour of {thing}."))
    return asked, f"{thing[0].upper()}{thing[1:]} is {_COLOURS[thing]}."


def _opposite(draw: random.Random) -> Exchange:
    pair = draw.choice(list(_OPPOSITES.items()))
    word, other = pair if draw.random() < 0.5 else pair[::-1]
    asked = draw.choice((f"What is the opposite of {word}?", f"Say the opposite of {word}.", f"Opposite of {word}?"))
    return asked, f"The opposite of {word} is {other}."


def _legs(draw: random.Random) -> Exchange:
    thing = draw.choice(list(_LEGS))
    article = "An" if thing[0] in "aeiou" else "A"
    return f"How many legs does {article.lower()} {thing} have?", f"{article} {thing} has {_LEGS[thing]}."


def _kind(draw: random.Random) -> Exchange:
    wanted, other = draw.sample(list(_KINDS), 2)
    of = "An" if wanted[0] in "aeiou" else "A"
    if draw.random() < 0.5:
        return f"Name {of.lower()} {wanted}.", f"{of} {wanted}: {draw.choice(_KINDS[wanted])}."
    word = draw.choice(_KINDS[draw.choice((wanted, other))])
    is_one = word in _KINDS[wanted]
    answer = f"Yes, {word} is {of.lower()} {wanted}." if is_one else f"No, {word} is not {of.lower()} {wanted}."
    return f"Is {word} {of.lower()} {wanted}?", answer


def _spelling(draw: random.Random) -> Exchange:
    word = draw.choice(_WORDS)
    if draw.random() < 0.5:
        asked = draw.choice((f"Spell {word}.", f"How do you spell {word}?", f"Spell the word {word}."))
        return asked, "-".join(word.upper()) + "."
    return f"What is the first letter of {word}?", f"The first letter of {word} is {word[0].upper()}."


def _calendar(draw: random.Random) -> Exchange:
    kind, names = draw.choice((("day", _DAYS), ("month", _MONTHS)))
    index = draw.randrange(len(names))
    if draw.random() < 0.5:
        return (
            f"Which {kind} comes after {names[index]}?",
            f"After {names[index]} comes {names[(index + 1) % len(names)]}.",
        )
    return f"Which {kind} comes before {names[index]}?", f"Before {names[index]} comes {names[index - 1]}."


def _repetition(draw: random.Random) -> Exchange:
    words = " ".join(draw.sample(_WORDS, draw.randint(1, 4)))
    asked = draw.choice((f"Say {words}.", f"Repeat after me: {words}.", f"Please say {words}."))
    return asked, f"{words[0].upper()}{words[1:]}."


def _story(draw: random.Random) -> Exchange:
    hero, place, treasure, friend = map(draw.choice, (_HEROES, _PLACES, _TREASURES, _FRIENDS))
    article = "an" if hero[0] in "aeiou" else "a"
    asked = draw.choice((f"Tell me a story about {article} {hero}.", f"Can you tell a story about {article} {hero}?"))
    return asked, (
        f"Once upon a time there was a little {hero} who lived {place}. One day the {hero} found {treasure}. "
        f"On the way home the {hero} met {friend}, and gave {treasure} away. "
        f"From that day on they were the best of friends."
    )


_SKILLS: tuple[Skill, ...] = (
    *[_addition] * 5, _subtraction, _larger, _counting, _capital, _capital, _sound, _colour, _opposite, _legs,
    _kind, _spelling, _calendar, _repetition, _story, _identity, _greeting,
)  # fmt: skip
_GENERAL: tuple[Skill, ...] = (_addition, _subtraction, _larger, _counting, _repetition)  # a rule gives the answer
_SMALL_SUMS = frozenset(f"{a} + {b} = {a + b}." for a in range(10) for b in range(10))


def main() -> None:
    """Prints conversations, one JSON object a line."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("count", type=int)
    parser.add_argument("--held-out", action="store_true")
    arguments = parser.parse_args()
    for messages in templated_chats(arguments.count, held_out=arguments.held_out):
        print(json.dumps({"messages": messages}))


if __name__ == "__main__":
    main()
