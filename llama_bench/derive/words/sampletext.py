"""The texts that models wrote under their prompts, each at its largest budget: every model's ways
of decoding (greedy, drawn) side by side."""

from __future__ import annotations

import re
from typing import Any

from llama_bench.derive.words import show

_EMPTY_LINES = re.compile(r"\n{4,}")


def told(tables) -> list[dict[str, Any]]:
    """Per prompt what each model wrote, smallest model first: {"prompt", "decodings", "models":
    [{"model", "about", "texts": one per decoding, None where there is none}]}."""
    samples = tables["samples"]
    longest = samples.groupby("model")["budget"].transform("max")
    samples = samples[(samples["budget"] == longest) | longest.isna()]
    samples = samples.assign(size=samples["parameters_without_embeddings"])
    samples = samples.sort_values(["size", "seed"], kind="stable", na_position="last")
    samples = samples.drop_duplicates(["model", "prompt", "decoding", "sample_seed"])
    samples = samples.assign(way=samples["decoding"].map(_way))
    found = []
    for prompt, rows in samples.groupby("prompt", sort=False, dropna=False):
        ways = list(dict.fromkeys(rows["way"]))
        models = [_model(mine, ways) for _, mine in rows.groupby("model", sort=False)]
        found.append({"prompt": prompt, "decodings": ways, "models": models})
    return found


def _way(decoding) -> str:
    return "" if show.absent(decoding) else str(decoding)


def _model(rows, ways: list[str]) -> dict[str, Any]:
    """One model's texts, in the order of `ways`."""
    row = rows.iloc[0]
    trained = f"{show.short(row['budget'])} tokens"
    text = dict(zip(rows["way"], rows["text"], strict=True))
    return {
        "model": row["model"],
        "about": f"{show.short(row['size'])} parameters, "
        + ("trained elsewhere" if show.absent(row["budget"]) else trained),
        "texts": [None if show.absent(text.get(way)) else _shown(text[way]) for way in ways],
    }


def _shown(text: str) -> str:
    """Many empty lines as their number, which else would push everything else away."""
    return _EMPTY_LINES.sub(lambda found: f"\n⏎ × {len(found[0])}\n", text)
