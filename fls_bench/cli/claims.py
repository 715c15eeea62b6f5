"""``fls-bench claims`` and ``fls-bench transfer``."""

from __future__ import annotations

import json as json_text
from pathlib import Path
from typing import Annotated

import typer

from fls_bench.cli.app import app
from fls_bench.cli.options import ForceOption, JsonOption

CLAIMS_EXIT_CODES = "Exit codes: 0 done, whatever the outcomes; 2 usage or input."


@app.command(epilog=CLAIMS_EXIT_CODES)
def claims(
    record: Annotated[
        Path | None,
        typer.Option(help="Keep the outcome in this report (JSON of run) under its suite's name."),
    ] = None,
    folder: Annotated[
        Path | None,
        typer.Option(help="Stored outcomes; default: ./baselines/claims and the package's."),
    ] = None,
    md: Annotated[Path | None, typer.Option("--md", help="Write the table as Markdown.")] = None,
    html: Annotated[
        Path | None, typer.Option("--html", help="Write all of it as one page, with the plots.")
    ] = None,
    json: JsonOption = None,
    force: ForceOption = False,
) -> None:
    """Show what became of the paper's claims.

    One table, from stored outcomes; trains nothing. `fls-bench run SUITE` tests a claim again, and
    --record keeps what it found.
    """
    from fls_bench import claims as stored
    from fls_bench import console
    from fls_bench import report as reports
    from fls_bench.files import check_target, write_whole
    from fls_bench.report import claims as words

    for target in (md, html, None if json in (None, "-") else Path(str(json))):
        if target is not None:
            check_target(target, force)
    if record is not None:
        kept = stored.record_of(reports.read(record))
        written = stored.write(kept, folder or stored.PROJECT_FOLDER, force)
        console.note(f"outcome kept in {written}: commit it")
    records, places = stored.find(folder)
    if html is not None:
        reports.write_html(stored.page_of(records), html, force)
    if md is not None:
        write_whole(md, words.markdown(records).encode())
    if json is not None:
        value = [one.model_dump(mode="json", by_alias=True) for one in records]
        text = json_text.dumps(value, indent=1, allow_nan=False) + "\n"
        if json == "-":
            print(text, end="")
            return
        write_whole(Path(json), text.encode())
    if places:
        console.note(f"stored outcomes of {' and '.join(map(str, places))}")
    console.show_claims(records)


@app.command(epilog="Exit codes: 0 done; 2 usage or input, a size outside of the fit included.")
def transfer(
    report: Annotated[
        Path, typer.Argument(help="JSON of 'run scaling-law', or its stored outcome.")
    ],
    width: Annotated[int, typer.Option(min=1, max=10**7, help="Width h of the other net.")],
    n_train: Annotated[
        int, typer.Option(min=1, max=10**12, help="Its number of training points n.")
    ],
    family: Annotated[
        str | None, typer.Option(help="Which of the fits, where there are several.")
    ] = None,
    json: JsonOption = None,
    force: ForceOption = False,
) -> None:
    """Predict c* for another size from fitted exponents.

    Only inside of what was fitted. Where c is shown: smaller c = larger FLS = toward over-aligned.
    """
    from fls_bench import claims as stored
    from fls_bench import console
    from fls_bench.files import check_target, write_whole
    from fls_bench.report import claims as words
    from fls_bench.report.summary import axis_name, c_star_text
    from fls_bench.verdict.claims.prediction import choose_fit, predict

    if json not in (None, "-"):
        check_target(Path(str(json)), force)
    fit = choose_fit(stored.fits_in(report), family)
    found = predict(fit, width, n_train)
    value = {
        "family": fit.family, "width": width, "n_train": n_train,
        "c_star": found.c_star.model_dump(), "axis": found.axis, "setting": found.setting.model_dump(),
    }  # fmt: skip
    text = json_text.dumps(value, indent=1) + "\n"
    if json == "-":
        print(text, end="")
        return
    if json is not None:
        write_whole(Path(json), text.encode())
    console.note(words.fit_text(fit), stdout=True)
    console.note(
        f"predicted at width {width}, n {n_train}: {axis_name(found.axis)} "
        f"{c_star_text(found.setting, found.axis)}",
        stdout=True,
    )
    if found.axis == "init_scale":
        console.note(
            f"as c of weights of order one, alpha^2/(d·h), not to be set: "
            f"{c_star_text(found.c_star, 'output_multiplier')}"
            if fit.log2_input_dim is not None
            else f"as c = alpha^L: {c_star_text(found.c_star, 'output_multiplier')}",
            stdout=True,
        )
