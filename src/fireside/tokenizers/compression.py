"""How well a vocabulary compresses text, by language and script: bytes per token, beside other vocabularies."""

from __future__ import annotations

import unicodedata
from collections import Counter
from collections.abc import Iterable, Mapping
from functools import lru_cache

from fireside.tokenizers.tokenizer import Tokenizer

# Article 1 of the Universal Declaration of Human Rights (United Nations, 1948), and a few lines of code.
SAMPLES: Mapping[str, str] = {
    "English": "All human beings are born free and equal in dignity and rights. They are endowed with reason and "
    "conscience and should act towards one another in a spirit of brotherhood.",
    "French": "Tous les êtres humains naissent libres et égaux en dignité et en droits. Ils sont doués de raison et de "
    "conscience et doivent agir les uns envers les autres dans un esprit de fraternité.",
    "German": "Alle Menschen sind frei und gleich an Würde und Rechten geboren. Sie sind mit Vernunft und Gewissen "
    "begabt und sollen einander im Geist der Brüderlichkeit begegnen.",
    "Spanish": "Todos los seres humanos nacen libres e iguales en dignidad y derechos y, dotados como están de razón y "
    "conciencia, deben comportarse fraternalmente los unos con los otros.",
    "Russian": "Все люди рождаются свободными и равными в своем достоинстве и правах. Они наделены разумом и "
    "совестью и должны поступать в отношении друг друга в духе братства.",
    "Greek": "Όλοι οι άνθρωποι γεννιούνται ελεύθεροι και ίσοι στην αξιοπρέπεια και τα δικαιώματα. Είναι προικισμένοι "
    "με λογική και συνείδηση, και οφείλουν να συμπεριφέρονται μεταξύ τους με πνεύμα αδελφοσύνης.",
    "Arabic": "يولد جميع الناس أحرارا متساوين في الكرامة والحقوق. وقد وهبوا عقلا وضميرا وعليهم أن يعامل بعضهم بعضا "
    "بروح الإخاء.",
    "Hindi": "सभी मनुष्यों को गौरव और अधिकारों के मामले में जन्मजात स्वतन्त्रता और समानता प्राप्त है। उन्हें बुद्धि और "
    "अन्तरात्मा की देन प्राप्त है और परस्पर उन्हें भाईचारे के भाव से बर्ताव करना चाहिए।",
    "Chinese": "人人生而自由，在尊严和权利上一律平等。他们赋有理性和良心，并应以兄弟关系的精神相对待。",
    "Japanese": "すべての人間は、生まれながらにして自由であり、かつ、尊厳と権利とについて平等である。人間は、"
    "理性と良心とを授けられており、互いに同胞の精神をもって行動しなければならない。",
    "Korean": "모든 인간은 태어날 때부터 자유로우며 그 존엄과 권리에 있어 동등하다. 인간은 천부적으로 이성과 양심을 "
    "부여받았으며 서로 형제애의 정신으로 행동하여야 한다.",
    "Python": 'def mean(values: list[float]) -> float:\n    if not values:\n        raise ValueError("no values")\n'
    "    return sum(values) / len(values)\n",
}
_SCRIPTS = 4096  # characters of a text that decide its script


def bytes_per_token(tokenizer: Tokenizer, texts: Iterable[str]) -> float:
    """Bytes of UTF-8 per token over all of `texts`; 0 for none."""
    tokens = size = 0
    for text in texts:
        tokens += len(tokenizer.encode(text, add_bos=False))
        size += len(text.encode("utf-8", "replace"))
    return size / tokens if tokens else 0.0


def script_of(text: str) -> str:
    """The script of most letters: "Latin", "Cyrillic", "Han", ... as Unicode's names of characters have it."""
    counts = Counter(_script(character) for character in text[:_SCRIPTS] if character.isalpha())
    return counts.most_common(1)[0][0] if counts else "no letters"


@lru_cache(maxsize=4096)
def _script(character: str) -> str:
    word = unicodedata.name(character, "unknown").split()[0]
    return {"CJK": "Han", "HIRAGANA": "Kana", "KATAKANA": "Kana"}.get(word, word.capitalize())
