"""The append-only store of runs: one JSON-lines file that survives crashes and rivals.

Every line is a whole record with its schema, so a file needs no header and no closing: it can be
cut anywhere and loses at most its last line. Writers take turns under ``flock`` and append whole
lines, so processes may share one file.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import ConfigDict, Field, ValidationError

from fls_bench.errors import InputError
from fls_bench.schema import Frozen, RunRecord

RUNS_SCHEMA = "fls-bench/runs/1"
BATCHES_SCHEMA = "fls-bench/batches/1"

_LINE_START = b'{"schema":"fls-bench/runs/'
_ELSEWHERE = "Name another folder in the environment variable FLS_BENCH_STORE."


class _Line(Frozen):
    model_config = ConfigDict(populate_by_name=True, serialize_by_alias=True)
    schema_: Annotated[Literal["fls-bench/runs/1"], Field(alias="schema")] = RUNS_SCHEMA  # type: ignore[assignment]
    record: RunRecord


class _Begun(Frozen):
    model_config = ConfigDict(populate_by_name=True, serialize_by_alias=True)
    schema_: Annotated[Literal["fls-bench/batches/1"], Field(alias="schema")] = BATCHES_SCHEMA  # type: ignore[assignment]
    batches: list[list[str]]


class RunStore:
    """Records of runs in one file, keyed by the digest of their ``RunConfig``.

    Args:
        path: The file; it need not exist yet, but its folder must.

    Attributes:
        path: The file.
        num_damaged: How many lines the last ``load`` skipped because a crash or a full disk had
            left them incomplete. Their runs are not in the result and can simply be repeated.

    Raises:
        InputError: The path is a directory or another thing that is not a file, or its folder is
            missing or can't be written to.
    """

    def __init__(self, path: Path | str) -> None:
        self.path = Path(path)
        self.num_damaged = 0
        self._checked = False
        with _told(self.path):
            if self.path.exists() and not self.path.is_file():
                raise InputError(f"The store of runs {self.path} is not a file.", _ELSEWHERE)
            if not self.path.parent.is_dir():
                raise InputError(
                    f"The folder {self.path.parent} for the store of runs does not exist.",
                    "Create the folder, or name another one in FLS_BENCH_STORE.",
                )
            if not os.access(self.path if self.path.exists() else self.path.parent, os.W_OK):
                raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))

    def load(self) -> dict[str, RunRecord]:
        """All records by the digest of their configuration; of equal digests the first one wins.

        A file that does not exist yet is an empty store. Sets ``num_damaged``.

        Raises:
            InputError: The file can't be read, or it is not a store of this schema.
        """
        with _told(self.path):
            data = _read_whole(self.path)
        records: dict[str, RunRecord] = {}
        num_damaged = 0
        ours = not data
        # A crash of the machine can leave NUL bytes where the file had grown but held no data yet.
        for line in filter(None, (part.strip(b"\0") for part in data.split(b"\n"))):
            ours = ours or line.startswith(_LINE_START) or _LINE_START.startswith(line)
            try:
                record = _Line.model_validate_json(line).record
            except ValidationError:
                self._refuse_other_schema(line)
                num_damaged += 1
            else:
                records.setdefault(record.config.digest, record)
        if num_damaged and not ours:
            raise InputError(
                f"{self.path} is not a store of runs: not one of its lines is a record.", _ELSEWHERE
            )
        self.num_damaged = num_damaged
        self._checked = True
        return records

    def append(self, records: Sequence[RunRecord]) -> None:
        """Add records at the end of the file, all of them or none, and never inside a damaged line.

        Raises:
            InputError: The file can't be written, or it is not a store of this schema; it is then
                as it was before.
        """
        if not records:
            return
        if not self._checked:
            self.load()
        lines = "".join(_Line(record=record).model_dump_json() + "\n" for record in records)
        _append(self.path, lines)

    @property
    def _engine_path(self) -> Path:
        return self.path.with_suffix(".engine.json")

    def load_engine(self) -> dict[str, Any] | None:
        """How the runs of this store were trained, as ``keep_engine`` got it, or None."""
        try:
            value = json.loads(self._engine_path.read_text(encoding="utf-8"))
        except (OSError, ValueError, RecursionError):
            return None
        return value if isinstance(value, dict) else None

    def keep_engine(self, engine: Mapping[str, Any]) -> None:
        """Remember how runs are trained: a choice by measurement may else differ the next time.

        Args:
            engine: Plain values.

        Raises:
            InputError: The file can't be written.
        """
        with _told(self._engine_path):
            partial = self._engine_path.with_suffix(f".{os.getpid()}.part")
            partial.write_text(json.dumps(dict(engine)), encoding="utf-8")
            partial.replace(self._engine_path)

    @property
    def _batches_path(self) -> Path:
        return self.path.with_suffix(".batches")

    def load_batches(self) -> list[list[str]]:
        """Digests of the runs of every batch that was begun, oldest first; damaged are left out."""
        with _told(self._batches_path):
            data = _read_whole(self._batches_path)
        found: list[list[str]] = []
        for line in data.split(b"\n"):
            try:
                found += _Begun.model_validate_json(line.strip(b"\0")).batches
            except ValidationError:
                continue  # its runs are cut into batches anew
        return found

    def keep_batches(self, batches: Sequence[Sequence[str]]) -> None:
        """Remember which runs are about to be trained together, all of these batches or none.

        The last bits of a run may depend on its batch: an interrupted one is trained again as it was.

        Args:
            batches: Digests of the runs of each.

        Raises:
            InputError: The file can't be written.
        """
        if batches:
            line = _Begun(batches=[list(batch) for batch in batches]).model_dump_json() + "\n"
            _append(self._batches_path, line)

    def _refuse_other_schema(self, line: bytes) -> None:
        try:
            value = json.loads(line)
        except (ValueError, RecursionError):
            return
        found = value.get("schema") if isinstance(value, dict) else None
        if isinstance(value, dict) and found != RUNS_SCHEMA:
            raise InputError(
                f"{self.path} holds lines of schema {found!r}, not {RUNS_SCHEMA!r}.",
                f"Move the file away if it is an old store. {_ELSEWHERE}",
            )


def default_path(setup_digest: str) -> Path:
    """The store of one training setup, in a folder that is created where it does not exist.

    The folder is ``$FLS_BENCH_STORE``, else ``$XDG_CACHE_HOME/fls-bench/runs``, else
    ``~/.cache/fls-bench/runs``; the file is named by the first 16 digits of the digest.

    Args:
        setup_digest: Hexadecimal digest of the training setup.

    Raises:
        InputError: The folder can't be created.
    """
    chosen, cache = os.environ.get("FLS_BENCH_STORE"), os.environ.get("XDG_CACHE_HOME", "")
    try:
        if chosen:
            folder = Path(chosen).expanduser()
        else:
            # The XDG specification has relative paths ignored.
            home = Path(cache) if os.path.isabs(cache) else Path("~/.cache").expanduser()
            folder = home / "fls-bench" / "runs"
    except RuntimeError as error:
        raise InputError("No home folder was found for the store of runs.", _ELSEWHERE) from error
    with _told(folder):
        folder.mkdir(parents=True, exist_ok=True)
    return folder / f"{setup_digest[:16]}.jsonl"


def _read_whole(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            fcntl.flock(file, fcntl.LOCK_SH)
            return file.read()
    except FileNotFoundError:
        return b""


def _append(path: Path, lines: str) -> None:
    """Append whole lines, all or none; others that append wait for their turn."""
    # No fsync: what a power failure takes is at most a tail, which heals and can be run again.
    with _told(path):
        flags = os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC
        fd = os.open(path, flags, 0o666)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX)
            _append_whole(fd, lines.encode())
        finally:
            os.close(fd)


def _append_whole(fd: int, lines: bytes) -> None:
    size = os.fstat(fd).st_size
    if size and os.pread(fd, 1, size - 1) != b"\n":
        lines = b"\n" + lines
    written = 0
    try:
        while written < len(lines):
            written += os.write(fd, lines[written:])
    except BaseException:
        with contextlib.suppress(OSError):
            os.ftruncate(fd, size)
        raise


@contextlib.contextmanager
def _told(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise InputError(
            f"The store of runs {path} can't be used: {error.strerror}.", _ELSEWHERE
        ) from error
