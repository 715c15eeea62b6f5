"""What an invariant is tried on, and what one trial says."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from fls_bench.schema import InvariantFinding, InvariantName, MeasuredExponent

if TYPE_CHECKING:
    from fls_bench.invariants.twins import Examined

DIVERGED, SENSITIVE, STILL = "diverged", "too_sensitive", "did_not_move"
SET_ASIDE = (DIVERGED, SENSITIVE, STILL)
"""Codes of voids that belong to a draw and not to the net: another draw may decide."""


@dataclass(frozen=True)
class Draw:
    """One case. Every field is a whole number, and a smaller one is a simpler case.

    Attributes:
        seed: Of the initial weights, the data, and whatever else is random.
        quarter_octaves: 4·log2 of the factor on the multiplier, from -48 to 48, not 0: the factor
            lies between 2^-12 and 2^12.
        batch_size: Points per step, at least 2 (batch statistics of one point are undefined).
        num_batches: Steps per epoch.
        epochs: Epochs of training.
    """

    seed: int = 0
    quarter_octaves: int = -4
    batch_size: int = 2
    num_batches: int = 1
    epochs: int = 1

    @property
    def ratio(self) -> float:
        """The factor on the multiplier."""
        return float(2.0 ** (self.quarter_octaves / 4))

    @property
    def num_points(self) -> int:
        """Training points."""
        return self.batch_size * self.num_batches

    @property
    def num_steps(self) -> int:
        """Steps of training."""
        return self.num_batches * self.epochs

    def described(self) -> dict[str, Any]:
        """Plain values, with the factor on the multiplier spelled out."""
        return {**asdict(self), "c_ratio": self.ratio}


@dataclass(frozen=True)
class Invariant:
    """One row of the table of invariants.

    Attributes:
        name: Key of the table.
        check: (what is examined, draw) -> finding. Its docstring states the identity, when it is
            void and where it is from.
        trains: Whether a trial trains nets.
        optional: Whether it is tried only where there is something of the user's to try it on.
        once: Whether one call looks at as many seeds as it needs.
    """

    name: InvariantName
    check: Callable[[Examined, Draw], InvariantFinding]
    trains: bool = True
    optional: bool = False
    once: bool = False

    @property
    def statement(self) -> str:
        """The identity in one line: the first of the check's docstring."""
        return (self.check.__doc__ or "").strip().splitlines()[0]


# --- what a trial says ----------------------------------------------------------------------


def finite(value: float) -> float | None:
    """The number, or None for NaN and infinity, which a report can't hold."""
    return value if math.isfinite(value) else None


def void(invariant: InvariantName, code: str, text: str, **fields: Any) -> InvariantFinding:
    """The invariant says nothing of this net, or nothing can be seen at this draw."""
    return InvariantFinding(invariant=invariant, status="void", code=code, text=text, **fields)


def decided(
    invariant: InvariantName,
    deviation: float,
    bound: float,
    *,
    wrong: tuple[str, str],
    rule: str | None = None,
    exponents: tuple[MeasuredExponent, ...] = (),
) -> InvariantFinding:
    """Held where the deviation is within what rounding can account for, else broken.

    Args:
        invariant: Its name.
        deviation: Relative; NaN counts as broken.
        bound: From ``Examined.bound``.
        wrong: Code and sentence for the case that it is broken.
        rule: The changed rule under which it holds.
        exponents: What was measured.
    """
    held = deviation <= bound
    code, text = (None, "Equal up to rounding.") if held else wrong
    return InvariantFinding(
        invariant=invariant,
        status="held" if held else "broken",
        code=code,
        text=text,
        rule=rule if held else None,
        deviation=finite(deviation),
        bound=bound,
        exponents=exponents,
    )


def measured_exponent(
    what: str, value: float, wanted: float | None
) -> tuple[MeasuredExponent, ...]:
    """One measured exponent, or none where it is not a number."""
    if not math.isfinite(value):
        return ()
    return (MeasuredExponent(what=what, value=value, wanted=wanted),)
