"""Tables with a target column: CSV and Parquet."""

from __future__ import annotations

import csv
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from fls_bench.errors import InputError
from fls_bench.schema import TaskSpec
from fls_bench.tasks.arrays import arrays_source
from fls_bench.tasks.task import Labels, TaskSource

TARGETS = ("target", "label", "class", "y")
"""Names of a target column that need not be told, in any case of letters."""

MISSING = frozenset({"", "na", "n/a", "nan", "null", "?"})
"""What counts as a missing value in CSV, in any case of letters."""

MAX_LEVELS = 20
"""Most different texts of a column that becomes one input per text."""

MAX_NUMBER_CLASSES = 100
"""Most different whole numbers of a target; more look like a quantity."""


@dataclass(frozen=True)
class Column:
    """One column.

    Attributes:
        kind: ``lists`` has several values per cell; ``others``, e.g. times, are of no use here.
        values: Numbers [n] float64, NaN where missing; or texts [n]; else only their length counts.
        missing: How many are missing.
    """

    kind: Literal["numbers", "texts", "lists", "others"]
    values: npt.NDArray[Any]
    missing: int = 0


Table = Mapping[str, Column]


def table_source(
    path: Path, *, n_train: int | None = None, target: str | None = None, drop: str | None = None
) -> TaskSource:
    """Turn a .csv or .parquet file with a target column into a task source.

    Numbers are taken as they are; a column of texts becomes one input per text where they are at
    most 20. Texts or numbers of the target become classes 0 .. K-1 in their order, which the task's
    notes tell. 40 % of the rows (at most 1,000) are a fixed test part, and inputs are standardised
    by the other rows.

    Args:
        path: The file.
        n_train: Training rows per draw; None: half of those that are not for testing.
        target: Name of the target column; None: the one column named target, label, class or y.
        drop: Names of columns to leave out, comma-separated.

    Returns:
        seed -> Task.

    Raises:
        InputError: The file can't be read, the target is not told, is a quantity or has several
            values per row, or a column has missing values or too many texts.
    """
    name = str(path)
    if not os.path.exists(path):  # "no" where pathlib raises
        raise InputError(f"There is no file {name!r}.", "Check the path.")
    table = (_read_parquet if path.suffix.lower() == ".parquet" else _read_csv)(path)
    left_out = _named(name, table, drop)
    wanted = _target(name, table, target)
    y, classes, notes = _classes(name, wanted, table[wanted])
    features = [key for key in table if key != wanted and key not in left_out]
    if not features:
        raise InputError(f"{name!r} has no column beside {wanted!r}.", "Give some inputs.")
    inputs = np.concatenate([_inputs(name, key, table[key]) for key in features], axis=1)
    spelled = [key for key in features if table[key].kind == "texts"]
    if spelled:
        notes = (*notes, f"One input per text of {', '.join(spelled)}.")
    return arrays_source(
        path.stem, {"x": inputs, "y": y}, n_train, TaskSpec(name=name), len(classes), notes
    )


# --- columns ---------------------------------------------------------------------------------


def _listed(names: Sequence[str]) -> str:
    return ", ".join(names[:30]) + (f", and {len(names) - 30} more" if len(names) > 30 else "")


def _named(name: str, table: Table, drop: str | None) -> set[str]:
    left_out = {part.strip() for part in (drop or "").split(",")} - {""}
    if unknown := sorted(left_out - set(table)):
        raise InputError(
            f"{name!r} has no column {unknown[0]!r} to leave out.",
            f"Its columns are {_listed(list(table))}.",
        )
    return left_out


def _target(name: str, table: Table, target: str | None) -> str:
    columns = f"Its columns are {_listed(list(table))}."
    if target is None:
        found = [key for key in table if key.strip().lower() in TARGETS]
        if len(found) == 1:
            return found[0]
        which = f"several columns that may be ({', '.join(found)})" if found else "no column named"
        raise InputError(
            f"{name!r} has {which} {', '.join(TARGETS[:-1])} or {TARGETS[-1]}.",
            f"Name the target column with target = ...: {columns[0].lower()}{columns[1:]}",
        )
    if target in table:
        return target
    parts = [part.strip() for part in target.split(",")]
    if len(parts) > 1 and set(parts) <= set(table):
        raise InputError(
            f"{name!r}: {len(parts)} target columns are several labels per row (multi-label), which "
            "fls-bench does not judge.",
            "Name one target column, and drop the others.",
        )
    raise InputError(f"{name!r} has no column {target[:80]!r}.", columns)


def _refuse_missing(name: str, key: str, column: Column) -> None:
    if column.missing:
        raise InputError(
            f"{name!r}: {column.missing} of {len(column.values)} values of column {key!r} are missing.",
            "Fill them, remove their rows, or drop the column.",
        )


