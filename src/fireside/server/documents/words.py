"""The few words of pages that the server itself writes, in the languages of the app."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Words:
    """shared: with {date}. until: with {date}."""

    lang: str
    untitled: str
    question: str
    answer: str
    reasoning: str
    instructions: str
    shared: str
    until: str
    go_on: str
    gone: str
    gone_text: str
    direction: str = "ltr"


WORDS = {
    "en": Words(
        "en",
        "Conversation",
        "Question",
        "Answer",
        "Reasoning",
        "Instructions",
        "Shared on {date}",
        "until {date}",
        "Continue this conversation",
        "There is nothing here",
        "This link is not right, is no longer valid, or was taken back.",
    ),
    "fr": Words(
        "fr",
        "Conversation",
        "Question",
        "Réponse",
        "Raisonnement",
        "Instructions",
        "Partagée le {date}",
        "jusqu’au {date}",
        "Poursuivre cette conversation",
        "Il n’y a rien ici",
        "Ce lien est faux, n’est plus valable ou a été retiré.",
    ),
    "de": Words(
        "de",
        "Gespräch",
        "Frage",
        "Antwort",
        "Gedankengang",
        "Anweisungen",
        "Geteilt am {date}",
        "bis {date}",
        "Dieses Gespräch fortsetzen",
        "Hier ist nichts",
        "Dieser Link stimmt nicht, gilt nicht mehr oder wurde zurückgenommen.",
    ),
    "es": Words(
        "es",
        "Conversación",
        "Pregunta",
        "Respuesta",
        "Razonamiento",
        "Instrucciones",
        "Compartida el {date}",
        "hasta el {date}",
        "Continuar esta conversación",
        "Aquí no hay nada",
        "Este enlace no es correcto, ya no es válido o fue retirado.",
    ),
    "zh": Words(
        "zh",
        "对话",
        "提问",
        "回答",
        "推理过程",
        "指令",
        "分享于 {date}",
        "有效期至 {date}",
        "继续此对话",
        "这里没有内容",
        "此链接不正确、已失效或已被撤回。",
    ),
    "ar": Words(
        "ar",
        "محادثة",
        "سؤال",
        "إجابة",
        "التفكير",
        "التعليمات",
        "تمت المشاركة في {date}",
        "حتى {date}",
        "متابعة هذه المحادثة",
        "لا يوجد شيء هنا",
        "هذا الرابط غير صحيح أو لم يعد صالحًا أو تم سحبه.",
        "rtl",
    ),
}


def words_for(accepted: str) -> Words:
    """By an `Accept-Language` header, RFC 9110, 12.5.4; English where none of ours is wanted."""
    wanted: list[tuple[float, int, str]] = []
    for place, part in enumerate(accepted[:500].split(",")):
        tag, _, rest = part.strip().partition(";")
        name, _, value = rest.strip().partition("=")
        try:
            quality = float(value) if name.strip() == "q" else 1.0
        except ValueError:
            continue
        wanted.append((-quality, place, tag.strip().split("-")[0].lower()))
    return next((WORDS[tag] for quality, _, tag in sorted(wanted) if tag in WORDS and quality < 0), WORDS["en"])
