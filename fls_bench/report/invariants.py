"""Words and rows for what the scaling invariants say, shared by page, terminal and JUnit file."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from fls_bench.report.summary import hyphens, number
from fls_bench.schema import InvariantFinding, Invariants, MeasuredExponent

COLUMNS = ("invariant", "verdict", "draws", "deviation", "bound", "what it says")
EXPONENT_COLUMNS = ("invariant", "what follows what", "measured [95 %]", "exact", "n")

NOTE = (
    "Deviations are relative. The bound is what rounding can account for; it follows from the size of "
    "the net and a measured amplification (docs/invariants.md). Void: the invariant's condition does "
    "not hold for this net, so it says nothing here."
)


def headline(invariants: Invariants) -> str:
    """How many held, broke and were void."""
    counts = Counter(one.status for one in invariants.findings)
    return f"{counts['broken']} broken, {counts['held']} held, {counts['void']} void"


def plain_words(invariants: Invariants) -> str:
    """What it comes to, in one sentence."""
    statuses = {one.status for one in invariants.findings}
    if "broken" in statuses:
        return "The output multiplier does not do what it should: an invariant is broken."
    if "held" in statuses:
        return (
            "The output multiplier does what it should: nothing that applies to this net is broken."
        )
    return "Nothing can be said: no invariant applies to this net."


def of_status(invariants: Invariants, status: str) -> list[InvariantFinding]:
    """The findings of one status, in order."""
    return [one for one in invariants.findings if one.status == status]


def name(finding: InvariantFinding) -> str:
    """The invariant's name as shown."""
    return hyphens(finding.invariant)


def row(finding: InvariantFinding) -> tuple[str, ...]:
    """One finding as texts, in the order of ``COLUMNS``."""
    decided = finding.num_examples if finding.status != "void" else 0
    aside = f" ({finding.num_set_aside} set aside)" if finding.num_set_aside else ""
    return (
        name(finding),
        finding.status,
        f"{decided}{aside}" if decided or aside else "-",
        "-" if finding.deviation is None else f"{finding.deviation:.1e}",
        "-" if finding.bound is None else f"{finding.bound:.1e}",
        finding.statement,
    )


def why(finding: InvariantFinding) -> str:
    """The sentence of a finding with its code, and of a broken one its smallest counter-example."""
    code = f" ({hyphens(finding.code)})" if finding.code else ""
    return f"{finding.text}{code}"


def counter_example(finding: InvariantFinding) -> str:
    """The smallest draw that breaks an invariant, in words."""
    draw = finding.counter_example or {}
    if not {"seed", "c_ratio", "batch_size", "num_batches", "epochs"} <= draw.keys():
        return ", ".join(f"{key} = {value}" for key, value in draw.items())
    steps = draw["num_batches"] * draw["epochs"]
    return (
        f"seed {draw['seed']}, c times {number(draw['c_ratio'])}, {draw['batch_size']} points a step, "
        f"{steps} {'step' if steps == 1 else 'steps'} in {draw['epochs']} "
        f"{'epoch' if draw['epochs'] == 1 else 'epochs'}"
    )


def exponent_rows(invariants: Invariants) -> list[tuple[str, ...]]:
    """Every measured exponent as texts, in the order of ``EXPONENT_COLUMNS``."""
    return [
        (
            name(finding),
            one.what,
            _with_interval(one),
            "-" if one.wanted is None else f"{one.wanted:.4g}",
            str(one.n),
        )
        for finding in invariants.findings
        for one in _in_short(finding.exponents)
    ]


MOST_EXPONENTS = 8
"""Of one finding: an optimizer of a large net has one or more for each parameter."""


def _in_short(exponents: Sequence[MeasuredExponent]) -> Sequence[MeasuredExponent]:
    """Those that are not as they should be first, and not too many."""
    wrong = [k for k in exponents if k.wanted is not None and abs(k.value - k.wanted) > 1e-6]
    return [*wrong, *(k for k in exponents if k not in wrong)][:MOST_EXPONENTS]


def _with_interval(one: MeasuredExponent) -> str:
    value = f"{one.value:.4g}"
    if one.low is None or one.high is None:
        return value
    return f"{value} [{one.low:.4g}, {one.high:.4g}]"
