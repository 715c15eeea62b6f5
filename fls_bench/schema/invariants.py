"""What the scaling invariants say of a net."""

from __future__ import annotations

from typing import Any, Literal

from fls_bench.schema.base import Frozen

InvariantName = Literal[
    "routes", "temperature", "tangent_kernel", "parameter_scale", "one_rate", "exact_rule", "own_rule",
    "own_optimizer", "movement", "relu_rescaling", "permutation", "rotation", "duplication",
    "sample_order", "label_names", "batching", "balance", "lazy_limit",
]  # fmt: skip
"""The scaling invariants, in the order in which they are shown."""


class MeasuredExponent(Frozen):
    """How a quantity was measured to follow another: as a power of it."""

    what: str
    value: float
    """Mean over the draws."""
    low: float | None = None
    high: float | None = None
    """Bounds of its 95 % Student-t interval; None for a single draw."""
    wanted: float | None = None
    """What the invariant says; None where it says nothing for this net."""
    n: int = 1


class InvariantFinding(Frozen):
    """What became of one scaling invariant on one net: on a single draw, or over all of them."""

    invariant: InvariantName
    statement: str = ""
    """The identity, in one line."""
    status: Literal["held", "broken", "void"]
    """``void``: its condition does not hold for this net, so it says nothing here."""
    code: str | None = None
    """For programs: why it is void, or what was measured to be wrong."""
    text: str
    rule: str | None = None
    """The changed rule under which it holds, where that is not the plain one."""
    deviation: float | None = None
    """Largest relative deviation seen; of a broken one that at the counter-example. None where
    nothing was compared, or the deviation was not finite."""
    bound: float | None = None
    """What rounding can account for, at the draw of that deviation."""
    exponents: tuple[MeasuredExponent, ...] = ()
    num_examples: int = 1
    """Draws on which it was decided."""
    num_set_aside: int = 0
    """Draws on which it could not be: training diverged, or rounding grew too large."""
    counter_example: dict[str, Any] | None = None
    """Of a broken one: the smallest draw that shows it."""


class Invariants(Frozen):
    """What the scaling invariants say of a net and its optimizer."""

    findings: tuple[InvariantFinding, ...]
    seed: int
    """The same seed and number of examples give the same findings."""
    examples: int
    net: dict[str, Any] = {}
    """What was examined: inputs, outputs, parameters, route, optimizer, measured exponents."""
    command: str | None = None
    """What gives the same findings again."""
