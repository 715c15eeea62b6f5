"""The words of a reading, for every view: what it says, what pushed where, what is out of range."""

from __future__ import annotations

from fls_bench.schema import Push, Reading, ReferenceRange, Regime, SelfTest

HEADING = "What was read from the net"
PUSH_COLUMNS = (
    "observable", "here", "points to", "strength", "over-aligned nets", "near-optimal nets",
    "over-fitted nets",
)  # fmt: skip
OUTSIDE_COLUMNS = ("observable", "here", "in the atlas")
_REGIMES = (Regime.OVER_ALIGNED, Regime.NEAR_OPTIMAL, Regime.OVER_FITTED)
_OTHERS = {"depth and n": "", "n": "*", "all": "**"}
CONFUSION_COLUMNS = ("placed by their c", *(one.label for one in Regime))
_EVIDENCE = {
    "T1": "data",
    "T1-train": "training data alone",
    "T2": "data and initial weights",
    "T2-train": "training data and initial weights",
}


def sentence(reading: Reading) -> str:
    """The reading in one line."""
    if not reading.probabilities:
        return f"{reading.regime.label}, from {_EVIDENCE[reading.evidence]}: it could not be read."
    odds = ", ".join(
        f"{one.label} {100 * reading.probabilities.get(one.value, 0.0):.0f} %" for one in _REGIMES
    )
    found = " or ".join(one.label for one in reading.regimes) or "none"
    return (
        f"{reading.regime.label}, from {_EVIDENCE[reading.evidence]}: {odds}. Set that holds the true "
        f"regime in {100 * reading.level:.0f} % of cases: {found}."
    )


def facts(reading: Reading) -> tuple[tuple[str, str], ...]:
    """Its figures as (name, text)."""
    ratio, about = reading.log2_c_ratio, reading.atlas
    rows = []
    if ratio is not None:
        bounds = (
            "not bounded"
            if ratio.low is None or ratio.high is None
            else (f"{100 * ratio.level:.0f} % from {ratio.low:+.1f} to {ratio.high:+.1f}")
        )
        text = f"{ratio.value:+.1f}, {bounds} (negative = toward over-aligned)"
        rows.append(("log2(c/c*)", text))
    near = f"{reading.distance:.2f}, trusted up to {reading.reach:.2f}"
    rows.append(("distance to the atlas", near))
    if about:
        rows.append(
            (
                "fitted on",
                f"{about.get('nets', '?')} nets of {about.get('setups', '?')} setups and "
                f"{about.get('tasks', '?')} tasks",
            )
        )
    return tuple(rows)


def note(reading: Reading) -> str:
    """What the table of pushes shows."""
    others = {one.of for push in reading.pushes for one in push.ranges}
    marks = {"n": "* of all depths, for want of such nets", "all": "** of all depths and sizes"}
    told = "".join(f" ({text})" for key, text in marks.items() if key in others)
    return (
        "Each observable with what it added to the log odds of the side it points to, and where the "
        "middle 80 % of the atlas' nets of each regime lie: "
        f"{reading.depth}{told}. They push together; no single one decides."
    )


def push_cells(push: Push) -> tuple[str, ...]:
    """A row of ``PUSH_COLUMNS``."""
    ranges = {one.regime: one for one in push.ranges}
    return (
        push.text,
        number(push.value),
        push.toward.label,
        f"{push.strength:.2f}",
        *(_range(ranges.get(one)) for one in _REGIMES),
    )


def outside_rows(reading: Reading) -> list[tuple[str, ...]]:
    """Rows of ``OUTSIDE_COLUMNS``."""
    return [(one.text, *_apart(one.value, one.low, one.high)) for one in reading.out_of_range]


def outside_note(reading: Reading) -> str:
    """What the table of what is out of range shows."""
    near = " The net as a whole is near enough to be read." if reading.probabilities else ""
    return f"Measurements that lie where the atlas has hardly any nets.{near}"


def number(value: float | None) -> str:
    """Three significant digits."""
    return "-" if value is None else f"{value:.3g}"


def _apart(value: float, low: float, high: float) -> tuple[str, str]:
    """A value and a range that it lies outside of, with as many digits as that takes to be seen."""
    for digits in range(3, 8):
        end = low if value < low else high
        if f"{value:.{digits}g}" != f"{end:.{digits}g}":
            break
    return f"{value:.{digits}g}", f"{low:.{digits}g} to {high:.{digits}g}"


def _range(one: ReferenceRange | None) -> str:
    if one is None:
        return "-"
    return f"{one.median:.3g} [{one.low:.3g}, {one.high:.3g}]{_OTHERS[one.of]}"


# --- the self-test --------------------------------------------------------------------------


def confusion_rows(found: SelfTest) -> list[tuple[str, ...]]:
    """Rows of ``CONFUSION_COLUMNS``."""
    return [
        (place.label, *(str(counts[one]) for one in Regime))
        for place, counts in found.confusion.items()
    ]


def selftest_facts(found: SelfTest) -> tuple[tuple[str, str], ...]:
    """Its figures as (name, text)."""
    nets = [(case.regime, net.regime) for case in found.cases for net in case.nets]
    called = [pair for pair in nets if pair[1] is not Regime.INCONCLUSIVE]
    right = sum(place is said for place, said in called)
    sides = sum(place is not Regime.INCONCLUSIVE for place, _ in nets)
    wrong, flat = found.false_alarms
    return (
        ("nets", f"{len(nets)} at {len(found.cases)} places"),
        ("called", f"{len(called)}, the others inconclusive; {sides} were placed in a regime"),
        (
            "right",
            f"{right} of the {len(called)} that were called (places that are clear, on tasks of the "
            "atlas: on tasks that it has not, nine in ten are)",
        ),
        (
            "false alarms",
            f"{wrong} of {flat} nets that are near-optimal, or learned nothing, called "
            "over-aligned or over-fitted",
        ),
        *(("wrong", text) for text in found.failures),
        ("opposite", f"{found.opposite} called the opposite of where they were placed"),
    )
