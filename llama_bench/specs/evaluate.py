"""What `evaluate` is asked: one model, and lm-eval's tasks."""

from __future__ import annotations

from typing import Any, ClassVar, Literal

from llama_bench.fields import Count
from llama_bench.specs.identity import Spec
from llama_bench.specs.pretrained import Pretrained


class EvaluateSpec(Spec):
    """One model on one suite of lm-eval tasks, and its text after a few prompts.

    `train` is the id of the training whose checkpoint is asked, `finetune` or `fuse` that of the
    run that made another model, or `pretrained` says what model was loaded. `held_out` is the id of
    the tasks run that wrote the tasks whose names begin with `heldout_`, `examples` are those of
    the runs that wrote fine-tuning's test tasks; `include` are digests of folders of further task
    files (their paths are inputs). `state` asks the trunk as the training left it, or its averaged
    weights, instead of the checkpoint. `bos: stock` charges what lm-eval's own model charges.
    `generation` replaces the tasks' own generation settings. `quantization` is of the weights
    alone; `batch` is the most rows of a pass, which moves numbers by rounding.
    """

    verb: ClassVar[str] = "evaluate"
    recipe: int = 5
    train: str | None = None
    pretrained: Pretrained | None = None
    tasks: tuple[str, ...]
    held_out: str | None = None
    include: str | None = None
    shots: Count | None = None
    limit: Count | None = None
    prompts: tuple[str, ...] | None = None
    prompt_tokens: Count | None = None
    precision: Literal["float32", "bfloat16"] = "float32"
    seed: Count = 0
    state: Literal["trunk", "averaged"] | None = None
    engine: Literal["vllm"] | None = None
    quantization: Literal["int8", "int4"] | None = None
    chat_template: bool | None = None
    generation: dict[str, Any] | None = None
    bos: Literal["stock"] | None = None
    finetune: str | None = None
    fuse: str | None = None
    examples: tuple[str, ...] | None = None
    batch: Count | None = None

    @property
    def loaded(self) -> tuple:
        """What decides the model that is loaded, or served: specs that agree in it can be asked of
        one that was loaded once."""
        made = (self.train, self.finetune, self.fuse, self.state)
        return (*made, self.pretrained, self.precision, self.engine, self.quantization)

    @property
    def run(self) -> str | None:
        """The id of the run that made the model; None for one trained elsewhere."""
        return self.train or self.finetune or self.fuse

    @property
    def slug(self) -> str:
        return self.run.rpartition("-")[0] if self.run else self.pretrained.slug
