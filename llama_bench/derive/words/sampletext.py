"""The texts that models wrote, side by side under their prompts, each at its largest budget."""

from __future__ import annotations

from typing import Any

from llama_bench.derive.words import show


def told(tables) -> list[dict[str, Any]]:
    """Per prompt and way of decoding, what each model wrote, smallest model first."""
    samples = tables["samples"]
    longest = samples.groupby("model")["budget"].transform("max")
    samples = samples[(samples["budget"] == longest) | longest.isna()]
    samples = samples.assign(size=samples["parameters_without_embeddings"])
    samples = samples.sort_values(["size", "seed"], kind="stable", na_position="last")
    samples = samples.drop_duplicates(["model", "prompt", "decoding", "sample_seed"])
    found = []
    for (prompt, decoding), rows in samples.groupby(
        ["prompt", "decoding"], sort=False, dropna=False
    ):
        texts = [
            {
                "model": row.model,
                "about": f"{show.short(row.size)} parameters"
                + (
                    f", {show.short(row.budget)} tokens"
                    if row.budget == row.budget
                    else ", trained elsewhere"
                ),
                "text": row.text,
            }
            for row in rows.itertuples()
            if not show.absent(row.text)
        ]
        found.append({"prompt": prompt, "decoding": decoding, "texts": texts})
    prompts = [sample["prompt"] for sample in found]
    return sorted(found, key=lambda sample: prompts.index(sample["prompt"]))
