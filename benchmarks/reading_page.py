"""Writes what the stored evaluation of the reading says into docs/reading.md and README.md.

    make evaluation

Each page has its part between two markers; what stands there is replaced. A test compares.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from fls_bench import report
from fls_bench.report import evaluations as words
from fls_bench.report.markdown import table
from fls_bench.schema import EvaluationRow, Report

ROOT = Path(__file__).resolve().parents[1]
ATLAS = ROOT / "baselines" / "atlas"
PAGES = (ROOT / "docs" / "reading.md", ROOT / "README.md")
BEGIN, END = (
    "<!-- evaluation: written by benchmarks/reading_page.py -->",
    "<!-- end of evaluation -->",
)

SHORT = (
    "left out", "AUC over-aligned", "AUC over-fitted", "verdicts that are right", "opposite",
    "no verdict", "set holds the truth", "calibration error",
)  # fmt: skip


def facts(found: Report) -> str:
    """Of what, where and when."""
    assert found.evaluation is not None
    provenance = found.provenance
    counts = ", ".join(
        f"{n:,} {regime.replace('_', '-')}" for regime, n in found.evaluation.truth.items()
    )
    torch = provenance.torch.partition("+")[0]
    return (
        f"{found.evaluation.nets:,} nets of known regime ({counts}), {found.evaluation.setups} setups; "
        f"{provenance.threads} threads ({provenance.extra['cpu']}), torch {torch}, "
        f"{provenance.started:.10}"
    )


def short(found: Report) -> str:
    """The table of the README: the reading with data and initial weights."""
    assert found.evaluation is not None
    rows = [
        (
            f"{one.left_out} ({one.num_groups})", words.interval(one.auc_over_aligned, 3),
            words.interval(one.auc_over_fitted, 3), words.percent(one.emitted_accuracy),
            words.percent(one.opposite, 2), words.percent(one.abstained),
            words.percent(one.coverage), words.interval(one.calibration_error, 3),
        )
        for one in found.evaluation.rows if one.evidence == "T2"
    ]  # fmt: skip
    return table(SHORT, rows)


def worst(row: EvaluationRow) -> str:
    """The groups whose sets hold the truth least often, and those of which less than half is read."""
    return table(words.GROUP_COLUMNS, [words.group_cells(one) for one in words.worst(row)])


def peer(stored: dict[str, Any]) -> str:
    """WeightWatcher's alpha beside the reading, on the same nets."""
    head = ("on the same nets", "left out", "n", "AUC over-aligned", "AUC over-fitted")
    rows = [
        (
            one["name"],
            one["left_out"],
            str(one["nets"]),
            f"{one['auc_over_aligned']:.3f}",
            f"{one['auc_over_fitted']:.3f}",
        )
        for one in stored["areas"]
    ]
    return table(head, rows)


def parts(found: Report, alpha: dict[str, Any] | None) -> dict[str, str]:
    """Page -> what stands between its markers."""
    evaluation = found.evaluation
    assert evaluation is not None
    whole = [
        f"Stored in `baselines/atlas/verdict-eval.json`; {facts(found)}. The number of groups stands in "
        f"brackets. {words.NOTE}",
        table(words.COLUMNS, [words.cells(one) for one in evaluation.rows]),
        "log2(c/c\\*):",
        table(words.RATIO_COLUMNS, [words.ratio_cells(one) for one in evaluation.rows]),
    ]
    whole += [
        "T2 by regime:",
        table(
            words.REGIME_COLUMNS,
            [
                cells
                for one in evaluation.rows if one.evidence == "T2"
                for cells in words.regime_rows(one)
            ],
        ),
    ]  # fmt: skip
    for one in evaluation.rows:
        if one.evidence == "T2":
            whole += [f"T2, worst groups by {one.left_out}:", worst(one)]
    whole += [
        "One number alone, fitted in the same way on the same nets:",
        table(words.BASELINE_COLUMNS, [words.baseline_cells(one) for one in evaluation.baselines]),
    ]
    if alpha is not None:
        made = alpha["made_with"]
        whole += [
            f"WeightWatcher {made['weightwatcher']} (`benchmarks/weightwatcher_alpha.py`, stored in "
            f"`baselines/atlas/weightwatcher.json`) on {alpha['nets']} of these nets, one seed of "
            f"{alpha['setups']} setups; {alpha['without_alpha']} more have no alpha. "
            "Alpha is fitted to these nets; what is not said to be so, or to be taken as it is, to all "
            "nets of the atlas that were not left out:",
            peer(alpha),
        ]
    brief = [
        f"Data and initial weights, {facts(found)}; intervals draw whole groups again (none below "
        "eight groups; that of the calibration error may lie above its value):",
        short(found),
    ]
    singles = [one for one in evaluation.baselines if one.left_out == "task"]
    (own,) = (one for one in singles if one.name.startswith("the reading"))
    sides = [
        max(
            (one for one in singles if one is not own),
            key=lambda one: max(getattr(one, f"raw_{side}") or 0, getattr(one, f"auc_{side}") or 0),
        )
        for side in ("over_aligned", "over_fitted")
    ]
    best = [
        max(getattr(one, f"raw_{side}") or 0, getattr(one, f"auc_{side}") or 0)
        for one, side in zip(sides, ("over_aligned", "over_fitted"), strict=True)
    ]
    names = " and ".join(dict.fromkeys(one.name for one in sides))
    brief.append(
        f"The best single numbers ({names}) reach areas of {best[0]:.3f} and {best[1]:.3f} by task "
        f"on the same nets, where the reading has {own.auc_over_aligned:.3f} and "
        f"{own.auc_over_fitted:.3f}."
    )
    return {"reading.md": "\n\n".join(whole), "README.md": "\n\n".join(brief)}


def main() -> None:
    """Write both pages."""
    stored = ATLAS / "weightwatcher.json"
    alpha = json.loads(stored.read_text("utf-8")) if stored.exists() else None
    found = parts(report.read(ATLAS / "verdict-eval.json"), alpha)
    for page in PAGES:
        text = page.read_text("utf-8")
        before, _, rest = text.partition(BEGIN)
        _, _, after = rest.partition(END)
        page.write_text(f"{before}{BEGIN}\n\n{found[page.name]}\n\n{END}{after}", "utf-8")


if __name__ == "__main__":
    main()
