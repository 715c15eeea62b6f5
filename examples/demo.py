"""The main job on real data: train digits nets at three multipliers, diagnose each model file.

The same by hand, for one of the three:

    fls-bench train --task digits --depth 4 --width 128 --n-train 150 \
        --output-multiplier 2^-9 -o reports/demo/too-small.pt
    fls-bench diagnose reports/demo/too-small.pt --html reports/demo/too-small.html
"""

from __future__ import annotations

import shlex
import sys
from pathlib import Path

from fls_bench import bench, cli, console, report
from fls_bench.errors import FlsBenchError
from fls_bench.schema import CaseResult, Judgement, Report

FOLDER = Path("reports/demo")
MULTIPLIERS = {
    "too-small": ("2^-9", "over_aligned"),
    "about-right": ("2^-4", "near_optimal"),
    "too-large": ("2^3", "over_fitted"),
}


def main() -> int:
    """Train, diagnose, and write one page with all three."""
    FOLDER.mkdir(parents=True, exist_ok=True)
    cases = []
    with console.Progress() as listen:
        options = bench.Options(listener=listen)
        for name, (multiplier, expected) in MULTIPLIERS.items():
            file = FOLDER / f"{name}.pt"
            command = (
                "train --task digits --depth 4 --width 128 --n-train 150 "
                f"--output-multiplier {multiplier} --force --quiet -o {file}"
            )
            listen.note(f"$ fls-bench {command}")
            cli.app(shlex.split(command), standalone_mode=False)
            listen.note(f"$ fls-bench diagnose {file}")
            found = bench.diagnose_file(file, options)
            assert found.diagnosis is not None
            listen.note(f"{name}: c = {multiplier} is {found.diagnosis.regime.label}\n")
            judged = {field: getattr(found, field) for field in Judgement.model_fields}
            cases.append(
                CaseResult(
                    id=name,
                    expect={"regime": expected},
                    met=found.diagnosis.regime.value == expected,
                    **judged,
                )
            )
    whole = Report(
        kind="suite",
        suite={"name": "demo", "version": 1},
        cases=tuple(cases),
        provenance=found.provenance,
    )
    report.write_json(whole, FOLDER / "report.json", force=True)
    report.write_html(whole, FOLDER / "report.html", force=True)
    console.show(whole)
    print(f"\nOpen {FOLDER / 'report.html'} in a browser.")
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except FlsBenchError as error:
        console.fail(error.problem, error.remedy)
        sys.exit(error.exit_code)
