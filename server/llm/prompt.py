"""What language models are told: who they are, how people speak, and in which language to answer."""

from __future__ import annotations

from typing import Final

from server.llm.provider import Manner, Message

_LANGUAGE_NAMES: Final = {"en": "English", "zh": "Chinese"}


def messages_for(manner: Manner, languages: frozenset[str], question: str, language: str) -> list[Message]:
    """The conversation to send.

    Args:
        manner: How the model is to answer.
        languages: Languages the model answers well in; empty when it knows them all.
        question: What the user said.
        language: BCP 47 tag of the question's language, or empty.

    Returns:
        Persona, examples and the question.
    """
    spoken = language.partition("-")[0].lower()
    persona = manner.persona
    if languages and spoken not in languages:
        # A small model answers in a language it knows, rather than badly in the user's.
        spoken = "en" if "en" in languages else min(languages)
        persona = f"{persona} Answer in {_LANGUAGE_NAMES.get(spoken, spoken)}."
    elif spoken in _LANGUAGE_NAMES and not languages:
        persona = f"{persona} Answer in {_LANGUAGE_NAMES[spoken]}."
    messages = [Message("system", persona)]
    for asked, answered in manner.examples:
        messages += [Message("user", asked), Message("assistant", answered)]
    return [*messages, Message("user", question)]
