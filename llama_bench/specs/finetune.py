"""What `finetune` is asked: a base, labelled examples, and how far it may move."""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import Field, model_validator

from llama_bench.fields import Count, Real, short
from llama_bench.shape import Shape
from llama_bench.specs.identity import Spec
from llama_bench.specs.lineage import Member


class FinetuneSpec(Spec):
    """Supervised fine-tuning: the loss is that of the answers alone, nats per answer token.

    `base` is the model that it begins with; `model` a shape that begins with random weights and
    the tokenizer of the prepare run `data`, to compare with. `fraction` of the labelled training
    examples are read, always the first of them, so that a smaller part begins a larger one. At
    most `steps` of `batch` examples are taken, over and over; every `validate_every` steps the
    loss on the validation part is measured, the best state is the one that is kept, and after
    `patience` validations without a better one it stops. `lora` moves low-rank products of
    `targets` alone (Hu et al. 2021, arXiv 2106.09685, section 4.1), which are added to the weights
    in the end. Examples of more than `context` tokens are left out and counted. `bos: stock` begins
    them as an evaluation of that policy does.
    """

    verb: ClassVar[str] = "finetune"
    recipe: int = 2
    base: Member | None = None
    model: Shape | None = None
    data: str
    examples: str
    fraction: Real | None = Field(None, gt=0, lt=1)
    method: Literal["full", "lora"] = "full"
    rank: Count | None = Field(None, gt=0)
    alpha: Real | None = Field(None, gt=0)
    targets: tuple[str, ...] | None = None
    steps: Count = Field(gt=0)
    validate_every: Count = Field(gt=0)
    patience: Count = Field(gt=0)
    batch: Count = Field(gt=0)
    context: Count = Field(gt=1)
    learning_rate: Real = Field(gt=0)
    warmup_steps: Count = 0
    weight_decay: Real = Field(0.0, ge=0)
    betas: tuple[Real, Real] = (0.9, 0.95)
    clip: Real = Field(1.0, gt=0)
    chat_template: bool | None = None
    precision: Literal["float32", "bfloat16"] = "float32"
    seed: Count = 0
    bos: Literal["stock"] | None = None

    @model_validator(mode="after")
    def _whole(self):
        if (self.base is None) == (self.model is None):
            raise ValueError("give either base (a model) or model (a shape, to begin from zero)")
        if (self.method == "lora") != (None not in (self.rank, self.alpha, self.targets)):
            raise ValueError("rank, alpha, targets: belong to lora, and lora needs all of them")
        return self

    @property
    def slug(self) -> str:
        of = self.base.slug if self.base else f"{short(self.model.size)}-scratch"
        return f"{of}-{self.examples.rpartition('-')[0]}"
