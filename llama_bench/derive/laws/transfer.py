"""What pre-training is worth in labelled data, against size and data (Hernandez et al. 2021)."""

from __future__ import annotations

from llama_bench.derive.laws.law import power_law


@power_law(
    needs=("params", "examples"),
    exponents={"alpha": (-3.0, 3.0), "beta": (-3.0, 3.0)},
    paper="Hernandez et al. 2021, arXiv 2102.01293, equation 1.1",
    floor=None,
    target="transferred",
)
def transfer(x):
    """D_T = k * D_F^alpha * N^beta

    N: parameters without embeddings, D_F: labelled data that was fine-tuned on, D_T: the labelled
    data that training from zero takes beyond D_F to reach the same loss at that size. alpha is low
    where the two texts lie close to each other, beta is what size does for generality. The paper
    counts characters; its exponents do not depend on that, its k does.
    """
    return {"k": {"alpha": x["examples"], "beta": x["params"]}}
