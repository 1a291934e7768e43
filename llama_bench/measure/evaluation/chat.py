"""Prompts in the form that a model was tuned to: its tokenizer's own chat template."""

from __future__ import annotations

from llama_bench.records import Refusal


def rendered(tokenizer, messages: list[dict[str, str]], add_generation_prompt: bool) -> str:
    """The messages as one text that ends where the model is to answer, or go on in what it is said
    to have begun. Some templates know no system's message: it goes before the user's first one."""
    if not tokenizer.chat_template:
        raise Refusal(
            "refused",
            f"{tokenizer.name_or_path} has no chat template; set chat_template: false for it",
        )
    settings = {
        "tokenize": False,
        "add_generation_prompt": add_generation_prompt,
        "continue_final_message": not add_generation_prompt,
    }
    try:
        return tokenizer.apply_chat_template(messages, **settings)
    except Exception as error:
        if not type(error).__module__.startswith("jinja2"):  # the template's own complaint
            raise
        return tokenizer.apply_chat_template(_without_system(messages), **settings)


def _without_system(messages: list[dict[str, str]]) -> list[dict[str, str]]:
    said = [message["content"] for message in messages if message["role"] == "system"]
    rest = [dict(message) for message in messages if message["role"] != "system"]
    rest[0]["content"] = "\n\n".join([*said, rest[0]["content"]])
    return rest