def _classes(name: str, key: str, column: Column) -> tuple[Labels, list[str], tuple[str, ...]]:
    """Labels 0 .. K-1, the classes' names, and the note that tells them."""
    texts = column.kind == "texts"
    if column.kind == "lists" or (
        texts and np.char.startswith(np.char.strip(column.values), "[").all()
    ):
        raise InputError(
            f"{name!r}: cells of the target {key!r} hold several labels (multi-label), which "
            "fls-bench does not judge.",
            "Give one label per row.",
        )
    if column.kind == "others":
        raise InputError(
            f"{name!r}: the target {key!r} holds neither numbers nor texts.",
            "Name the column of a class with target = ....",
        )
    _refuse_missing(name, key, column)
    values, y = np.unique(column.values, return_inverse=True)
    if not texts and ((values != np.floor(values)).any() or len(values) > MAX_NUMBER_CLASSES):
        raise InputError(
            f"{name!r}: the target {key!r} has {len(values)} different numbers, such as "
            f"{values[0]:g} and {values[-1]:g}: a quantity (regression), and no classes.",
            "Name the column of a class with target = ..., or make classes of the quantity.",
        )
    if len(values) < 2:
        raise InputError(
            f"{name!r}: the target {key!r} has one class only.", "Give at least two classes."
        )
    if 2 * len(values) > len(y):
        raise InputError(
            f"{name!r}: the target {key!r} has {len(values)} classes in {len(y)} rows.",
            "Name the column of a class with target = ....",
        )
    names = [str(value) if texts else f"{value:g}" for value in values]
    shown = ", ".join(f"{k} = {text[:40]}" for k, text in enumerate(names[:20]))
    more = f", and {len(names) - 20} more" if len(names) > 20 else ""
    note = f"Classes of {key}: {shown}{more}."
    return y.astype(np.int64), names, (note,)


def _inputs(name: str, key: str, column: Column) -> npt.NDArray[np.float64]:
    """[n, 1] of numbers, or [n, texts] of 0 and 1."""
    if column.kind not in ("numbers", "texts"):
        raise InputError(
            f"{name!r}: cells of column {key!r} are neither numbers nor texts.",
            "Drop the column, or make columns of numbers of it.",
        )
    _refuse_missing(name, key, column)
    if column.kind == "numbers":
        return np.asarray(column.values[:, None], dtype=np.float64)
    levels = np.unique(column.values)
    if len(levels) > MAX_LEVELS:
        raise InputError(
            f"{name!r}: column {key!r} holds {len(levels)} different texts, such as "
            f"{str(levels[0])[:40]!r}; at most {MAX_LEVELS} can become inputs.",
            "Drop the column, or make numbers of it.",
        )
    return np.asarray(column.values[:, None] == levels, dtype=np.float64)


# --- files -----------------------------------------------------------------------------------


def _read_csv(path: Path) -> Table:
    name = str(path)
    remedy = (
        "Write it as UTF-8, separated by commas, with the names of the columns in its first line."
    )
    try:
        with path.open(encoding="utf-8-sig", newline="") as stream:
            first = stream.readline()
            separators: dict[str, int] = {
                one: len(next(csv.reader([first], delimiter=one), [])) for one in ",;\t"
            }
            stream.seek(0)
            reader = csv.reader(stream, delimiter=max(separators, key=separators.__getitem__))
            header = [key.strip() for key in next(reader, [])]
            rows = []
            for row in reader:
                if row and len(row) != len(header):
                    raise InputError(
                        f"{name!r}: line {reader.line_num} has {len(row)} cells, the first line "
                        f"{len(header)}.",
                        remedy,
                    )
                if row:
                    rows.append(row)
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"{name!r} can't be read as CSV: {str(error)[:200]}.", remedy) from None
    if not header or not rows:
        raise InputError(f"{name!r} holds no rows.", remedy)
    if all(_number(key) is not None for key in header):
        raise InputError(f"{name!r}: its first line holds numbers, not names of columns.", remedy)
    _refuse_twins(name, header)
    return {key: _csv_column([row[k] for row in rows]) for k, key in enumerate(header)}


def _refuse_twins(name: str, header: Sequence[str]) -> None:
    twins = sorted({key for key in header if header.count(key) > 1})
    if twins:
        raise InputError(f"{name!r} has several columns named {twins[0]!r}.", "Rename one.")


def _number(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None


def _csv_column(cells: list[str]) -> Column:
    cells = [cell.strip() for cell in cells]
    known = [cell.lower() not in MISSING for cell in cells]
    numbers = [_number(cell) if there else np.nan for cell, there in zip(cells, known, strict=True)]
    missing = len(cells) - sum(known)
    if any(number is None for number in numbers) or missing == len(cells):
        return Column("texts", np.array(cells, dtype=np.str_), missing)
    return Column("numbers", np.array(numbers, dtype=np.float64), missing)


def _read_parquet(path: Path) -> Table:
    try:
        from pyarrow import ArrowException, parquet
    except ImportError:
        raise InputError(
            "Reading Parquet needs pyarrow, which is not installed.",
            "Install it with pip install 'fls-bench[data]', or write the table as CSV.",
        ) from None
    try:
        table = parquet.read_table(path, use_threads=False)
    except (ArrowException, OSError) as error:
        reason = " ".join(str(error).split())[:200]
        raise InputError(
            f"{str(path)!r} can't be read as Parquet: {reason}.", "Write it again."
        ) from None
    if not table.num_rows:
        raise InputError(f"{str(path)!r} holds no rows.", "Give some.")
    _refuse_twins(str(path), table.column_names)
    return {key: _parquet_column(table[key]) for key in table.column_names}


def _parquet_column(column: Any) -> Column:
    from pyarrow import types

    kind = column.type
    if types.is_dictionary(kind):
        kind = kind.value_type
        column = column.cast(kind)
    missing = column.null_count
    if types.is_boolean(kind) or types.is_integer(kind) or types.is_floating(kind):
        cells = [np.nan if cell is None else float(cell) for cell in column.to_pylist()]
        numbers = np.array(cells, dtype=np.float64)
        return Column("numbers", numbers, int(np.isnan(numbers).sum()))
    if types.is_string(kind) or types.is_large_string(kind):
        texts = ["" if cell is None else cell for cell in column.to_pylist()]
        return Column("texts", np.array(texts, dtype=np.str_), missing)
    is_list = types.is_list(kind) or types.is_large_list(kind) or types.is_fixed_size_list(kind)
    return Column("lists" if is_list else "others", np.zeros(len(column)), missing)
