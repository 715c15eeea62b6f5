"""A suite of interventions from its file to its report, on small nets."""

from __future__ import annotations

import io
import math
from pathlib import Path

import pytest
from test_bench import Heard, options

from fls_bench import bench, console, report
from fls_bench.errors import InputError
from fls_bench.suite import Suite, list_suites, load_suite
from fls_bench.training_setup import TrainingSetup

TEXT = """
schema = 1
name = "mine"
version = 1
cost = { seconds = 1, memory_mb = 1 }
sources = []
seeds = 3
[defaults]
stop = { target_loss = 0.5, max_epochs = 200 }
batch_size = 20
[intervention]
first_seed = 7000
[[intervention.row]]
name = "hold"
at = ["low", "star"]
penalties = [{ strength = 2.0 }]
[[intervention.row]]
name = "mix"
penalties = [{ layers = "earlier", side = "hold" }, { layers = "last", side = "lower" }]
[[intervention.row]]
name = "wrong way"
penalties = [{ strength = 0.01 }]
misdirected = true
[[case]]
id = "small"
task = { name = "digits", n_train = 60 }
model = { name = "mlp", depth = 3, width = 16, output_multiplier = "2^-1" }
c_low = "2^-6"
"""


def written(folder: Path, text: str = TEXT) -> Suite:
    path = folder / "mine.toml"
    path.write_text(text)
    return load_suite(path)


def test_a_whole_suite_is_trained_judged_shown_and_resumed(tmp_path: Path) -> None:
    suite = written(tmp_path)
    made = bench.run(suite, options(store=tmp_path / "runs"))
    (case,) = made.cases
    found = case.intervention
    assert found is not None
    assert case.setup["output_multiplier"] == found.c_star == 0.5
    assert [(row.name, row.c) for row in found.rows] == [
        ("no penalty", 0.5), ("no penalty", 2**-6), ("hold", 2**-6), ("hold", 0.5),
        ("mix", 2**-6), ("wrong way", 2**-6),
    ]  # fmt: skip
    assert case.cost.num_runs == 18
    star, low, hold, *_, mix, wrong = found.rows
    assert [run.seed for run in hold.seeds] == [7000, 7001, 7002]
    # The targets are those of the plain nets, and the penalty brings the ranks toward them.
    assert hold.targets == pytest.approx(star.ranks)
    assert mix.targets == pytest.approx((star.ranks[0], low.ranks[1]))
    assert all(a < b for a, b in zip(low.ranks, star.ranks, strict=True))
    assert all(a < b for a, b in zip(low.ranks, hold.ranks, strict=True))
    for k, run in enumerate(hold.seeds):
        own = run.measurements["log_rank.batch:1"]
        assert own != low.seeds[k].measurements["log_rank.batch:1"]
        assert math.isfinite(own)
    assert wrong.held is None

    path = report.write_json(made, tmp_path / "report.json")
    assert report.read(path) == made
    page = report.write_html(made, tmp_path / "report.html").read_text()
    screen = io.StringIO()
    console.show(made, screen, width=200)
    for shown in (page, screen.getvalue()):
        for text in (found.text.split(";")[0], "wrong way", "intervention", "gap closed [95"):
            assert text in shown

    listener = Heard()
    again = bench.run(suite, options(store=tmp_path / "runs", listener=listener))
    assert listener.plans == []
    assert again.cases == made.cases


def test_its_seeds_follow_the_seed_option(tmp_path: Path) -> None:
    text = TEXT.replace("max_epochs = 200", "max_epochs = 1")
    made = bench.run(written(tmp_path, text), options(seed=2))
    found = made.cases[0].intervention
    assert found is not None
    assert {run.seed for row in found.rows for run in row.seeds} == {9000, 9001, 9002}
    assert found.text.startswith("Nothing can be said")  # no run reached its target


@pytest.mark.parametrize(
    ("old", "new", "problem"),
    [
        ("batch_size = 20", "batch_size = 25", "60 training points in minibatches of 25"),
        ("depth = 3", "depth = 2", "built-in MLPs with such hidden layers"),
    ],
)
def test_what_has_no_ranks_to_hold_is_refused(
    tmp_path: Path, old: str, new: str, problem: str
) -> None:
    assert old in TEXT
    with pytest.raises(InputError) as caught:
        bench.run(written(tmp_path, TEXT.replace(old, new)), options())
    assert problem in caught.value.problem


def test_a_setup_of_the_users_own_is_refused(tmp_path: Path) -> None:
    suite = written(tmp_path)
    own: TrainingSetup = bench.case_setup(suite, suite.cases[0])
    with pytest.raises(InputError, match="built-in nets"):
        bench.run(suite, options(), own)


@pytest.mark.parametrize(
    ("old", "new", "problem"),
    [
        ('c_low = "2^-6"', "", "a suite with [intervention] has cases with c_low"),
        ('c_low = "2^-6"', 'c_low = "2^-1"', "c_low is not smaller than"),
        ('c_low = "2^-6"', 'c_low = "2^-6"\nadaptive = true', "c_low goes with no log2_c"),
        ("first_seed = 7000", "first_sed = 7000", "did you mean 'first_seed'?"),
        ("strength = 2.0", "strength = 0", "greater than 0"),
        ('layers = "earlier"', 'layers = "second"', "'hidden', 'last' or 'earlier'"),
        ('at = ["low", "star"]', 'at = ["low", "low"]', "two rows have the same penalties"),
        ("[{ strength = 2.0 }]", "[]", "expected at least one"),
    ],
)
def test_a_wrong_suite_is_refused_with_its_place(
    tmp_path: Path, old: str, new: str, problem: str
) -> None:
    assert old in TEXT
    with pytest.raises(InputError) as caught:
        written(tmp_path, TEXT.replace(old, new))
    assert problem in caught.value.problem


def test_the_digest_follows_what_is_done(tmp_path: Path) -> None:
    digest = written(tmp_path).digest
    for old, new in (("strength = 2.0", "strength = 1.0"), ("7000", "7001"), ("2^-6", "2^-7")):
        assert written(tmp_path, TEXT.replace(old, new)).digest != digest


def test_the_suite_that_comes_along_holds_lowers_raises_and_controls() -> None:
    (own,) = [suite for suite in list_suites() if suite.intervention is not None]
    assert own.name == "rank_intervention"
    assert own.seeds == 20
    assert own.intervention is not None
    kinds = {(p.side, p.layers) for row in own.intervention.rows for p in row.penalties}
    assert kinds == {
        ("hold", "hidden"), ("hold", "last"), ("hold", "earlier"),
        ("lower", "last"), ("lower", "hidden"),
    }  # fmt: skip
    assert any(row.misdirected for row in own.intervention.rows)
    for case in own.cases:
        assert case.task.arguments["n_train"] % own.recipe(case).batch_size == 0
