"""`generation:` of a suite: how answers are written, in place of what the tasks say of it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import BeforeValidator, ConfigDict, Field, model_validator

from llama_bench.fields import Base, Count, Positive, Real

# how the number of new tokens is spelled, in lm-eval's order of precedence; ours is the first
LENGTHS = ("max_gen_toks", "max_new_tokens", "max_tokens", "max_completion_tokens")
# these say how to draw, and nothing where the likeliest token is taken
OF_SAMPLING = (
    "temperature",
    "top_k",
    "top_p",
    "min_p",
    "typical_p",
    "epsilon_cutoff",
    "eta_cutoff",
)
# what a vLLM server does
SERVED = (
    "max_gen_toks",
    "until",
    "do_sample",
    "temperature",
    "top_k",
    "top_p",
    "min_p",
    "repetition_penalty",
)

# below it a model draws its likeliest token, and quotients overflow; vLLM takes it for the least
LEAST_TEMPERATURE = 0.01
Part = Annotated[Real, Field(ge=0, le=1)]
Strings = Annotated[
    list[str],
    BeforeValidator(lambda v: [v] if isinstance(v, str) else v, json_schema_input_type=list | str),
]


def spelled(settings: Mapping[str, Any]) -> dict[str, Any]:
    """The same settings, lengths as `max_gen_toks` and stop strings as a list."""
    found = {key: value for key, value in settings.items() if key not in LENGTHS}
    lengths = [settings[key] for key in LENGTHS if settings.get(key) is not None]
    if lengths:
        found["max_gen_toks"] = int(lengths[0])
    if isinstance(found.get("until"), str):
        found["until"] = [found["until"]]
    return found


def not_served(settings: Mapping[str, Any]) -> list[str]:
    """The settings that a vLLM server does not do."""
    return sorted(set(settings) - set(SERVED))


def _all_spellings(schema: dict[str, Any]) -> None:
    """Editors complete and check by the schema, which knows no validators."""
    keys = schema["properties"]
    for name in LENGTHS[1:]:
        keys[name] = {**keys[LENGTHS[0]], "description": f"The same as {LENGTHS[0]}."}


class Generation(Base):
    """transformers' settings by its names, but `max_gen_toks` (new tokens) and `until` (stop
    strings) by lm-eval's. A `temperature` above 0 draws; `do_sample: false` takes the likeliest
    token, or with `num_beams` the likeliest text."""

    model_config = ConfigDict(json_schema_extra=_all_spellings)

    max_gen_toks: Count | None = Field(None, gt=0)
    """New tokens at most."""
    until: Strings | None = None
    """Strings at which an answer ends."""
    do_sample: bool | None = None
    """Draw tokens, instead of taking the likeliest."""
    temperature: Annotated[Real, Field(ge=0)] | None = None
    """By which logits are divided before drawing; above 0 draws."""
    top_k: Count | None = None
    """Draw from so many likeliest tokens."""
    top_p: Part | None = None
    """Draw from the likeliest tokens of this share in all."""
    min_p: Part | None = None
    """Draw from tokens of at least this share of the likeliest one's."""
    typical_p: Part | None = None
    """Draw from the most typical tokens of this share in all."""
    epsilon_cutoff: Part | None = None
    """Draw from tokens of at least this share."""
    eta_cutoff: Part | None = None
    """The same, lower where the next token is uncertain."""
    num_beams: Count | None = Field(None, gt=0)
    """Search for the likeliest text with so many candidates."""
    length_penalty: Real | None = None
    """The power of the length that a candidate's score is divided by."""
    early_stopping: bool | None = None
    """End the search when there are enough whole candidates."""
    repetition_penalty: Positive | None = None
    """By which tokens that were there are made less likely."""
    no_repeat_ngram_size: Count | None = None
    """No so many tokens in a row come twice."""
    min_new_tokens: Count | None = None
    """New tokens at least."""

    @model_validator(mode="before")
    @classmethod
    def _one_spelling(cls, given: Any) -> Any:
        if not isinstance(given, Mapping):
            return given
        if len(lengths := [key for key in LENGTHS if key in given]) > 1:
            raise ValueError(f"{' and '.join(lengths)} are one setting; give max_gen_toks alone")
        if "max_length" in given:
            raise ValueError("max_length: counts the prompt too; give max_gen_toks")
        return {"max_gen_toks" if key in LENGTHS else key: given[key] for key in given}

    @model_validator(mode="after")
    def _draws_or_not(self):
        if self.temperature and self.temperature < LEAST_TEMPERATURE:
            raise ValueError(
                f"temperature: {self.temperature:g} is below {LEAST_TEMPERATURE}, where only the "
                "likeliest token is drawn; leave it out, which takes that token"
            )
        if self.do_sample and self.temperature == 0:
            raise ValueError("do_sample: true draws, which needs a temperature above 0")
        draws = self.do_sample or (self.do_sample is None and bool(self.temperature))
        idle = [key for key in OF_SAMPLING if getattr(self, key)]
        if idle and not draws:
            raise ValueError(f"{', '.join(idle)}: says how to draw; say do_sample: true too")
        return self

    @property
    def asked(self) -> dict[str, Any]:
        return self.model_dump(exclude_none=True)
