"""docs/claims.md shows the stored outcomes as they are."""

from pathlib import Path

from fls_bench import claims
from fls_bench.report.claims import markdown

ROOT = Path(__file__).parents[1]


def test_the_committed_table_is_that_of_the_stored_outcomes() -> None:
    records, _ = claims.find(ROOT / "baselines" / "claims")
    page = (ROOT / "docs" / "claims.md").read_text(encoding="utf-8")
    assert markdown(records) in page, "run: fls-bench claims --md, and put the table into the page"
    assert {claim.claim for one in records for claim in one.claims} == {
        f"C{k}" for k in range(1, 7)
    }


def test_what_the_authors_report_is_labelled_so() -> None:
    records, _ = claims.find(ROOT / "baselines" / "claims")
    for record in records:
        for claim in record.claims:
            assert claim.reported.startswith("Reported by the authors:")
