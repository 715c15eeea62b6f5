"""Files of ours: read with a clear word on what is wrong, written whole or not at all."""

from __future__ import annotations

import contextlib
import json
import math
import os
import re
import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import TypeVar

from pydantic import ValidationError

from fls_bench.errors import InputError
from fls_bench.schema import Frozen

M = TypeVar("M", bound=Frozen)

_SCHEMA_NAME = re.compile(r"fls-bench/([a-z]+)/([1-9][0-9]{0,8})")


def read_stored(path: str | os.PathLike[str], models: Mapping[str, type[M]], made_by: str) -> M:
    """Read a JSON file of ours.

    Args:
        path: The file.
        models: Schema, such as ``fls-bench/report/1`` -> what is stored under it.
        made_by: The command that writes such a file.

    Returns:
        The value.

    Raises:
        InputError: No such file, not readable, not JSON, of another schema, damaged, or written by
            a newer fls-bench.
    """
    file = Path(path)
    words = " or ".join(dict.fromkeys(name.split("/")[1] for name in models))
    try:
        raw = file.read_bytes()
    except FileNotFoundError:
        raise InputError(
            f"There is no file {file}.", f"Check the path, or write a {words} with '{made_by}'."
        ) from None
    except IsADirectoryError:
        raise InputError(
            f"{file} is a folder, not a {words}.", "Name the JSON file in it."
        ) from None
    except OSError as error:
        raise InputError(
            f"{file} can't be read: {error.strerror}.", "Check its permissions."
        ) from None
    except ValueError as error:  # a NUL in the name
        raise InputError(f"{str(file)!r} is no file name: {error}.", "Check the path.") from None
    try:
        value = json.loads(raw, parse_constant=_refuse, parse_float=_finite)
        if b"\\ud" in raw.lower():  # half a surrogate pair is no text, and nothing can write it
            json.dumps(value, ensure_ascii=False).encode()
    except (ValueError, RecursionError):
        raise InputError(
            f"{file} is not JSON, or was cut off while it was written.",
            f"Name a {words} written by '{made_by}'; a page made with --html can't be read back.",
        ) from None
    name = value.get("schema") if isinstance(value, dict) else None
    model = models.get(name) if isinstance(name, str) else None
    if model is None:
        found = _SCHEMA_NAME.fullmatch(name) if isinstance(name, str) else None
        ours = {one.split("/")[1]: one for one in models}
        if found is not None and found[1] in ours:
            raise InputError(
                f"{file} was written by a newer fls-bench ({name}, and this one reads "
                f"{ours[found[1]]}).",
                "Upgrade fls-bench to read it.",
            )
        raise InputError(
            f"{file} is JSON, but not an fls-bench {words}: its schema is not "
            f"{' or '.join(repr(one) for one in models)}.",
            f"Name a {words} written by '{made_by}'.",
        )
    try:
        return model.model_validate(value)
    except ValidationError as error:
        first = error.errors(include_input=False, include_url=False, include_context=False)[0]
        place = ".".join(str(part) for part in first["loc"])
        raise InputError(
            f"{file} is a damaged {words}: {error.error_count()} value(s) don't fit the schema, the "
            f"first is {place!r} ({first['msg']}).",
            f"Write it again, or compare it with docs/{str(name).split('/')[1]}.schema.json.",
        ) from None


def _refuse(token: str) -> float:
    raise ValueError(token)


def _finite(text: str) -> float:
    value = float(text)
    return value if math.isfinite(value) else _refuse(text)


def packaged(name: str) -> Path | None:
    """A folder of data that comes with the package: inside of it, else beside the source tree.

    Args:
        name: ``suites`` or ``baselines``.

    Returns:
        The folder, or None where neither is there.
    """
    package = Path(__file__).resolve().parent
    folders = (package / "_data" / name, package.parent / name)
    return next((folder for folder in folders if folder.is_dir()), None)


def check_target(path: Path, force: bool, option: str = "--force") -> None:
    """Refuse a place that can't be written, before anything is computed for it.

    Args:
        path: Where a file is to be written.
        force: Whether an existing file may be replaced.
        option: By which it may.

    Raises:
        InputError: The path is a folder or exists already, or its folder is missing or read-only.
    """
    # os.path answers "no" where pathlib raises, and the write itself then says what is wrong.
    if os.path.isdir(path):
        raise InputError(f"{path} is a folder.", "Name a file in it to write to.")
    exists = os.path.exists(path)
    if exists and not os.path.isfile(path):
        raise InputError(f"{path} is not an ordinary file.", "Name an ordinary file to write to.")
    if exists and not force:
        raise InputError(
            f"{path} exists already.", f"Choose another name, or pass {option} to overwrite it."
        )
    folder = os.path.dirname(os.path.realpath(path))
    if not os.path.isdir(folder):
        raise InputError(f"There is no folder {folder}.", "Make it, or choose another name.")
    if not os.access(folder, os.W_OK):
        raise InputError(f"The folder {folder} can't be written to.", "Choose another one.")


def write_whole(path: Path, content: bytes) -> Path:
    """Write a file that appears whole or not at all.

    Args:
        path: Where; ``check_target`` says beforehand whether it will do.
        content: All of it.

    Returns:
        The path.

    Raises:
        InputError: The place can't be written.
    """
    target = Path(os.path.realpath(path))
    temporary = target.with_name(f".{uuid.uuid4().hex}.tmp")
    try:
        with open(temporary, "xb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, target)
    except OSError as error:
        raise InputError(
            f"{path} can't be written: {error.strerror}.",
            "Choose a folder that exists and that you may write to.",
        ) from None
    finally:
        with contextlib.suppress(OSError):
            os.unlink(temporary)
    return path
