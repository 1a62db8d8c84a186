"""What language models are told: who they are, how people speak, and in which language to answer."""

from __future__ import annotations

from typing import Final

from server.llm.provider import Message, Provider

_LANGUAGE_NAMES: Final = {"en": "English", "zh": "Chinese"}

_EXAMPLES: Final = (
    ("Hi, how are you today?", "I'm doing very well, thank you! It's lovely to talk with you. How are you?"),
    ("What is the capital of France?", "The capital of France is Paris."),
    (
        "Can you tell me why the sky is blue?",
        "The air scatters sunlight, and it scatters blue light the most. That's why the sky looks blue.",
    ),
    (
        "What should I do this weekend?",
        "How about a long walk in a park, and a good book afterwards? It's a simple way to relax.",
    ),
)
"""Questions and answers that show a small model how to speak: short, plain, friendly, whole sentences."""


def messages_for(provider: Provider, persona: str, question: str, language: str) -> list[Message]:
    """The conversation to send.

    Args:
        provider: Who is asked.
        persona: System message.
        question: What the user said.
        language: BCP 47 tag of the question's language, or empty.

    Returns:
        Persona, examples where the model needs them, and the question.
    """
    spoken = language.partition("-")[0].lower()
    if provider.languages and spoken not in provider.languages:
        # A small model answers in a language it knows, rather than badly in the user's.
        spoken = "en" if "en" in provider.languages else min(provider.languages)
    name = _LANGUAGE_NAMES.get(spoken)
    messages = [Message("system", f"{persona} Answer in {name}." if name else persona)]
    if provider.examples:
        for asked, answered in _EXAMPLES:
            messages += [Message("user", asked), Message("assistant", answered)]
    return [*messages, Message("user", question)]
