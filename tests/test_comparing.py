"""``fls-bench compare``: stored files side by side."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import report_fixtures as fixtures

from fls_bench import baselines, report
from fls_bench.comparing import compare_files
from fls_bench.errors import InputError
from fls_bench.report import html
from fls_bench.schema import Report

Cli = Callable[..., Any]

ROOT = Path(__file__).parents[1]


def written(folder: Path, **reports: Report) -> list[Path]:
    return [report.write_json(one, folder / f"{name}.json") for name, one in reports.items()]


def of_seeds(first: int) -> Report:
    """One setup, diagnosed with other seeds; a little worse the later they are."""
    made = fixtures.over_aligned()
    sweep = fixtures.sweep(fixtures.DEEP_DIGITS, seeds=10)
    cells = tuple(
        cell.model_copy(
            update={
                "seeds": tuple(
                    run.model_copy(update={"seed": run.seed + first}) for run in cell.seeds
                )
            }
        )
        for cell in sweep.cells
    )
    return made.model_copy(update={"sweep": sweep.model_copy(update={"cells": cells})})


def test_two_commits_are_compared_in_pairs_and_the_worse_one_is_named(
    cli: Cli, tmp_path: Path
) -> None:
    one, two = written(tmp_path, before=fixtures.suite(), after=fixtures.check(by=0.05))
    page, text, stored = (tmp_path / name for name in ("page.html", "page.md", "out.json"))
    ended = cli("compare", one, two, "--html", page, "--md", text, "--json", stored)
    assert ended.code == 0  # a comparison gates nothing
    assert "after.json against before.json: Regression: digits-mlp-small-c: test_error" in " ".join(
        ended.out.split()
    )
    found = report.read(stored)
    assert found.kind == "compare"
    assert found.comparison is not None
    assert [side.name for side in found.comparison.sides] == ["before.json", "after.json"]
    assert all(metric.paired for metric in found.comparison.pairs[0].metrics)
    assert "torch 2.13.0 -&gt; 2.14.0" in page.read_text()
    assert "torch | 2.13.0 | 2.14.0" in text.read_text()
    # A stored comparison can be shown again.
    assert cli("report", stored).out == ended.out


def test_ten_seeds_are_each_compared_with_the_first(tmp_path: Path) -> None:
    paths = written(tmp_path, **{f"seed{k}": of_seeds(100 * k) for k in range(10)})
    found = compare_files(paths).comparison
    assert found is not None
    assert len(found.sides) == 10
    assert len(found.pairs) == 9
    for pair in found.pairs:
        assert (pair.level, pair.num_tests) == (0.05, 1)
        gated = [metric for metric in pair.metrics if metric.gated]
        assert [metric.metric for metric in gated] == ["reached_target", "test_error"]
        assert not gated[1].paired
        assert gated[1].difference is not None
        assert gated[1].difference.level == pytest.approx(0.95)


def test_a_model_is_compared_with_the_case_of_a_baseline_on_its_data(tmp_path: Path) -> None:
    baseline = tmp_path / "baseline.json"
    baselines.write(baselines.baseline_of(fixtures.suite()), baseline)
    value = json.loads(baseline.read_text())
    for case, task in zip(value["cases"], ("digits", "mixture", "noise"), strict=True):
        case["setup"] = {"task": task}
    baseline.write_text(json.dumps(value))
    model = fixtures.over_aligned().model_copy(update={"setup": {"name": "mine", "task": "digits"}})
    (path,) = written(tmp_path, model=model)
    for files, matched in (
        ([baseline, path], ("digits-mlp-small-c", "mine")),
        ([path, baseline], ("mine", "digits-mlp-small-c")),
    ):
        found = compare_files(files).comparison
        assert found is not None
        assert found.pairs[0].matched == (matched,)
        assert {one.what for one in found.pairs[0].skipped} == {"mixture", "no-signal"}


def test_other_data_are_not_comparable_and_end_with_5(cli: Cli, tmp_path: Path) -> None:
    one = fixtures.over_aligned()
    other = one.model_copy(update={"setup": {**one.setup, "task": "fashion_mnist"}})
    ended = cli("compare", *written(tmp_path, one=one, other=other))
    assert ended.code == 5
    assert "The data are not the same: " in " ".join(ended.out.split())
    assert "and fashion_mnist." in " ".join(ended.out.split())


def test_gates_are_those_of_the_suite_where_both_are_its_runs(tmp_path: Path) -> None:
    quick = baselines.find("quick")
    assert quick is not None
    found = compare_files([quick.path, quick.path]).comparison
    assert found is not None
    assert found.status == "no_regression"
    assert "chance_error" in {metric.metric for metric in found.pairs[0].metrics if metric.gated}
    old = tmp_path / "quick.json"
    value = json.loads(quick.path.read_text())
    value["suite"]["digest"] = "0" * 64
    old.write_text(json.dumps(value))
    other = compare_files([quick.path, old]).comparison
    assert other is not None
    assert {k.metric for k in other.pairs[0].metrics if k.gated} == {"reached_target", "test_error"}


def test_files_of_one_name_are_told_apart_by_their_place(tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        report.write_json(fixtures.over_aligned(), tmp_path / name / "r.json")
    found = compare_files([tmp_path / "a" / "r.json", tmp_path / "b" / "r.json"]).comparison
    assert found is not None
    assert [side.name for side in found.sides] == [str(tmp_path / k / "r.json") for k in "ab"]


def test_names_are_shown_as_they_are_and_each_has_its_place_in_the_legend(tmp_path: Path) -> None:
    long = "results-of-the-very-long-experiment-named-"
    names = ["_under", "x$_{$y", "a$1$b", f"{long}one", f"{long}two", "<b>&"]
    paths = written(tmp_path, **{name: fixtures.over_aligned() for name in names})
    page = html.render(compare_files(paths))
    drawing = page[page.index("<figure>") : page.index("</figure>")]
    legend = drawing[drawing.index("legend_") :]
    for end in (
        "_under.json",
        "x$_{$y.json",
        "a$1$b.json",
        "one.json",
        "two.json",
        "&lt;b&gt;&amp;",
    ):
        assert end in legend, end


def test_what_can_not_be_compared_is_refused_in_a_sentence(cli: Cli, tmp_path: Path) -> None:
    one, weights = written(tmp_path, one=fixtures.over_aligned(), weights=fixtures.weights_alone())
    ended = cli("compare", one)
    assert ended.code == 2
    assert "Give two or more" in ended.err
    assert "holds no sweep over c" in cli("compare", one, weights).err
    with pytest.raises(InputError, match="no file"):
        compare_files([one, tmp_path / "gone.json"])


TIMED = """
import sys

class Blocker:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {blocked}:
            raise ImportError(name + " was imported")

sys.meta_path.insert(0, Blocker())
from fls_bench.cli import main
main({arguments})
"""


@pytest.mark.parametrize("command", ["compare", "report"])
def test_stored_files_are_shown_without_torch_and_without_a_statistics_library(
    command: str, tmp_path: Path
) -> None:
    one, two = map(str, written(tmp_path, one=fixtures.suite(), two=fixtures.check()))
    page, text = str(tmp_path / "page.html"), str(tmp_path / "page.md")
    for outputs, blocked in (
        (["--html", page, "--md", text], ("torch", "scipy", "sklearn")),
        ([], ("torch", "scipy", "sklearn", "matplotlib", "jinja2")),
    ):
        arguments = [command, two, *([one] if command == "compare" else []), *outputs]
        code = TIMED.format(blocked=set(blocked), arguments=arguments)
        done = subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=False
        )
        assert done.returncode == 0, done.stderr
