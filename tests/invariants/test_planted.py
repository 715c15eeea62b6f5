"""Mistakes planted in our own code: each is caught by an invariant, and by the one that should."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from own_nets import blobs, built_in
from torch import Tensor

from fls_bench import scaling
from fls_bench.invariants import INVARIANTS, compensation, multiplier, symmetries, twins
from fls_bench.invariants.search import examine
from fls_bench.metrics.snapshot import Snapshot
from fls_bench.schema import Adam, AdamW, InvariantFinding, LrRule, Sgd
from fls_bench.testing import Draw, Examined
from fls_bench.training import fused, optimizers, single
from fls_bench.training_setup import TrainingSetup

DRAW = Draw(seed=1, quarter_octaves=-12, batch_size=4, num_batches=2, epochs=2)
ONE_TASK = blobs(0, n_train=40)


def setup(**changes: Any) -> TrainingSetup:
    values = {"depth": 3, "task": ONE_TASK, **changes}
    return replace(built_in(**values))


def checked(name: str, of: TrainingSetup, draw: Draw = DRAW) -> InvariantFinding:
    return INVARIANTS[name].check(Examined(of), draw)


SETUPS: dict[str, Callable[[], TrainingSetup]] = {
    "sgd": setup,
    "biases": lambda: setup(bias=True),
    "momentum": lambda: setup(optimizer=Sgd(lr=0.03, momentum=0.9)),
    "penalty": lambda: setup(optimizer=Sgd(lr=0.1, weight_decay=0.1)),
    "clipped": lambda: setup(optimizer=Sgd(lr=0.1, clip_norm=0.05)),
    "adam": lambda: setup(optimizer=Adam(lr=0.01, epsilon=1e-3)),
    "adamw": lambda: setup(optimizer=AdamW(lr=0.01, epsilon=1e-3, weight_decay=0.2)),
}


@pytest.mark.parametrize("name", SETUPS)
def test_without_a_mistake_all_hold(name: str) -> None:
    for row in INVARIANTS.values():
        if not row.once and not row.optional:
            found = checked(row.name, SETUPS[name]())
            assert found.status != "broken", found
    assert checked("exact_rule", SETUPS[name]()).status == "held"


def factor_of(**wrong: Callable[[float], float]) -> Callable[[pytest.MonkeyPatch], None]:
    """``scaling.factors`` with some settings computed wrongly from the ratio of multipliers."""

    def plant(monkeypatch: pytest.MonkeyPatch) -> None:
        right = scaling.factors

        def factors(rule: LrRule, power: int, name: str, c_ratio: float) -> object:
            changed = {key: value(c_ratio) for key, value in wrong.items()}
            return replace(right(rule, power, name, c_ratio), **changed)

        monkeypatch.setattr(optimizers, "factors", factors)

    return plant


def rate_of(wrong: Callable[[LrRule, int, float], float]) -> Callable[[pytest.MonkeyPatch], None]:
    """``scaling.exact_rate_factor``, wherever it is used, computed wrongly."""

    def plant(monkeypatch: pytest.MonkeyPatch) -> None:
        for module in (scaling, compensation):
            monkeypatch.setattr(module, "exact_rate_factor", wrong)

    return plant


def shifted_usual(monkeypatch: pytest.MonkeyPatch) -> None:
    """The exponents of the rule are those of the layer before."""
    right = scaling.exponent

    def wrong(rule: LrRule, name: str) -> float:
        return max(1.0, right(rule, name) - 1)

    monkeypatch.setattr(scaling, "exponent", wrong)


MISTAKES: dict[str, tuple[str, Callable[[pytest.MonkeyPatch], None]]] = {
    "wrong exponent: c^(-1/L)": ("sgd", rate_of(lambda r, p, c: c ** (-1 / r.depth))),
    "wrong exponent: eta/c whatever L": ("sgd", rate_of(lambda r, p, c: c**-1.0)),
    "wrong exponent for Adam: as SGD": ("adam", rate_of(lambda r, p, c: c ** (-2 / r.depth))),
    "no compensation": ("momentum", rate_of(lambda r, p, c: 1.0)),
    "direction flipped": ("sgd", rate_of(lambda r, p, c: c ** (p / r.depth))),
    "compensated twice": ("sgd", rate_of(lambda r, p, c: c ** (-2 * p / r.depth))),
    "biases at one rate": ("biases", factor_of(lr=lambda c: 1.0)),
    "biases of the layer before": ("biases", shifted_usual),
    "penalty unscaled": ("penalty", factor_of(l2=lambda c: 1.0)),
    "penalty as a decay": ("penalty", factor_of(l2=lambda c: c ** (1 / 3))),
    "decay unscaled": ("adamw", factor_of(decay=lambda c: 1.0)),
    "epsilon unscaled": ("adam", factor_of(epsilon=lambda c: 1.0)),
    "epsilon the wrong way": ("adam", factor_of(epsilon=lambda c: c ** (-1 / 3))),
    "clipping unscaled": ("clipped", factor_of(clip=lambda c: 1.0)),
    "clipping the wrong way": ("clipped", factor_of(clip=lambda c: c ** (1 / 3))),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_in_the_rule_is_caught(mistake: str, monkeypatch: pytest.MonkeyPatch) -> None:
    name, plant = MISTAKES[mistake]
    plant(monkeypatch)
    found = checked("exact_rule", SETUPS[name]())
    assert found.status == "broken", found
    assert found.deviation is None or found.deviation > 1e-5


def test_a_search_ends_at_the_smallest_case(monkeypatch: pytest.MonkeyPatch) -> None:
    rate_of(lambda r, p, c: 1.0)(monkeypatch)
    (found,) = examine(Examined(setup()), names=["exact_rule"], examples=10, base_seed=5)
    assert found.status == "broken"
    assert found.counter_example == {
        "seed": 0, "quarter_octaves": -1, "batch_size": 2, "num_batches": 1, "epochs": 1,
        "c_ratio": 2**-0.25,
    }  # fmt: skip


# --- the multiplier in the wrong place ------------------------------------------------------


def test_a_multiplier_applied_twice_in_training_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    right = single.training_losses

    def twice(of: TrainingSetup, logits: Tensor, labels: Tensor) -> Tensor:
        return right(of, of.output_multiplier * logits, labels)

    monkeypatch.setattr(single, "training_losses", twice)
    # The wrapper's own c is the setup's here, so that it acts on the scaled net alone.
    at_c = replace(setup(), output_multiplier=0.25)
    assert checked("exact_rule", at_c).status in ("broken", "held")
    assert checked("batching", at_c).status == "broken"


def test_a_loss_that_forgets_the_multiplier_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        multiplier, "training_losses", lambda of, logits, y: logits.logsumexp(-1) - logits[:, 0]
    )
    assert checked("temperature", setup()).status == "broken"


def test_a_batched_step_that_forgets_the_multiplier_is_caught(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    right = fused.FusedMlps.__init__

    def forgetful(self: fused.FusedMlps, *arguments: Any) -> None:
        right(self, *arguments)
        self._c = torch.ones_like(self._c)

    monkeypatch.setattr(fused.FusedMlps, "__init__", forgetful)
    assert checked("batching", setup()).status == "broken"


def test_a_wrapper_that_does_not_multiply_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    right = twins.Examined.logits

    def plain(self: Examined, net: Any, x: Tensor, c: float, **options: Any) -> Tensor:
        return right(self, net, x, 1.0, **options)

    monkeypatch.setattr(twins.Examined, "logits", plain)
    assert checked("exact_rule", setup()).status == "broken"
    assert checked("temperature", setup()).status == "broken"


def test_measurements_that_forget_the_multiplier_are_caught(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The softmax of the loss has c, the probes do not: two equivalent nets are measured apart."""
    from test_exact import test_equivalent_nets_are_measured_alike

    monkeypatch.setattr(Snapshot, "logits", lambda self, split: self.final.outputs(split))
    with pytest.raises(AssertionError):
        test_equivalent_nets_are_measured_alike(False)


