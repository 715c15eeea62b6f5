"""Does the multiplier of this net do what it should, and is the setup on the right side?"""

from my_pkg.zoo import build, optimizer, setup

from fls_bench.testing import ScalingContract


class TestBuild(ScalingContract):
    build = staticmethod(build)
    options = {"optimizer": optimizer, "examples": 10}  # noqa: RUF012
    must_hold = ("routes", "parameter_scale", "own_optimizer")


def test_the_setup_with_its_data(fls_invariants):
    found = fls_invariants(setup, names=["routes", "exact_rule", "movement"], examples=5)
    assert found["exact_rule"].status == "held"


def test_regime(fls_regime):
    diagnosis = fls_regime(setup, max_seeds=6, budget_seconds=120)
    assert diagnosis.regime != "over_fitted"
