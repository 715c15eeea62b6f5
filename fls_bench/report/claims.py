"""What became of the paper's claims, in words and rows, for every view."""

from __future__ import annotations

from collections.abc import Sequence

from fls_bench.schema import (
    OUTCOME_WORDS,
    ClaimPart,
    ClaimResult,
    ClaimsRecord,
    ScalingFit,
)

TITLES = {
    "C1": "An optimum in between",
    "C2": "Harder data, larger gain",
    "C3": "The stop does not matter",
    "C4": "c* ~ n^-2 h^-1",
    "C5": "OA falls, OF rises",
    "C6": "Angle ~ sqrt(alpha)",
}

SUITES = {
    "C1": "universality", "C2": "difficulty", "C3": "stopping", "C4": "scaling-law", "C5": "theory",
    "C6": "theory",
}  # fmt: skip
"""Which suite tests a claim."""

COLUMNS = ("claim", "outcome", "in numbers", "data", "seeds", "suite", "date", "hardware")
PART_COLUMNS = ("what", "outcome", "measured [95 %]", "on", "would reproduce it", "seeds")


def word(result: ClaimResult | ClaimPart) -> str:
    """The outcome, for people."""
    return "shown" if result.outcome is None else OUTCOME_WORDS[result.outcome]


def title(result: ClaimResult) -> str:
    """The claim in a few words."""
    return f"{result.claim}: {TITLES[result.claim]}"


def part_cells(part: ClaimPart) -> tuple[str, ...]:
    """A number that a claim is judged by, as a row under ``PART_COLUMNS``."""
    return (part.name, word(part), part.text, part.setting, part.expected, str(part.n))


def deciding(result: ClaimResult) -> list[ClaimPart]:
    """The parts that the outcome rests on."""
    return [part for part in result.parts if part.outcome is not None]


def beside(result: ClaimResult) -> list[ClaimPart]:
    """The parts that are shown and decide nothing."""
    return [part for part in result.parts if part.outcome is None]


def not_run_text(result: ClaimResult) -> str:
    """What was not run or could not be judged, in one line; empty where there is nothing."""
    return "; ".join(f"{one.what}: {one.reason.rstrip('.')}" for one in result.not_run)


def rows(records: Sequence[ClaimsRecord]) -> list[tuple[str, ...]]:
    """One row for each claim of each record under ``COLUMNS``, then the claims that none has."""
    found: list[tuple[str, ...]] = []
    for record in records:
        suite = record.suite
        for result in record.claims:
            found.append(
                (
                    title(result),
                    OUTCOME_WORDS[result.outcome],
                    result.text,
                    "; ".join(result.data) or "-",
                    seeds_text(record, result),
                    f"{suite.get('name')} {suite.get('version')}",
                    record.recorded[:10],
                    hardware(record),
                )
            )
    known = {row[0][:2] for row in found}
    for claim, words in TITLES.items():
        if claim not in known:
            found.append((f"{claim}: {words}", OUTCOME_WORDS["not_run"], "-", *["-"] * 5))
    return sorted(found, key=lambda row: (row[0][:2], row[5]))


def seeds_text(record: ClaimsRecord, result: ClaimResult) -> str:
    """How many seeds a claim was judged from, and which were run."""
    if not result.num_seeds:
        return "-"
    if record.seeds is None:
        return str(result.num_seeds)
    first, last = record.seeds
    if last - first + 1 == result.num_seeds:
        return f"{result.num_seeds} ({first}..{last})"
    return f"{result.num_seeds} to {last - first + 1} a case (from {first})"


def hardware(record: ClaimsRecord) -> str:
    """On what a record was measured, in short."""
    env = record.environment
    device = env.get("device", "cpu")
    machine = f"{env.get('threads', '?')} CPU cores" if device == "cpu" else device
    kind = env.get("gpu") or env.get("cpu", "unknown")
    return f"{machine} ({kind}), torch {env.get('torch', '?')}"


def markdown(records: Sequence[ClaimsRecord]) -> str:
    """The table of all claims as Markdown."""
    from fls_bench.report.markdown import table  # which itself imports this module

    return table(COLUMNS, rows(records)) + "\n"


def brief(records: Sequence[ClaimsRecord]) -> str:
    """The outcomes as a short Markdown table: what decided is counted, or named where it is little."""
    from fls_bench.report.markdown import table

    shown = [
        (title(result), OUTCOME_WORDS[result.outcome], what_decided(result), record.recorded[:10])
        for record in records
        for result in record.claims
    ]
    return table(("claim", "outcome", "what decided", "date"), sorted(shown)) + "\n"


def what_decided(result: ClaimResult) -> str:
    """How many settings came out how; of a single one, its parts."""
    parts = deciding(result)
    settings: dict[str, list[ClaimPart]] = {}
    for part in parts:
        settings.setdefault(part.setting, []).append(part)
    if len(settings) == 1:
        of = parts[0].text.split(". ")[0] if len(parts) == 1 else None
        return "; ".join(f"{part.name}: {of or word(part)}" for part in parts)
    order = ("not_reproduced", "undecided", "reproduced")  # a setting is as good as its worst part
    worst = [
        next(one for one in order if one in {part.outcome for part in of})
        for of in settings.values()
    ]
    counts = (f"{worst.count(one)} {OUTCOME_WORDS[one]}" for one in order[::-1] if one in worst)
    return f"{len(settings)} settings: {', '.join(counts)}"


def fit_text(fit: ScalingFit) -> str:
    """A fit in one line."""
    parts = []
    for name, one, sizes in (
        ("h", fit.width_exponent, [h for h, _ in fit.sizes]),
        ("n", fit.n_exponent, [n for _, n in fit.sizes]),
    ):
        low, high = min(sizes), max(sizes)
        if one is not None and one.low is not None and one.high is not None:
            parts.append(
                f"{name}^{one.value:.2f} [{one.low:.2f}, {one.high:.2f}] for {low}..{high}"
            )
        else:
            parts.append(f"{name} = {low}" if low == high else f"{name} not fitted")
    return f"{fit.family}: c* ~ {', '.join(parts)} ({len(fit.sizes)} cases, {fit.num_seeds} seeds)"
