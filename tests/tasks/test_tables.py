"""CSV and Parquet with a target column: what becomes of columns, what is refused."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fls_bench.errors import InputError
from fls_bench.tasks import Task, task_source

Columns = dict[str, list[Any]]


def table(num: int = 60) -> Columns:
    rng = np.random.default_rng(num)
    return {
        "height": rng.normal(170, 10, num).tolist(),
        "colour": [["red", "blue", "green, light"][k % 3] for k in range(num)],
        "species": [["yak", "ant"][k % 2] for k in range(num)],
    }


def write_csv(path: Path, columns: Columns, delimiter: str = ",", encoding: str = "utf-8") -> str:
    with path.open("w", newline="", encoding=encoding) as stream:
        writer = csv.writer(stream, delimiter=delimiter)
        writer.writerow(columns)
        writer.writerows(zip(*columns.values(), strict=True))
    return str(path)


def write_parquet(path: Path, columns: Columns) -> str:
    pa = pytest.importorskip("pyarrow", reason="pip install pyarrow")
    from pyarrow import parquet

    parquet.write_table(pa.table(columns), path)
    return str(path)


def written(kind: str, path: Path, columns: Columns) -> str:
    return (write_csv if kind == "csv" else write_parquet)(path / f"data.{kind}", columns)


def everything(task: Task) -> tuple[Any, Any]:
    x = np.concatenate([task.x_train, task.x_val, task.x_test])
    return x, np.concatenate([task.y_train, task.y_val, task.y_test])


@pytest.mark.parametrize("kind", ["csv", "parquet"])
def test_numbers_stay_texts_become_inputs_and_labels_sorted_classes(
    kind: str, tmp_path: Path
) -> None:
    columns = table()
    task = task_source(written(kind, tmp_path, columns), {"target": "species"})(0)
    x, y = everything(task)
    assert (x.shape, task.n_classes, len(task.y_test)) == ((60, 4), 2, 24)
    assert "Classes of species: 0 = ant, 1 = yak." in task.notes
    seen = np.concatenate([task.x_train, task.x_val])
    np.testing.assert_allclose(seen.mean(0), 0, atol=1e-5)
    np.testing.assert_allclose(seen.std(0), 1, atol=1e-4)
    order = np.argsort(columns["height"])
    ranked = np.argsort(x[:, 0])
    assert np.corrcoef(x[ranked, 0], np.sort(columns["height"]))[0, 1] == pytest.approx(1)
    assert [["ant", "yak"][k] for k in y[ranked]] == [columns["species"][k] for k in order]
    levels = ["blue", "green, light", "red"]  # sorted, one input for each
    assert [levels[k] for k in x[ranked, 1:].argmax(1)] == [columns["colour"][k] for k in order]


@pytest.mark.parametrize("name", ["target", "Label", "class", "y"])
def test_the_target_column_is_found_by_its_name(name: str, tmp_path: Path) -> None:
    columns = table()
    columns[name] = columns.pop("species")
    assert task_source(write_csv(tmp_path / "d.csv", columns))(0).n_classes == 2


@given(st.lists(st.text(st.characters(exclude_categories=("Cs", "Cc"))), min_size=2, max_size=5))
def test_any_texts_survive_csv(tmp_path_factory: pytest.TempPathFactory, texts: list[str]) -> None:
    names = sorted({f"a{text.strip()}" for text in texts})
    if len(names) < 2:
        return
    path = tmp_path_factory.mktemp("csv", numbered=True) / "d.csv"
    columns: Columns = {"x": list(range(60)), "label": [names[k % len(names)] for k in range(60)]}
    task = task_source(write_csv(path, columns), {"n_train": 18})(0)
    shown = ", ".join(f"{k} = {name[:40]}" for k, name in enumerate(names))
    assert task.notes[0] == f"Classes of label: {shown}."


@pytest.mark.parametrize(("delimiter", "encoding"), [(";", "utf-8"), ("\t", "utf-8-sig")])
def test_other_separators_and_a_byte_order_mark(
    delimiter: str, encoding: str, tmp_path: Path
) -> None:
    plain = task_source(write_csv(tmp_path / "a.csv", table()), {"target": "species"})(0)
    path = write_csv(tmp_path / "b.csv", table(), delimiter, encoding)
    assert task_source(path, {"target": "species"})(0).fingerprint == plain.fingerprint


def test_both_formats_give_the_same_data_and_columns_can_be_left_out(tmp_path: Path) -> None:
    columns = {"id": [f"row {k}" for k in range(60)], **table()}
    arguments = {"target": "species", "drop": "id, colour"}
    tasks = [task_source(written(k, tmp_path, columns), arguments)(0) for k in ("csv", "parquet")]
    assert tasks[0].fingerprint == tasks[1].fingerprint
    assert tasks[0].input_dim == 1


NUM = range(60)
BAD: dict[str, tuple[dict[str, Any], dict[str, Any], str]] = {
    "no target": ({}, {}, "no column named target, label, class or y.*height, colour, species"),
    "two targets": ({"y": [0, 1] * 30, "Label": [0, 1] * 30}, {}, r"several columns.*\(y, Label\)"),
    "unknown target": ({}, {"target": "kind"}, "no column 'kind'"),
    "unknown drop": ({}, {"target": "species", "drop": "id"}, "no column 'id' to leave out"),
    "many texts": (
        {"name": [f"n{k}" for k in NUM]}, {"target": "species"}, "'name' holds 60 different texts"
    ),
    "quantity": ({"y": [k / 7 for k in NUM]}, {}, "60 different numbers.*regression"),
    "few fractions": ({"y": [0.5, 1.5] * 30}, {}, "regression"),
    "names": ({"y": [f"n{k}" for k in NUM]}, {}, "60 classes in 60 rows"),
    "one class": ({"y": ["a"] * 60}, {}, "one class only"),
    "several columns": (
        {"a": [0, 1] * 30, "b": [1, 0] * 30}, {"target": "a,b"}, r"2 target columns.*multi-label"
    ),
    "missing number": (
        {"weight": [1.0, None, None] * 20}, {"target": "species"}, "40 of 60 .*'weight' are missing"
    ),
    "missing text": (
        {"kind": ["a", None] * 30}, {"target": "species"}, "30 of 60 values of column 'kind'"
    ),
    "missing label": ({"y": [0, 1, None] * 20}, {}, "20 of 60 values of column 'y'"),
    "missing label text": ({"y": ["a", "b", None] * 20}, {}, "20 of 60 values of column 'y'"),
    "infinite": ({"w": [float("inf"), 1.0] * 30}, {"target": "species"}, "NaN or infinite"),
}  # fmt: skip


@pytest.mark.parametrize("kind", ["csv", "parquet"])
@pytest.mark.parametrize("case", BAD)
def test_tables_that_can_not_be_used(case: str, kind: str, tmp_path: Path) -> None:
    more, arguments, problem = BAD[case]
    path = written(kind, tmp_path, {**table(), **more})
    with pytest.raises(InputError, match=problem) as caught:
        task_source(path, arguments)(0)
    assert "\n" not in str(caught.value)


def test_lists_and_times_in_parquet(tmp_path: Path) -> None:
    import datetime

    columns = {**table(), "tags": [["a", "b"]] * 60, "day": [datetime.date(2026, 1, 1)] * 60}
    path = written("parquet", tmp_path, columns)
    with pytest.raises(InputError, match="several labels"):
        task_source(path, {"target": "tags"})
    with pytest.raises(InputError, match="'day' holds neither numbers nor texts"):
        task_source(path, {"target": "day"})
    with pytest.raises(InputError, match="column 'tags' are neither"):
        task_source(path, {"target": "species", "drop": "day"})
    task = task_source(path, {"target": "species", "drop": "day,tags"})(0)
    assert task.input_dim == 4


def test_lists_of_labels_in_csv(tmp_path: Path) -> None:
    path = write_csv(tmp_path / "d.csv", {"x": [*NUM], "y": ["['a', 'b']", "['a']"] * 30})
    with pytest.raises(InputError, match="multi-label"):
        task_source(path)


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (b"", "holds no rows"),
        (b"x,y\n", "holds no rows"),
        (b"x,y\n1,2\n3\n", "line 3 has 1 cells, the first line 2"),
        (b"x,x,y\n1,2,3\n", "several columns named 'x'"),
        (b"1.5,2\n1,2\n", "first line holds numbers"),
        (b"x,y\n\xff\xfe,1\n", "can't be read as CSV"),
        (b"y\n" + b"0\n1\n" * 20, "no column beside 'y'"),
    ],
)
def test_files_that_are_no_csv(content: bytes, problem: str, tmp_path: Path) -> None:
    (tmp_path / "d.csv").write_bytes(content)
    with pytest.raises(InputError, match=problem):
        task_source(str(tmp_path / "d.csv"))


@pytest.mark.parametrize("kind", ["csv", "parquet"])
def test_a_file_that_is_not_there(kind: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="There is no file"):
        task_source(str(tmp_path / f"d.{kind}"))


def test_a_file_that_is_no_parquet(tmp_path: Path) -> None:
    pytest.importorskip("pyarrow", reason="pip install pyarrow")
    (tmp_path / "d.parquet").write_bytes(b"hello")
    with pytest.raises(InputError, match="can't be read as Parquet"):
        task_source(str(tmp_path / "d.parquet"))


def test_without_pyarrow_the_message_says_how_to_get_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "d.parquet").write_bytes(b"hello")
    monkeypatch.setitem(__import__("sys").modules, "pyarrow", None)
    with pytest.raises(InputError, match=r"needs pyarrow.*fls-bench\[data\]"):
        task_source(str(tmp_path / "d.parquet"))
