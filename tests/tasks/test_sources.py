"""Which names are opened or imported, and by whom; what parts share; how even classes are."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fls_bench import facts, tasks
from fls_bench.errors import InputError
from fls_bench.schema import TaskSpec
from fls_bench.tasks import Task, load_task, make_task, named_source, task_source
from fls_bench.training_setup import TrainingSetup, import_object


def labelled(n: int, seed: int = 0, n_classes: int = 2) -> tuple[Any, Any]:
    return np.random.default_rng([seed, n]).standard_normal((n, 3)), np.arange(n) % n_classes


def even(seed: int) -> Task:
    return make_task("even", labelled(40, seed), labelled(30, 98), labelled(20, 99), seed=seed)


# --- functions of the user's -----------------------------------------------------------------

RETURNED: dict[str, Any] = {
    "task": lambda seed: even(seed),
    "pair": lambda seed: labelled(60, seed),
    "arrays": lambda seed: dict(zip("xy", labelled(60, seed), strict=True)),
    "parts": lambda seed: (labelled(60, seed), labelled(30, 7)),
    "three parts": lambda seed: [labelled(60, seed), labelled(30, 7), labelled(20, 8)],
}


@pytest.mark.parametrize("case", RETURNED)
def test_a_function_of_the_seed(case: str) -> None:
    source = task_source("mine:data", code=lambda _: RETURNED[case])
    assert source(0).fingerprint == source(0).fingerprint != source(1).fingerprint


def test_parts_of_a_function_are_training_test_and_validation() -> None:
    task = task_source("m:f", code=lambda _: RETURNED["three parts"])(4)
    assert [len(y) for y in (task.y_train, task.y_val, task.y_test)] == [60, 20, 30]
    assert task.spec == TaskSpec(name="m:f")


def test_a_function_without_a_seed_is_called_once_and_its_points_are_redrawn() -> None:
    calls = []

    def data() -> Any:
        calls.append(1)
        return labelled(60)

    source = task_source("m:f", {"n_train": 20}, code=lambda _: data)
    first, second = source(0), source(1)
    assert (len(calls), first.n_train) == (1, 20)
    assert first.fixed_test
    np.testing.assert_array_equal(first.x_test, second.x_test)
    assert first.fingerprint != second.fingerprint


@pytest.mark.parametrize(
    ("value", "problem"),
    [
        (3, "is of type int, not a function"),
        (lambda seed: None, "returned NoneType"),
        (lambda seed: labelled(60)[0], "returned ndarray"),
        (lambda seed: 1 / 0, "failed with ZeroDivisionError"),
        (lambda seed: (np.ones((60, 3)), np.ones((60, 2))), "multi-label"),
        (lambda a, b: 3, "failed with TypeError"),
    ],
)
def test_functions_that_give_no_data(value: Any, problem: str) -> None:
    with pytest.raises(InputError, match=problem):
        task_source("m:f", code=lambda _: value)(0)


# --- what a file may name -------------------------------------------------------------------


@pytest.fixture
def trap(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A module that leaves a trace when it is imported, and data, in the current folder."""
    (tmp_path / "trap.py").write_text(
        f"from pathlib import Path\nPath({str(tmp_path / 'imported')!r}).touch()\n"
        "def data(seed):\n    raise SystemError\n"
    )
    np.savez(tmp_path / "data.npz", x=labelled(60)[0], y=labelled(60)[1])
    (tmp_path / "photos" / "cat").mkdir(parents=True)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.chdir(tmp_path)
    return tmp_path / "imported"


@pytest.mark.parametrize("name", ["trap:data", "data.npz", "photos", "./photos", "trap"])
def test_a_model_file_chooses_neither_code_nor_files(name: str, trap: Path) -> None:
    with pytest.raises(InputError, match="no task named"):
        load_task(TaskSpec(name=name))
    with pytest.raises(InputError, match="no task named"):
        named_source(name)
    assert not trap.exists()


def test_code_is_imported_only_for_a_caller_who_says_so(trap: Path) -> None:
    with pytest.raises(InputError, match="looks like code to import"):
        task_source("trap:data")
    assert not trap.exists()
    source = task_source("trap:data", code=lambda name: import_object(name, "--task"))
    assert trap.exists(), "the trap is harmless, so the test proves nothing"
    with pytest.raises(InputError, match="SystemError"):
        source(0)


