from pathlib import Path

from fls_bench.metrics import METRICS
from fls_bench.metrics.page import page

PAGE = Path(__file__).resolve().parents[2] / "docs" / "metrics.md"


def test_the_page_is_the_table():
    assert PAGE.read_text(encoding="utf-8") == page(), "run make metrics-page"


def test_every_metric_has_its_line_with_all_cells():
    lines = [line for line in page().splitlines() if line.startswith("| `")]
    assert [line.split("`")[1] for line in lines] == list(METRICS)
    assert {line.count(" | ") for line in lines} == {6}
    kernel = next(line for line in lines if "`kernel.change`" in line)
    assert "over-aligned | initial weights, tangent kernel, training points, n >= 30" in kernel
