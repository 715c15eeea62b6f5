"""The matrix of known regimes: real nets, real training, the whole path.

Digits and random labels run by default with seed 0; all else is behind the marker ``calibration``.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path

import pytest
from error_rates import Silent

from fls_bench import bench
from fls_bench.bench import Options
from fls_bench.scaling import parse_multiplier
from fls_bench.schema import Judgement, Recipe, Regime, Sgd, TargetLoss
from fls_bench.subject import built_in_setup
from fls_bench.tasks import task_source

SEEDS = [
    pytest.param(0, id="seed0"),
    pytest.param(1, id="seed1", marks=pytest.mark.calibration),
    pytest.param(2, id="seed2", marks=pytest.mark.calibration),
]
RARELY = [pytest.param(k, id=f"seed{k}", marks=pytest.mark.calibration) for k in range(3)]


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Setups that differ in c alone share their runs."""
    return tmp_path_factory.mktemp("runs")


def judged(
    seed: int, store: Path, fixed_seeds: int | None = None, **arguments: object
) -> Judgement:
    arguments.setdefault("recipe", Recipe(stop=TargetLoss(target_loss=0.1, max_epochs=300)))
    setup = built_in_setup(base_lr=0.1, **arguments)  # type: ignore[arg-type]
    options = Options(
        listener=Silent(), seed=seed, store=store, budget_seconds=3600, fixed_seeds=fixed_seeds
    )
    return bench.diagnose_setup(setup, options)


@cache
def digits(seed: int, multiplier: str, store: Path) -> Judgement:
    return judged(
        seed,
        store,
        name="mlp",
        arguments={"depth": 4, "width": 128},
        source=task_source("digits", {"n_train": 150}),
        output_multiplier=parse_multiplier(multiplier),
    )


@pytest.mark.parametrize("seed", SEEDS)
class TestDigits:
    """Three hidden layers of 128, n = 150."""

    def test_small_c_is_over_aligned(self, seed: int, store: Path) -> None:
        found = digits(seed, "2^-9", store).diagnosis
        assert found is not None
        assert found.regime is Regime.OVER_ALIGNED, found.reason
        assert found.mechanism is not None
        assert found.mechanism.code in ("rank_collapse", "undetermined")
        advice = found.recommendation
        assert advice.multiply_output_by is not None
        assert advice.multiply_output_by > 1
        assert advice.expected_gain is not None
        assert advice.expected_gain.low > 0
        assert advice.learning_rate is not None
        assert advice.learning_rate[1] < advice.learning_rate[0]

    def test_middle_c_is_near_optimal(self, seed: int, store: Path) -> None:
        found = digits(seed, "2^-4", store).diagnosis
        assert found is not None
        assert found.regime is Regime.NEAR_OPTIMAL, found.reason
        assert found.recommendation.multiply_output_by == 1

    def test_large_c_is_over_fitted_with_its_face(self, seed: int, store: Path) -> None:
        whole = digits(seed, "2^3", store)
        found = whole.diagnosis
        assert found is not None
        assert found.regime is Regime.OVER_FITTED, found.reason
        assert found.mechanism is not None
        assert found.mechanism.code == "initial_function_noise"
        assert whole.centered_sweep is not None
        assert found.recommendation.multiply_output_by is not None
        assert found.recommendation.multiply_output_by < 1


MIXTURE = {"2^-8": Regime.OVER_ALIGNED, "2^0": Regime.NEAR_OPTIMAL, "2^3": Regime.OVER_FITTED}


@pytest.mark.parametrize("alpha", MIXTURE)
@pytest.mark.parametrize("seed", RARELY)
def test_mixture(seed: int, alpha: str, store: Path) -> None:
    """The two-layer theory's own setting, swept in the init scale alpha, 16 seeds."""
    found = judged(
        seed,
        store,
        fixed_seeds=16,
        name="two_layer",
        arguments={"width": 64},
        source=task_source("mixture"),
        recipe=Recipe(
            loss="logistic", optimizer=Sgd(lr=0.1), batch_size=20, stop=TargetLoss(max_epochs=2000)
        ),
        init_scale=parse_multiplier(alpha),
        axis="init_scale",
    ).diagnosis
    assert found is not None
    assert found.regime is MIXTURE[alpha], found.reason


@pytest.mark.parametrize("multiplier", ["2^-9", "2^-4", "2^0", "2^3"])
@pytest.mark.parametrize("seed", RARELY)
def test_product_of_signs_is_never_over_aligned(seed: int, multiplier: str, store: Path) -> None:
    found = judged(
        seed,
        store,
        name="mlp",
        arguments={"depth": 2, "width": 128},
        source=task_source("product_of_signs", {"n_train": 400}),
        output_multiplier=parse_multiplier(multiplier),
    ).diagnosis
    assert found is not None
    assert found.regime in (Regime.OVER_FITTED, Regime.NEAR_OPTIMAL, Regime.INCONCLUSIVE)
    edge = [f.text for f in found.findings if f.code == "optimum_at_edge"]
    assert edge
    assert "at the end of the range" in edge[0]


@pytest.mark.parametrize("seed", SEEDS)
def test_random_labels_are_inconclusive(seed: int, store: Path) -> None:
    found = judged(
        seed,
        store,
        name="mlp",
        arguments={"depth": 3, "width": 64},
        source=task_source("noise", {"n_train": 150}),
    ).diagnosis
    assert found is not None
    assert (found.regime, found.reason.code) == (Regime.INCONCLUSIVE, "no_signal")
