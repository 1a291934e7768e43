"""What a ladder's trainings are asked: config.yaml and the recipe's rules made into numbers."""

from __future__ import annotations

from llama_bench import recipe
from llama_bench.config import Config
from llama_bench.ladder import Rung, Step
from llama_bench.specs import PrepareSpec, TrainSpec

SENSITIVITY = (0.5, 2.0)
_AS_ASKED = ("context", "weight_decay", "betas", "clip", "precision")


class TrainSpecs:
    """`own` is the study's own text, on which rates are measured."""

    def __init__(self, config: Config, own: PrepareSpec):
        self.config, self.own = config, own

    def branch(
        self, data: PrepareSpec, unique_tokens: int | None, rung: Rung, step: Step, seed: int
    ) -> TrainSpec:
        """A size on a budget of tokens of `data`; a size that is swept takes its best rate."""
        sweep = tuple(spec.id for _, spec in self.sweep(rung)) or None
        rate = None if sweep else self._rate(rung, step)
        return self._spec(data, unique_tokens, rung, step, seed, rate, sweep)

    def sweep(self, rung: Rung) -> list[tuple[float, TrainSpec]]:
        """Each factor of the rule's rate that is tried; none for a size with a rate of its own."""
        sweep = self.config.train.sweep
        if sweep is None or rung.model.learning_rate is not None:
            return []
        return [(factor, self._at(factor, rung, self.sweep_step(rung))) for factor in sweep.factors]

    def sweep_step(self, rung: Rung) -> Step:
        budget = self.config.train.sweep.budget
        return rung.steps[0] if budget is None else Step(budget)

    def sensitivity(self, rung: Rung) -> list[tuple[float, TrainSpec]]:
        """Half and twice the rate, at the largest budget."""
        return [(factor, self._at(factor, rung, rung.steps[-1])) for factor in SENSITIVITY]

    def _at(self, factor: float, rung: Rung, step: Step) -> TrainSpec:
        rate = float(f"{factor * self._rate(rung, step):.6g}")
        unique_tokens, seed = self.config.data.unique_tokens, self.config.train.seeds[0]
        return self._spec(self.own, unique_tokens, rung, step, seed, rate, None)

    def _rate(self, rung: Rung, step: Step) -> float:
        batch_tokens = self.config.batch(rung, step) * self.config.train.context
        return (
            rung.model.learning_rate
            or self.config.train.learning_rate
            or recipe.peak_rate(
                rung.model.shape.size, self.config.horizon(rung, step), batch_tokens
            )
        )

    def _spec(self, data, unique_tokens, rung: Rung, step: Step, seed, rate, sweep) -> TrainSpec:
        asked = self.config.train
        wsd = asked.schedule == "wsd"
        return TrainSpec(
            model=rung.model.shape,
            data=data.id,
            tokens=step.tokens,
            batch=self.config.batch(rung, step),
            learning_rate=rate,
            sweep=sweep,
            warmup_tokens=self.config.warmup_tokens(rung, step),
            schedule=None if wsd else asked.schedule,
            decay=asked.decay if wsd else None,
            decay_share=asked.decay_share if wsd else None,
            unique_tokens=unique_tokens,
            seed=seed,
            **{key: getattr(asked, key) for key in _AS_ASKED},
        )
