"""How a net was trained: optimizer, stopping rule, rule for the rates, terms of the loss."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import Discriminator, Field, Tag, model_validator

from fls_bench.schema.base import Frozen, PositiveFloat, Seed


class Cosine(Frozen):
    """Half a cosine from the full rate down to ``final`` times it, one value per epoch."""

    kind: Literal["cosine"] = "cosine"
    epochs: Annotated[int, Field(ge=1, le=1_000_000)] | None = None
    """Its length, after which the rate stays; None: the most epochs of the stopping rule."""
    final: Annotated[float, Field(ge=0, lt=1)] = 0.0


class StepDecay(Frozen):
    """The rate times ``factor`` after every so many epochs."""

    kind: Literal["step"] = "step"
    every: Annotated[int, Field(ge=1, le=1_000_000)]
    factor: Annotated[float, Field(gt=0, lt=1)] = 0.1


class PerStep(Frozen):
    """A linear warm-up from 0, then the full rate or a decay to 0; one value per optimizer step.

    As ``get_{linear,cosine,constant}_schedule_with_warmup`` of transformers, whose Trainer decays
    linearly where nothing else is said. The first step of a warm-up has a rate of 0.
    """

    kind: Literal["per_step"] = "per_step"
    decay: Literal["constant", "linear", "cosine"] = "linear"
    """``cosine``: half a cosine."""
    warmup_steps: Annotated[int, Field(ge=0, le=100_000_000)] = 0
    steps: Annotated[int, Field(ge=1, le=100_000_000)] | None = None
    """Its length, warm-up included, after which the rate stays at 0; None: the steps of a
    ``FixedSteps``, or those of the most epochs of another stopping rule."""

    @model_validator(mode="after")
    def _a_constant_rate_has_no_end(self) -> PerStep:
        if self.decay == "constant" and self.steps is not None:
            raise ValueError("a constant rate has no steps after which it ends")
        return self


Schedule = Annotated[Cosine | StepDecay | PerStep, Field(discriminator="kind")]


class _Optimizer(Frozen):
    """``lr`` is the rate at the setup's own output multiplier."""

    lr: PositiveFloat = 0.1
    weight_decay: Annotated[float, Field(ge=0)] = 0.0
    clip_norm: PositiveFloat | None = None
    """The gradient is scaled down to this norm over all parameters where it is longer."""
    schedule: Schedule | None = None


class Sgd(_Optimizer):
    """Stochastic gradient descent; ``weight_decay`` is an L2 penalty."""

    kind: Literal["sgd"] = "sgd"
    momentum: Annotated[float, Field(ge=0, lt=1)] = 0.0
    nesterov: bool = False

    @model_validator(mode="after")
    def _nesterov_needs_momentum(self) -> Sgd:
        if self.nesterov and self.momentum == 0:
            raise ValueError("nesterov needs momentum > 0")
        return self


class Adam(_Optimizer):
    """Adam (arXiv 1412.6980); ``weight_decay`` is an L2 penalty, part of the gradient."""

    kind: Literal["adam"] = "adam"
    lr: PositiveFloat = 1e-3
    beta1: Annotated[float, Field(ge=0, lt=1)] = 0.9
    beta2: Annotated[float, Field(ge=0, lt=1)] = 0.999
    epsilon: PositiveFloat = 1e-8


class AdamW(_Optimizer):
    """Adam with decoupled weight decay (arXiv 1711.05101): W -= lr·decay·W beside the step."""

    kind: Literal["adamw"] = "adamw"
    lr: PositiveFloat = 1e-3
    weight_decay: Annotated[float, Field(ge=0)] = 0.01
    beta1: Annotated[float, Field(ge=0, lt=1)] = 0.9
    beta2: Annotated[float, Field(ge=0, lt=1)] = 0.999
    epsilon: PositiveFloat = 1e-8


AnyOptimizer = Sgd | Adam | AdamW
Optimizer = Annotated[AnyOptimizer, Field(discriminator="kind")]


class TargetLoss(Frozen):
    """Stop the first time the loss on the whole training set, after an epoch, is <= the target."""

    target_loss: PositiveFloat = 0.1
    max_epochs: Annotated[int, Field(ge=1, le=1_000_000)] = 300

    def __init__(self, target_loss: float = 0.1, **others: Any) -> None:
        super().__init__(**{"target_loss": target_loss, **others})


class TargetAccuracy(Frozen):
    """Stop the first time the training accuracy, after an epoch, is >= the target."""

    target_accuracy: Annotated[float, Field(gt=0, le=1)] = 0.99
    max_epochs: Annotated[int, Field(ge=1, le=1_000_000)] = 300

    def __init__(self, target_accuracy: float = 0.99, **others: Any) -> None:
        super().__init__(**{"target_accuracy": target_accuracy, **others})


