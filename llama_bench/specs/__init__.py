"""What each verb is asked: one spec a verb, one module a spec.

Specs are chained: an evaluation names the training it is about by that training's id.
"""

from llama_bench.specs.evaluate import EvaluateSpec
from llama_bench.specs.examples import ExamplesSpec
from llama_bench.specs.finetune import FinetuneSpec
from llama_bench.specs.forecast import ForecastPoint, ForecastSpec
from llama_bench.specs.fuse import OF_OUTPUTS, FuseSpec, Method, check_weights
from llama_bench.specs.identity import Spec
from llama_bench.specs.limits import LimitsSpec
from llama_bench.specs.lineage import Made, Member
from llama_bench.specs.prepare import CleaningStep, Corpus, PrepareSpec
from llama_bench.specs.pretrained import Pretrained
from llama_bench.specs.probe import Phase, Precision, ProbeSpec
from llama_bench.specs.tasks import TasksSpec
from llama_bench.specs.train import TrainSpec

__all__ = [
    "OF_OUTPUTS",
    "SPECS",
    "CleaningStep",
    "Corpus",
    "EvaluateSpec",
    "ExamplesSpec",
    "FinetuneSpec",
    "ForecastPoint",
    "ForecastSpec",
    "FuseSpec",
    "LimitsSpec",
    "Made",
    "Member",
    "Method",
    "Phase",
    "Precision",
    "PrepareSpec",
    "Pretrained",
    "ProbeSpec",
    "Spec",
    "TasksSpec",
    "TrainSpec",
    "check_weights",
]

SPECS: dict[str, type[Spec]] = {
    spec.verb: spec
    for spec in (
        PrepareSpec,
        TasksSpec,
        ExamplesSpec,
        TrainSpec,
        FinetuneSpec,
        FuseSpec,
        EvaluateSpec,
        LimitsSpec,
        ProbeSpec,
    )
}