def test_the_command_line_takes_the_users_code_and_tables(
    cli: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lines = [f"{k % 7},{k % 5},{'ab'[k % 2]}" for k in range(60)]
    (tmp_path / "own.csv").write_text("\n".join(["u,v,label", *lines]))
    (tmp_path / "own_data.py").write_text(
        "import numpy as np\ndef data():\n    return np.eye(60), np.arange(60) % 2\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.chdir(tmp_path)
    small = ["--depth", "2", "--width", "4", "--max-epochs", "2", "-q", "--force"]
    for task in ("own.csv", "own_data:data"):
        assert cli("train", "-o", "m.pt", "--task", task, *small).code == 0
    ended = cli("diagnose", "m.pt", "--data", "no.csv")
    assert (ended.code, "There is no file 'no.csv'" in ended.err) == (2, True)
    ended = cli("diagnose", "m.pt", "--data", "own.csv")
    assert (ended.code, "do not fit together" in ended.err) == (2, True)


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (b"hello, world", "it is no numpy archive"),
        (b"", "it is empty"),
        (b"\x80\x04\x95", "Python objects"),
        (b"\x93NUMPY", r"can't be read|not an \.npz"),
    ],
)
def test_an_npz_that_is_none_is_told_what_it_is(
    content: bytes, problem: str, tmp_path: Path
) -> None:
    (tmp_path / "d.npz").write_bytes(content)
    with pytest.raises(InputError, match=problem):
        task_source(str(tmp_path / "d.npz"))


def test_all_draws_of_finite_arrays_share_one_test_part() -> None:
    (a, b), (c, d) = labelled(60), labelled(30, 1)
    arrays = {"x_train": a, "y_train": b, "x_test": c, "y_test": d}
    source = tasks.arrays_source("mine", arrays, 20, None)
    assert source(0).x_test is source(1).x_test
    before = source(0).fingerprint
    c[:] = 0
    assert source(0).fingerprint == before, "the user's own arrays may change"


# --- shared points and classes --------------------------------------------------------------


def codes(task: Task) -> dict[str, str]:
    setup = TrainingSetup(make_model=lambda: None, task=even)  # type: ignore[arg-type, return-value]
    return {one.code: f"{one.status}: {one.text}" for one in facts.data_findings(setup, task)}


def test_good_data_raise_nothing() -> None:
    assert codes(even(0)) == {}


def test_points_that_parts_share_are_counted() -> None:
    task = even(0)
    x_test, x_val = task.x_test.copy(), task.x_val.copy()
    x_test[:3], x_val[5:7] = task.x_train[:3], task.x_train[8]
    found = codes(replace(task, x_test=x_test, x_val=x_val))
    assert found.keys() == {"test_points_in_training", "validation_points_in_training"}
    assert found["test_points_in_training"].startswith("problem: 3 of 30 test points")
    assert found["validation_points_in_training"].startswith("warning: 2 of 20 validation points")


def test_minus_zero_is_zero() -> None:
    task = even(0)
    zero, minus = task.x_train.copy(), task.x_test.copy()
    zero[0], minus[0] = 0.0, -0.0
    assert replace(task, x_train=zero, x_test=minus).shared_with_training(minus) == 1


def uneven(counts: dict[int, tuple[int, int, int]], n_classes: int) -> Task:
    """Counts of training, validation and test points by class."""
    rng, parts = np.random.default_rng(0), []
    for part in range(3):
        y = np.repeat(list(counts), [count[part] for count in counts.values()])
        parts.append((rng.standard_normal((len(y), 3)), y))
    return make_task("uneven", parts[0], parts[2], parts[1], n_classes=n_classes)


def test_imbalance_is_over_all_parts_and_over_classes_that_occur() -> None:
    task = uneven({0: (60, 40, 100), 1: (10, 10, 20)}, 3)
    assert task.class_counts.tolist() == [60, 10, 0]
    assert task.imbalance == pytest.approx(200 / 40)
    assert task.chance_error(balanced=False) == task.majority_error == pytest.approx(20 / 120)
    assert task.chance_error(balanced=True) == pytest.approx(1 / 2)
    found = codes(task)
    assert "5.0 times" in found["class_imbalance"]
    assert found["class_missing_in_training"].endswith("can learn them: 2.")
    assert "1 of 3 classes have no test points" in found["class_missing_in_test"]
    assert "fewer than 30 test points" in found["class_rare_in_test"]
    assert found["class_rare_in_test"].endswith(": 1.")


def test_mild_imbalance_is_nothing_to_say() -> None:
    task = uneven({0: (30, 30, 90), 1: (10, 10, 30)}, 2)
    assert task.imbalance == pytest.approx(3)
    assert codes(task) == {}


def test_imbalance_of_finite_data_hardly_depends_on_the_draw() -> None:
    values = {round(task_source("breast_cancer")(seed).imbalance, 6) for seed in range(4)}
    assert values == {round(357 / 212, 6)}