class ValidationLoss(Frozen):
    """Stop when the validation loss, after an epoch, has not been below its lowest for some epochs.

    The net that is kept, with its buffers, is that of the epoch with the lowest validation loss, also
    where the epochs run out first. So the validation part chooses the stop, as it chooses c*: errors
    on it are too small by what was chosen. The test part chooses nothing.
    """

    validation_patience: Annotated[int, Field(ge=1, le=1_000_000)] = 20
    """How many epochs without a new lowest validation loss end the training."""
    max_epochs: Annotated[int, Field(ge=1, le=1_000_000)] = 300

    def __init__(self, validation_patience: int = 20, **others: Any) -> None:
        super().__init__(**{"validation_patience": validation_patience, **others})


class FixedSteps(Frozen):
    """Stop after exactly so many optimizer steps, in the middle of an epoch where they end there."""

    steps: Annotated[int, Field(ge=1, le=100_000_000)]
    max_epochs: Annotated[int, Field(ge=1, le=1_000_000)] = 1_000_000
    """Where training is planned, at most as many as the steps take on the setup's data."""

    def __init__(self, steps: int, **others: Any) -> None:
        super().__init__(**{"steps": steps, **others})


Stop = TargetLoss | TargetAccuracy | ValidationLoss | FixedSteps


def _kind_of_stop(value: Any) -> str:
    for kind, key in (
        (TargetAccuracy, "target_accuracy"),
        (ValidationLoss, "validation_patience"),
        (FixedSteps, "steps"),
    ):
        if isinstance(value, kind) or (isinstance(value, Mapping) and key in value):
            return f"({key})"
    return "(target_loss)"


StopByKey = Annotated[
    Annotated[TargetLoss, Tag("(target_loss)")]
    | Annotated[TargetAccuracy, Tag("(target_accuracy)")]
    | Annotated[ValidationLoss, Tag("(validation_patience)")]
    | Annotated[FixedSteps, Tag("(steps)")],
    Discriminator(_kind_of_stop),
]
"""As it is stored: told apart by the key that no other stop has; without one a ``TargetLoss``."""

Loss = Literal["cross_entropy", "logistic", "mse"]
Augmentation = Literal["flip", "crop"]
"""``flip``: left to right in half of the cases. ``crop``: by up to four pixels, zeros come in."""
LrRuleName = Literal["homogeneous", "normalised", "plain", "calibrated"]
LabelSmoothing = Annotated[float, Field(ge=0, lt=1)]

RankMeasure = Literal["nuclear", "participation"]
"""``nuclear``: (sum sigma)^2 / sum sigma^2, which sees the tail. ``participation``: of sigma^2."""
RankSide = Literal["hold", "lower"]


class RankPenalty(Frozen):
    """A loss term, strength · sum over layers of the squared logarithm of rank missed.

    ``hold``: max(0, log target - log rank), ``lower``: max(0, log rank - log target); the rank is that
    of the minibatch's centred features. It does not look at their scale, so the identity between c
    and the scale of the parameters holds with the strength unchanged.
    """

    layers: Literal["hidden", "last", "earlier"] = "hidden"
    """Every hidden layer, the last one, or all but the last."""
    side: RankSide = "hold"
    strength: PositiveFloat = 1.0
    offset: Annotated[float, Field(ge=-5, le=5)] = 0.0
    """Added to the logarithm of the target: beyond it, a penalty also acts on the net at c*."""


class RankTerm(Frozen):
    """Which ranks a run measures, and which penalties with which targets are added to its loss."""

    measure: RankMeasure = "nuclear"
    penalties: tuple[RankPenalty, ...] = ()
    """Empty: the ranks are only measured."""
    targets: dict[RankSide, dict[int, tuple[float, ...]]] = {}
    """Side -> seed -> log rank of each hidden layer: of another net of the same seed."""
    misdirected: bool = False
    """A control: the same gradient of the penalties, each weight's given to another weight."""


class LrRule(Frozen):
    """How the rates follow the output multiplier; formulas in ``fls_bench.scaling``.

    A net is quasi-homogeneous if parameters times alpha^e, each with an exponent e of its own, give
    alpha^L times the output (Kunin et al., arXiv 2210.03820). Then a rule is exact.
    """

    name: LrRuleName
    """``homogeneous``: exact; e = 1 for weights. ``normalised``: exact; e = 0 but for the read-out
    and what follows the last normalisation. ``plain``: one rate for all parameters as if L = 2
    (YHL's eta/c), exact only where that is true. ``calibrated``: no rule is exact; a first guess
    per c, changed where training fails."""
    depth: Annotated[int, Field(ge=1, le=1000)]
    """L: the degree of homogeneity, or the number of weight layers for ``calibrated``."""
    exponents: dict[str, float] = {}
    """Parameter name -> e, where that is not the rule's usual one (1; for ``normalised`` 0)."""


class Recipe(Frozen):
    """How a net was trained; with it, and the data, c can be swept."""

    loss: Loss = "cross_entropy"
    label_smoothing: LabelSmoothing = 0.0
    optimizer: Optimizer = Sgd()
    lr_rule: LrRule | None = None
    batch_size: Annotated[int, Field(ge=1, le=1_000_000)] = 25
    augmentation: tuple[Augmentation, ...] = ()
    stop: StopByKey = TargetLoss()
    seed: Seed = 0
    data_seed: Seed = 0
