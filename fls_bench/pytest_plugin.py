"""Fixtures for pytest, by the entry point ``pytest11``: loads nothing until a test asks for one."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from collections.abc import Mapping

    from fls_bench.schema import Diagnosis, InvariantFinding


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Give ``ScalingContract.test_invariant`` the names of the invariants, one test each."""
    is_contract = any(
        base.__name__ == "ScalingContract" for base in getattr(metafunc.cls, "__mro__", ())
    )
    if is_contract and "invariant" in metafunc.fixturenames:
        from fls_bench.testing import NAMES

        metafunc.parametrize("invariant", NAMES)


@pytest.fixture
def fls_invariants() -> Callable[..., Mapping[str, InvariantFinding]]:
    """``fls_invariants(build, ...)``: fails where a scaling invariant is broken; returns all findings.

    Arguments as of ``fls_bench.testing.findings``.
    """

    def check(target: Any, **options: Any) -> Mapping[str, InvariantFinding]:
        from fls_bench.testing import findings, in_words

        found = findings(target, **options)
        broken = [in_words(one) for one in found.values() if one.status == "broken"]
        if broken:
            pytest.fail("\n\n".join(broken), pytrace=False)
        return found

    return check


@pytest.fixture
def fls_regime() -> Callable[..., Diagnosis]:
    """``fls_regime(setup, expect="near-optimal")``: the verdict on a setup, as expected or not.

    An inconclusive verdict skips the test with its reason (``strict=True``: fails it), any other that
    is not expected fails it. Without ``expect`` the diagnosis is returned as it is. Other arguments as
    of ``fls_bench.testing.diagnosed``.
    """

    def check(
        setup: Any, *, expect: str | None = None, strict: bool = False, **options: Any
    ) -> Diagnosis:
        from fls_bench.schema import Regime
        from fls_bench.testing import diagnosed

        known = [one.label for one in Regime]
        wanted = None if expect is None else expect.replace("_", "-")
        if wanted is not None and wanted not in known:
            raise pytest.UsageError(
                f"fls_regime knows no {expect!r}: expect one of {', '.join(known)}"
            )
        made = diagnosed(setup, **options)
        regime = made.regime.label
        if wanted is None or regime == wanted:
            return made
        said = f"the setup is {regime}, expected {wanted}: {made.reason.text}"
        if regime == Regime.INCONCLUSIVE.label and not strict:
            pytest.skip(said)
        pytest.fail(f"{said} {made.recommendation.text}", pytrace=False)

    return check
