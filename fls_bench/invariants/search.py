"""Many draws of an invariant, and the smallest that breaks it.

Hypothesis draws the cases and shrinks one that breaks; the same seed draws the same cases. What a case
is, and what a person is shown of it, stands in ``claims.Draw``.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterable, Sequence

from hypothesis import HealthCheck, Phase, Verbosity, given, seed, settings
from hypothesis import strategies as st
from hypothesis.errors import Flaky

from fls_bench.errors import InputError
from fls_bench.invariants import INVARIANTS
from fls_bench.invariants.claims import SET_ASIDE, Draw, Invariant, void
from fls_bench.invariants.twins import Examined
from fls_bench.report.summary import mean_interval
from fls_bench.schema import InvariantFinding, MeasuredExponent
from fls_bench.training.checks import one_thread

MAX_OCTAVES = 12
"""Factors on the multiplier lie between 2^-12 and 2^12."""


def draws(
    *,
    whole_octaves: bool = False,
    max_octaves: int = MAX_OCTAVES,
    max_batch_size: int = 6,
    max_batches: int = 3,
    max_epochs: int = 3,
) -> st.SearchStrategy[Draw]:
    """Draws; a failing one shrinks toward one step on two points at a factor next to 1.

    Args:
        whole_octaves: Whether factors are powers of two, as nets hold them exactly in float32.
        max_octaves: The factor on the multiplier lies within 2^-max_octaves .. 2^max_octaves.
        max_batch_size: Most points per step, at least 2.
        max_batches: Most steps per epoch.
        max_epochs: Most epochs.

    Returns:
        A strategy of ``Draw``.
    """
    # Near 1 first, and of two the smaller c: that is the side that people tune toward.
    step = 4 if whole_octaves else 1
    sizes = range(step, 4 * max_octaves + 1, step)
    factor = st.sampled_from([sign * size for size in sizes for sign in (-1, 1)])
    return st.builds(
        Draw,
        seed=st.integers(0, 10**6),
        quarter_octaves=factor,
        batch_size=st.integers(2, max_batch_size),
        num_batches=st.integers(1, max_batches),
        epochs=st.integers(1, max_epochs),
    )


def applicable(examined: Examined, names: Sequence[str] | None = None) -> list[Invariant]:
    """The invariants that there is something to try on.

    Args:
        examined: What is examined.
        names: Those that were asked for; None: all.

    Returns:
        Rows of ``INVARIANTS``, in its order.

    Raises:
        InputError: A name is unknown, or asks for what the user did not give.
    """
    unknown = sorted(set(names or ()) - set(INVARIANTS))
    if unknown:
        raise InputError(
            f"There is no invariant named {', '.join(unknown)}.",
            f"Choose from {', '.join(INVARIANTS)}.",
        )
    given_too = {
        "own_rule": examined.setup.lr_rule is not None,
        "own_optimizer": examined.optimizer_factory is not None,
    }
    missing = sorted(name for name in names or () if not given_too.get(name, True))
    if missing:
        raise InputError(
            f"{', '.join(missing)}: there is none to try.",
            "Give --optimizer package.module:function, or a setup with an lr_rule.",
        )
    return [
        row
        for row in INVARIANTS.values()
        if (names is None or row.name in names) and given_too.get(row.name, True)
    ]


def examine(
    examined: Examined,
    *,
    examples: int = 20,
    base_seed: int = 0,
    names: Sequence[str] | None = None,
    on_finding: Callable[[InvariantFinding], None] = lambda _: None,
) -> tuple[InvariantFinding, ...]:
    """Try every invariant on many draws.

    Args:
        examined: What is examined.
        examples: Draws per invariant.
        base_seed: The same one gives the same draws, and so the same findings.
        names: Only these.
        on_finding: Told of each finding as it is made.

    Returns:
        One finding for each invariant.

    Raises:
        InputError: The net or its data can't be made or run, or a name is unknown.
    """
    assert examined.task is not None  # checks the setup before anything is drawn
    findings = []
    with one_thread():
        for row in applicable(examined, names):
            found = _search(examined, row, examples, base_seed)
            findings.append(found.model_copy(update={"statement": row.statement}))
            on_finding(findings[-1])
    return tuple(findings)


def _search(examined: Examined, row: Invariant, examples: int, base_seed: int) -> InvariantFinding:
    if row.once:
        draw = Draw(seed=base_seed)
        found = row.check(examined, draw)
        broken = found.status == "broken"
        return found.model_copy(update={"counter_example": draw.described()}) if broken else found
    tried: list[tuple[Draw, InvariantFinding]] = []

    class BrokenError(Exception):
        pass

    def try_one(draw: Draw) -> None:
        # What is void for the net is so on every draw: one is enough, where nothing is measured.
        if tried and _says_all(tried[0][1]):
            return
        finding = row.check(examined, draw)
        tried.append((draw, finding))
        if finding.status == "broken":
            raise BrokenError

    # A multiplier that a net keeps in float32 holds whole octaves exactly.
    whole = "output_multiplier" in examined.setup.builder_parameters
    test = given(draws(whole_octaves=whole))(try_one)
    test = seed(base_seed)(test)
    test = settings(
        max_examples=examples, deadline=None, database=None, phases=[Phase.generate, Phase.shrink],
        suppress_health_check=list(HealthCheck), verbosity=Verbosity.quiet, print_blob=False,
        report_multiple_bugs=False, derandomize=False,
    )(test)  # fmt: skip
    try:
        test()
    except BrokenError:
        draw, finding = tried[-1]  # Hypothesis ends with the smallest one that it found
        return finding.model_copy(update={"counter_example": draw.described()})
    except Flaky:
        text = "The same seed does not give the same net or training twice, so nothing can be compared."
        return void(row.name, "not_reproducible", text)
    return merged([finding for _, finding in tried])


def _says_all(finding: InvariantFinding) -> bool:
    measured = finding.deviation is not None or finding.exponents
    return finding.status == "void" and finding.code not in SET_ASIDE and not measured


def merged(findings: Sequence[InvariantFinding]) -> InvariantFinding:
    """One finding of many that did not break: held where some held, void where none could be decided.

    Args:
        findings: One per draw.
    """
    held = [finding for finding in findings if finding.status == "held"]
    drifted = [
        one for one in findings if one.status == "void" and one.code not in SET_ASIDE and one.text
        and one.deviation is not None
    ]  # fmt: skip
    if drifted:  # a condition that shows on some draws only (a clipping that is not always reached)
        findings = [one for one in findings if one.status != "held"]
    if drifted or not held:
        ((commonest, _),) = Counter(finding.code for finding in findings).most_common(1)
        chosen = [finding for finding in findings if finding.code == commonest]
        # The largest drift of those that were measured says most.
        worst = max(chosen, key=lambda one: -1.0 if one.deviation is None else one.deviation)
        aside = sum(finding.code in SET_ASIDE for finding in findings)
        return worst.model_copy(
            update={
                "exponents": _means(findings),
                "num_examples": len(findings) - aside,
                "num_set_aside": aside,
            }
        )

    def share(finding: InvariantFinding) -> float:
        return (finding.deviation or 0.0) / (finding.bound or math.inf)

    worst = max(held, key=share)
    return worst.model_copy(
        update={
            "exponents": _means(held),
            "num_examples": len(held),
            "num_set_aside": len(findings) - len(held),
        }
    )


def _means(findings: Iterable[InvariantFinding]) -> tuple[MeasuredExponent, ...]:
    """Each exponent's mean over the draws, with its interval."""
    groups: dict[str, list[MeasuredExponent]] = {}
    for finding in findings:
        for one in finding.exponents:
            groups.setdefault(one.what, []).append(one)
    means = []
    for what, group in groups.items():
        mean = mean_interval([one.value for one in group])
        assert mean is not None
        means.append(
            MeasuredExponent(
                what=what, value=mean.value, low=mean.low, high=mean.high, wanted=group[0].wanted,
                n=mean.n,
            )
        )  # fmt: skip
    return tuple(means)
