"""What a sweep-based diagnosis rests on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from fls_bench.schema import AnyOptimizer, Cost, Gain, Measurement, RateComparison, Sgd, Sweep


@dataclass(frozen=True)
class Advised:
    """What a recommendation has to know of the setup, to be written as code.

    Attributes:
        optimizer: At the setup's own c.
        route: ``wrapper`` or ``factory``.
        built_in: Whether ``fls-bench train`` can build the net.
        custom: Whether the optimizer is the user's own, and ``optimizer`` only like it.
        normalised: Whether the net has normalisation layers.
    """

    optimizer: AnyOptimizer = Sgd()
    custom: bool = False
    route: str = "wrapper"
    built_in: bool = False
    normalised: bool = False


@dataclass(frozen=True)
class Evidence:
    """What a sweep-based diagnosis rests on.

    Attributes:
        sweep: The sweep at the setup's own centering.
        c: The value on the sweep's axis that is judged.
        gain: From c to c* on fresh seeds, or None.
        centered: The centered sweep, or None.
        measurements: Of the model that was given.
        cost: What the sweep cost.
        complete: Whether the sweep decided before its budget ended.
        advised: What a recommendation has to know of the setup.
        rates: c* at its best rate against others at theirs.
        plain: For normalised nets, the same c under the plain rule, or None.
    """

    sweep: Sweep
    c: float
    gain: Gain | None = None
    centered: Sweep | None = None
    measurements: Sequence[Measurement] = ()
    cost: Cost = Cost()
    complete: bool = True
    advised: Advised = Advised()
    rates: tuple[RateComparison, ...] = ()
    plain: Sweep | None = None


def symbol_of(sweep: Sweep) -> str:
    """What the swept quantity is called."""
    return "alpha" if sweep.axis == "init_scale" else "c"


def points_of(gain: Gain) -> str:
    """A gain with its interval, for people."""
    return f"{gain.value:+.2g} points [{gain.low:+.2g}, {gain.high:+.2g}]"
