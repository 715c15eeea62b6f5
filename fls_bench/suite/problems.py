"""What is wrong with a suite file, in words that name the place."""

from __future__ import annotations

import difflib
import json
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, get_args

from pydantic import ValidationError

from fls_bench.schema import Frozen

_SHOWN_PROBLEMS = 4


def problem_of(
    path: Path, tree: Mapping[str, Any], error: ValidationError, suite: type[Frozen]
) -> str:
    """What is wrong with a suite file, place by place.

    Args:
        path: The file.
        tree: What stands in it.
        error: What pydantic found.
        suite: The model of a whole suite, for the names of keys.

    Returns:
        One line, or a line for each of a few problems.
    """
    lines = list(dict.fromkeys(_sentences(tree, error, suite)))
    if len(lines) == 1:
        return f"{path}: {lines[0]}"
    shown = lines[:_SHOWN_PROBLEMS]
    if rest := len(lines) - len(shown):
        shown[-1] += f" ({rest} more not shown)"
    return "\n".join([f"{path} has {len(lines)} problems:", *shown])


def _sentences(
    tree: Mapping[str, Any], error: ValidationError, suite: type[Frozen]
) -> Iterator[str]:
    for one in error.errors():
        place, value, kind = one["loc"], one["input"], one["type"]
        if kind == "extra_forbidden":
            place, key = place[:-1], str(place[-1])
            known = _keys_at(place, suite)
            text = (
                f"key {key!r} does not go with the other keys here."
                if key in known
                else f"unknown key {key!r}{did_you_mean(key, known)}"
            )
        elif kind == "missing":
            place, text = place[:-1], f"missing key {str(place[-1])!r}."
        elif kind == "value_error":
            text = str(one["ctx"]["error"])
            text += "" if text.endswith("?") else "."
        elif kind == "union_tag_invalid":
            tags = one["ctx"]["expected_tags"].replace("(", "").replace(")", "")
            text = f"unknown kind {one['ctx']['tag'].strip('()')!r}, expected {tags}."
        elif kind == "too_short" and value:
            continue  # Its cases are there: each has a problem of its own, in a line of its own.
        elif kind == "too_short":
            text = "expected at least one."
        elif kind == "json_invalid":
            text = "it is nested too deeply."
        elif kind == "string_pattern_mismatch":
            text = f"expected letters, digits, '-' and '_' only, found {_shown(value)}."
        elif place[-1] == "[key]":
            place, expected = place[:-2], one["msg"].removeprefix("Input should be ")
            text = f"unknown key {value!r}, expected {expected}."
        else:
            expected = one["msg"].removeprefix("Input should be ").replace("a valid ", "a ")
            for json_word, toml_word in (
                ("an object", "a table"),
                ("a array", "an array"),
                ("a integer", "a whole number"),
                ("a boolean", "true or false"),
                ("greater than", "a value greater than"),
                ("less than", "a value less than"),
            ):
                expected = expected.replace(json_word, toml_word)
            text = f"expected {expected}, found {_shown(value)}."
        where = _place(tree, place)
        yield f"{where}: {text}" if where else text


def _keys_at(place: Iterable[int | str], suite: type[Frozen]) -> list[str]:
    models: list[type[Frozen]] = [suite]
    for part in place:
        fields = _fields(models)
        # Other parts are positions in an array, free keys of a table, or tags of a choice.
        if isinstance(part, str) and part in fields:
            models = [model for annotation in fields[part] for model in _models_in(annotation)]
    return list(_fields(models))


def _fields(models: Iterable[type[Frozen]]) -> dict[str, list[Any]]:
    fields: dict[str, list[Any]] = {}
    for model in models:
        for name, field in model.model_fields.items():
            fields.setdefault(field.alias or name, []).append(field.annotation)
    return fields


def _models_in(annotation: Any) -> Iterator[type[Frozen]]:
    if isinstance(annotation, type) and issubclass(annotation, Frozen):
        yield annotation
    for inner in get_args(annotation):
        yield from _models_in(inner)


def _place(tree: Mapping[str, Any], place: tuple[int | str, ...]) -> str:
    parts = [part for part in place if not str(part).startswith("(")]  # no tags of a choice
    if parts[:1] == ["case"] and len(parts) > 1 and isinstance(parts[1], int):
        case = tree["case"][parts[1]]
        id_ = case.get("id") if isinstance(case, dict) else None
        first = f"case {parts[1] + 1}" + (f' "{id_}"' if isinstance(id_, str) else "")
        return ", ".join([first, *[".".join(map(str, parts[2:]))] * (len(parts) > 2)])
    return ".".join(str(part + 1) if isinstance(part, int) else part for part in parts)


def _shown(value: Any) -> str:
    if isinstance(value, dict):
        return "a table"
    if isinstance(value, list):
        return "an array"
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 40 else f"{text[:37]}..."


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """The end of a sentence: the nearest known name as a question, or a full stop."""
    near = difflib.get_close_matches(name, [*known], n=1, cutoff=0.5)
    return f", did you mean {near[0]!r}?" if near else "."
