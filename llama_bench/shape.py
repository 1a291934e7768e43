"""A Llama's shape: what it is made of, what it counts, and what a token costs in it.

Only integers are handled here, no weights: a study is planned, and a 70 B model costed, without
torch. Two facts carry everything. A matrix product with P weights costs 2 P floating-point
operations per token, and twice that again on the way back; attention adds a term that grows with
the context. And the embedding table is looked up, not multiplied, so that small models, where it
is most of the weights, look better or worse by the way one counts (Kaplan et al. 2020, section
2.1; Pearce and Song 2024, arXiv 2406.12907).
"""

from __future__ import annotations

import math

from pydantic import Field, model_validator

from llama_bench.fields import Base, Count


class Shape(Base):
    """A decoder of the Llama family, without its vocabulary (the tokenizer's matter).

    `kv_heads` and `ffn_width` default to plain multi-head attention and to 8/3 of the width,
    the ratio of Touvron et al. 2023 (arXiv 2302.13971, section 2.2).
    """

    layers: Count = Field(gt=0)
    width: Count = Field(gt=0)
    heads: Count = Field(gt=0)
    kv_heads: Count = Field(gt=0)
    ffn_width: Count = Field(gt=0)
    tied_embeddings: bool = True

    @model_validator(mode="before")
    @classmethod
    def _fill(cls, given):
        if isinstance(given, dict):
            given = dict(given)
            if given.get("kv_heads") is None and "heads" in given:
                given["kv_heads"] = given["heads"]
            if given.get("ffn_width") is None and isinstance(given.get("width"), int):
                given["ffn_width"] = ffn_width(given["width"])
        return given

    @model_validator(mode="after")
    def _divides(self):
        if self.width % self.heads:
            raise ValueError(f"heads: {self.heads} does not divide the width {self.width}")
        if self.heads % self.kv_heads:
            raise ValueError(f"kv_heads: {self.kv_heads} does not divide heads ({self.heads})")
        if self.head_size % 2:
            raise ValueError(
                f"heads: {self.heads} heads in width {self.width} give heads of odd size "
                f"{self.head_size}; rotary embeddings need an even one"
            )
        return self

    @property
    def head_size(self) -> int:
        return self.width // self.heads

    @property
    def size(self) -> int:
        """Parameters without the embedding table and without the output head."""
        return self.layers * (self._layer_matrices + 2 * self.width) + self.width

    @property
    def _layer_matrices(self) -> int:
        kv_width = self.kv_heads * self.head_size
        attention = 2 * self.width * self.width + 2 * self.width * kv_width
        return attention + 3 * self.width * self.ffn_width

    def parameters(self, vocab_size: int) -> dict[str, int]:
        """The three counts in use: all, without embeddings and head, and in matrix products.

        The head multiplies every token whether or not its weights are tied to the embeddings, so
        it stands in `in_matrix_products` either way.
        """
        table = vocab_size * self.width
        return {
            "all": self.size + table * (1 if self.tied_embeddings else 2),
            "without_embeddings": self.size,
            "in_matrix_products": self.layers * self._layer_matrices + table,
        }

    def flops_per_token(self, vocab_size: int, context: int) -> int:
        """Floating-point operations of one training step per token: forward and backward.

        6 per weight in a matrix product (head included), and for causal attention
        6 x layers x width x context: scores and mixing cost 4 x width x (context / 2) per layer
        forward, the half because a token sees only what came before it (Chowdhery et al. 2022,
        arXiv 2204.02311, appendix B, with the causal half).
        """
        matrices = self.parameters(vocab_size)["in_matrix_products"]
        return 6 * matrices + 6 * self.layers * self.width * context

    def kv_bytes_per_token(self, bytes_per_number: int) -> int:
        """Bytes that one token of context takes in the key-value cache."""
        return 2 * self.layers * self.kv_heads * self.head_size * bytes_per_number


def shape_of_size(size: int, tied_embeddings: bool = True) -> Shape:
    """The shape whose parameters without embeddings come nearest to `size`, and look sensible.

    Sensible is: width over layers near a ratio that grows slowly with size, from about 24 at
    50 thousand parameters to the 128 of the 1 B to 7 B Llamas (loss is flat around the optimum:
    Kaplan et al. 2020, figure 5), heads of 16 to 128 numbers, widths and feed-forward widths in
    multiples that matrix kernels like. The result lies within a few per cent of `size`; tables
    carry the exact count. Raises ValueError below 5,000 parameters.
    """
    if size < 5_000:
        raise ValueError(
            f"size: {size} is too small for a Llama; 5k parameters without embeddings are the least"
        )
    ideal_ratio = min(128.0, 24.0 * (size / 5e4) ** 0.17)

    def badness(candidate: tuple[int, int, int]) -> float:
        layers, width, ffn = candidate
        heads, kv_heads = _heads(width)
        count = layers * (width * width * (2 + 2 * kv_heads / heads) + 3 * width * ffn)
        off_target = max(0.0, abs(math.log(count / size)) - 0.04)
        off_ratio = abs(math.log(width / layers / ideal_ratio))
        return 20 * off_target + off_ratio + abs(math.log(ffn / width * 3 / 8))

    layers, width, ffn = min(_candidates(size), key=badness)
    heads, kv_heads = _heads(width)
    return Shape(
        layers=layers,
        width=width,
        heads=heads,
        kv_heads=kv_heads,
        ffn_width=ffn,
        tied_embeddings=tied_embeddings,
    )


def _candidates(size: int):
    """(layers, width, feed-forward width): for every depth the widths that bracket the target."""
    for layers in range(2, 161):
        # 12 x layers x width^2 is the classic count of a decoder's weights
        guess = math.sqrt(size / (12 * layers))
        step = 16 if guess < 128 else 32 if guess < 256 else 64 if guess < 2048 else 512
        first = max(step, int(guess / step) * step)
        for width in (first, first + step):
            # the feed-forward width takes up what the multiples of the width leave over
            heads, kv_heads = _heads(width)
            rest = size / layers - width * width * (2 + 2 * kv_heads / heads)
            wanted = min(max(rest / (3 * width), 2.25 * width), 3.25 * width)
            yield layers, width, _multiple(wanted, width)


def _heads(width: int) -> tuple[int, int]:
    """Heads of 16 to 128 numbers; in wide models one key-value head for four, as Llama 3."""
    size = 16 if width < 128 else 32 if width < 256 else 64 if width < 2048 else 128
    heads = max(1, width // size)
    return heads, heads // 4 if width >= 2048 else heads


def ffn_width(width: int) -> int:
    """8/3 of the width, rounded to a multiple that kernels like."""
    return _multiple(width * 8 / 3, width)


def _multiple(amount: float, width: int) -> int:
    multiple = 8 if width < 128 else 16 if width < 256 else 64 if width < 2048 else 256
    return max(multiple, round(amount / multiple) * multiple)
