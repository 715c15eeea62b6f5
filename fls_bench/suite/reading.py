"""Suites found and read: from TOML to a checked value, with what is wrong in words."""

from __future__ import annotations

import itertools
import json
import tomllib
from pathlib import Path
from typing import Any, get_args

from pydantic import ValidationError

from fls_bench.errors import InputError
from fls_bench.files import packaged
from fls_bench.suite.problems import did_you_mean, problem_of
from fls_bench.suite.suite import Scale, Suite

SUITE_SCHEMA = 1

MAX_CASES = 1000
"""Most cases of a suite, those that ``vary`` makes counted."""

_REMEDY = "Correct the file and try again."


def suite_folder() -> Path:
    """The folder of the suites that come with the package.

    Returns:
        ``_data/suites`` inside an installed package, else ``suites`` beside the source tree.

    Raises:
        InputError: Neither is there.
    """
    folder = packaged("suites")
    if folder is not None:
        return folder
    raise InputError(
        "The suites that come with fls-bench are missing from this installation.",
        "Install fls-bench again, or give the path of a suite file.",
    )


def list_suites() -> list[Suite]:
    """All suites that come with the package, by name.

    Raises:
        InputError: One of the files can't be used.
    """
    return [_read(path) for path in sorted(suite_folder().glob("*.toml"))]


def load_suite(name_or_path: str | Path) -> Suite:
    """Read one suite.

    Args:
        name_or_path: The name of a suite of the package, its scale after it where that is small
            (``theory-small``), or the path of a file: whatever is a ``Path``, ends in ``.toml`` or holds
            a slash.

    Returns:
        The suite.

    Raises:
        InputError: There is no such suite, or the file can't be read or used; the message names
            the place in the file.
    """
    text = str(name_or_path)
    if isinstance(name_or_path, Path) or text.endswith(".toml") or "/" in text:
        return _read(Path(name_or_path))
    known = {path.stem: path for path in sorted(suite_folder().glob("*.toml"))}
    base, _, scale = text.rpartition("-")
    if text not in known and base in known and scale == "small":
        return _read(known[base]).at_scale("small")  # as reports and baselines call it
    if text not in known:
        raise InputError(
            f"There is no suite named {text!r}{did_you_mean(text, known)}",
            f"Suites are {', '.join(known)}; for your own, give the path of a .toml file.",
        )
    return _read(known[text])


def load_at_scale(name_or_path: str | Path, scale: str) -> Suite:
    """Read one suite as it is run at a scale.

    Args:
        name_or_path: As for :func:`load_suite`.
        scale: ``small`` or ``full``.

    Returns:
        The suite.

    Raises:
        InputError: There is no such suite or scale, or the file can't be used.
    """
    if scale not in get_args(Scale):
        raise InputError(
            f"There is no scale {scale!r}{did_you_mean(scale, get_args(Scale))}",
            "Give --scale small or --scale full.",
        )
    return load_suite(name_or_path).at_scale("small" if scale == "small" else "full")


def _read(path: Path) -> Suite:
    try:
        if path.exists() and not path.is_file():
            what = "a directory" if path.is_dir() else "not a file"
            raise InputError(f"{path} is {what}.", "Give the path of a suite file.")
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise InputError(
            f"The suite file {path} can't be read: {error.strerror}.",
            "Check the path; fls-bench suites lists the names that need none.",
        ) from error
    except ValueError as error:
        raise InputError(f"{path} is not a text file in UTF-8.", "Give a suite file.") from error
    try:
        tree = tomllib.loads(text, parse_float=_finite)
    except tomllib.TOMLDecodeError as error:
        raise InputError(f"{path} is not valid TOML: {error}.", _REMEDY) from error
    except (ValueError, RecursionError) as error:
        what = "it is nested too deeply" if isinstance(error, RecursionError) else str(error)
        raise InputError(f"{path} can't be used as a suite: {what}.", _REMEDY) from error
    found = tree.get("schema", SUITE_SCHEMA)
    if isinstance(found, int) and found != SUITE_SCHEMA:
        raise InputError(
            f"{path} is written in suite schema {found}, and this version reads {SUITE_SCHEMA}.",
            "Update fls-bench, or write the suite in the older schema.",
        )
    try:
        tree = _expanded(tree)
    except ValueError as error:
        raise InputError(f"{path}: {error}.", _REMEDY) from error
    try:
        # JSON's strict mode knows arrays and names of choices, and still turns no "4" into a 4.
        return Suite.model_validate_json(json.dumps(tree, default=str), strict=True)
    except ValidationError as error:
        raise InputError(problem_of(path, tree, error, Suite), _REMEDY) from error


def _expanded(tree: dict[str, Any]) -> dict[str, Any]:
    """The tree with a case for every combination of what a case's ``vary`` lists.

    ``vary = { "model.width" = [16, 64], "task.n_train" = [10, 20] }`` makes four cases, whose ids end
    in ``-width16-n_train10`` and so on, all of one family.

    Raises:
        ValueError: ``vary`` is no table of lists, or makes too many cases.
    """
    cases = tree.get("case")
    if not isinstance(cases, list):
        return tree
    made: list[Any] = []
    for case in cases:
        if not (isinstance(case, dict) and "vary" in case):
            made.append(case)
            continue
        name, vary = case.get("id"), case["vary"]
        lists = vary.values() if isinstance(vary, dict) and vary else [None]
        if not all(isinstance(one, list) and one for one in lists):
            raise ValueError(
                f'case {name!r}: vary is a table of lists, such as {{ "task.n_train" = [10, 20] }}'
            )
        rest = {key: value for key, value in case.items() if key != "vary"}
        if "id" in vary:
            raise ValueError(f"case {name!r}: vary can't name the id, which it makes")
        for values in itertools.islice(itertools.product(*lists), MAX_CASES + 1):
            one = {"family": name, **rest}
            for place, value in zip(vary, values, strict=True):
                table, _, key = place.rpartition(".")
                if not table:
                    one[key] = value
                    continue
                if not isinstance(one.get(table, {}), dict):
                    raise ValueError(
                        f"case {name!r}: vary names {place!r}, and {table!r} is no table"
                    )
                one[table] = {**one.get(table, {}), key: value}
            shown = []
            for place, value in zip(vary, values, strict=True):
                # A table, such as a stop, is known by its first key.
                key, told = (place, value) if not isinstance(value, dict) else next(
                    iter(value.items()), (place, "")
                )  # fmt: skip
                leaf = key.rpartition(".")[2]
                shown.append(f"{'' if leaf == 'name' else leaf}{told}")
            one["id"] = "-".join([str(name), *shown]).replace(".", "_")
            made.append(one)
    if len(made) > MAX_CASES:
        raise ValueError(f"there are more than {MAX_CASES} cases")
    return {**tree, "case": made}


def _finite(text: str) -> float:
    value = float(text)
    if value - value != 0:
        raise ValueError(f"{text} is not a finite number")
    return value
