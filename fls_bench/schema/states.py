"""How a run ended, on which side of the best c a setup lies, and how much evidence there was."""

from __future__ import annotations

from enum import StrEnum


class Outcome(StrEnum):
    """How one training run ended."""

    REACHED_TARGET = "reached_target"
    OUT_OF_BUDGET = "out_of_budget"
    PLATEAU = "plateau"
    DIVERGED = "diverged"
    FAILED = "failed"

    @property
    def sentence(self) -> str:
        """One sentence for a person."""
        return {
            Outcome.REACHED_TARGET: "Training reached its target.",
            Outcome.OUT_OF_BUDGET: "Training was still improving when its epochs ran out.",
            Outcome.PLATEAU: "Training stopped improving before it reached its target.",
            Outcome.DIVERGED: "Training diverged: the loss grew without bound or became NaN.",
            Outcome.FAILED: "Training failed with an error.",
        }[self]


class Regime(StrEnum):
    """On which side of the best feature learning strength a training setup lies."""

    OVER_ALIGNED = "over_aligned"
    NEAR_OPTIMAL = "near_optimal"
    OVER_FITTED = "over_fitted"
    INCONCLUSIVE = "inconclusive"

    @property
    def label(self) -> str:
        """The name with a hyphen, as shown on screen."""
        return self.value.replace("_", "-")

    @property
    def sentence(self) -> str:
        """One sentence for a person."""
        return {
            Regime.OVER_ALIGNED: (
                "Feature learning is too strong (c is too small): a larger output multiplier "
                "generalizes better."
            ),
            Regime.NEAR_OPTIMAL: (
                "The output multiplier is near its optimum: no other c in the range does better by "
                "more than twice the practical margin."
            ),
            Regime.OVER_FITTED: (
                "Feature learning is too weak (c is too large): a smaller output multiplier "
                "generalizes better."
            ),
            Regime.INCONCLUSIVE: "The evidence can't separate the regimes.",
        }[self]


class Tier(StrEnum):
    """How much evidence there was, from the weights alone up to a recipe that can be re-run."""

    T0 = "T0"
    T1 = "T1"
    T2 = "T2"
    T3 = "T3"

    @property
    def sentence(self) -> str:
        """One sentence for a person."""
        return {
            Tier.T0: "Weights alone: the output scale can't be seen from weights.",
            Tier.T1: "Weights and data.",
            Tier.T2: "Weights, data and the initial weights.",
            Tier.T3: "Data and a recipe by which nets can be trained again: c can be swept.",
        }[self]