# --- symmetries -----------------------------------------------------------------------------


def summed(of: TrainingSetup, logits: Tensor, labels: Tensor) -> Tensor:
    from fls_bench.training.runs import training_losses

    return training_losses(of, logits, labels) * len(labels)  # a sum over the batch, not a mean


def by_place(of: TrainingSetup, logits: Tensor, labels: Tensor) -> Tensor:
    from fls_bench.training.runs import training_losses

    weights = torch.linspace(0.5, 1.5, len(labels), dtype=logits.dtype)
    return training_losses(of, logits, labels) * weights


def by_class(of: TrainingSetup, logits: Tensor, labels: Tensor) -> Tensor:
    from fls_bench.training.runs import training_losses

    return training_losses(of, logits, labels) * (1 + labels)


@pytest.mark.parametrize(
    ("loss", "name"),
    [(summed, "duplication"), (by_place, "sample_order"), (by_class, "label_names")],
)
def test_a_loss_without_a_symmetry_is_caught(
    loss: Callable[..., Tensor], name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(single, "training_losses", loss)
    assert checked(name, setup()).status == "broken"


def test_an_optimizer_that_sees_places_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    right = optimizers.SingleOptimizer.step

    def step(self: optimizers.SingleOptimizer, loss: Tensor) -> None:
        right(self, loss)
        with torch.no_grad():  # the first row of every matrix moves on its own
            for group in self._torch.param_groups:
                for parameter in group["params"]:
                    parameter[0].add_(1e-3)

    monkeypatch.setattr(optimizers.SingleOptimizer, "step", step)
    assert checked("permutation", setup()).status == "broken"


def test_an_optimizer_that_sees_axes_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    right = optimizers.SingleOptimizer.step

    def step(self: optimizers.SingleOptimizer, loss: Tensor) -> None:
        before = [p.detach().clone() for g in self._torch.param_groups for p in g["params"]]
        right(self, loss)
        with torch.no_grad():  # only the larger half of the coordinates moves
            for p, old in zip(
                (p for g in self._torch.param_groups for p in g["params"]), before, strict=True
            ):
                change = p - old
                p.copy_(old + change * (change.abs() > change.abs().median()))

    monkeypatch.setattr(optimizers.SingleOptimizer, "step", step)
    assert checked("rotation", setup()).status == "broken"


def test_rescaling_that_forgets_the_way_out_is_no_symmetry(monkeypatch: pytest.MonkeyPatch) -> None:
    """Weights into a unit scaled alone change the function: nothing is claimed, and void is said."""
    right = symmetries.structure.rescaled

    def one_sided(net: Any, pair: Any, factors: Tensor) -> Any:
        changed = right(net, pair, factors)
        if changed is not None:
            with torch.no_grad():
                changed.get_submodule(pair.second).weight.mul_(2.0)
        return changed

    monkeypatch.setattr(symmetries.structure, "rescaled", one_sided)
    assert checked("relu_rescaling", setup()).status == "void"
