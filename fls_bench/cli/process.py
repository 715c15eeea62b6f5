"""The process around a command: its exit code, its streams, and every error as a paragraph."""

from __future__ import annotations

import gc
import os
import sys
import threading
import time
import traceback
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from multiprocessing.dummy import DummyProcess
from typing import Any, TextIO

import typer

from fls_bench.cli.app import app
from fls_bench.errors import FlsBenchError

INTERRUPTED, READER_GONE = 130, 141
COMPLETE = "_FLS_BENCH_COMPLETE"
"""Set by the shell that asks for completions."""


def main(arguments: Sequence[str] | None = None) -> None:
    """Entry point of the ``fls-bench`` command.

    Args:
        arguments: In place of those of the process.
    """
    # Most of what a short command creates are the libraries that it imports, which stay: looking through
    # them again and again takes time.
    before = gc.get_threshold()
    gc.set_threshold(50_000, *before[1:])
    # Threads of a small product that wait for each other by spinning cost a busy machine many times
    # the work; torch reads this when it is loaded.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    try:
        code = _exit_code(sys.argv[1:] if arguments is None else arguments)
    finally:
        gc.set_threshold(*before)
    if code == INTERRUPTED:
        # Threads that train see it after their epoch; torch aborts a process that ends under them.
        deadline = time.monotonic() + 2
        for thread in threading.enumerate():
            if isinstance(thread, DummyProcess):
                thread.join(timeout=max(0, deadline - time.monotonic()))
    sys.exit(code)


def _exit_code(arguments: Sequence[str]) -> int:
    """Run a command. However it ends: at most a paragraph on stderr, never a traceback."""
    from fls_bench import console

    try:
        # Not typer's own main, which would answer errors in other words and a lost pipe with 1.
        command = typer.main.get_command(app)
        if COMPLETE in os.environ or _about_completion(arguments):
            return _completion(command, arguments)
        with command.make_context("fls-bench", list(arguments)) as context:
            command.invoke(context)
        sys.stdout.flush()
    except typer.Exit as end:
        return end.exit_code
    except FlsBenchError as error:
        _fail(error.problem, error.remedy)
        return error.exit_code
    except KeyboardInterrupt:
        console.fail(
            "Interrupted.", "The same command goes on from the finished runs that it has stored."
        )
        return INTERRUPTED
    except BrokenPipeError:
        silence(sys.stdout, sys.stderr)
        return READER_GONE
    except (Exception, SystemExit) as error:
        usage = _usage_problem(error)
        if usage is not None:
            _fail(*usage)
            return 2
        if os.environ.get("FLS_BENCH_DEBUG"):
            traceback.print_exc()
        problem = " ".join(f"{type(error).__name__}: {error}".split()).rstrip(".")
        _fail(
            f"Internal error: {problem}.",
            "Please report it; FLS_BENCH_DEBUG=1 in the environment shows where it happened.",
        )
        return 3
    return 0


def _about_completion(arguments: Sequence[str]) -> bool:
    return len(arguments) > 0 and arguments[0] in ("--install-completion", "--show-completion")


def _completion(command: Any, arguments: Sequence[str]) -> int:
    """Let typer answer the shell; it ends the process itself, with 1 where it can't."""
    try:
        command.main(list(arguments), prog_name="fls-bench", standalone_mode=False)
    except SystemExit as end:
        sys.stdout.flush()
        return 2 if end.code else 0
    return 0


def _fail(problem: str, remedy: str) -> None:
    """Say it on stderr, and under GitHub Actions as an annotation."""
    from fls_bench import console

    console.fail(problem, remedy)
    if os.environ.get("GITHUB_ACTIONS") == "true":
        from fls_bench.report import github

        print(github.command("error", "fls-bench", f"{problem} {remedy}"), file=sys.stderr)


def _usage_problem(error: BaseException) -> tuple[str, str] | None:
    """What the parser says about a command line; its error classes have no public names."""
    if not hasattr(error, "format_message"):
        return None
    context = getattr(error, "ctx", None)
    command = "fls-bench" if context is None else context.command_path
    problem = " ".join(str(error.format_message()).split()).rstrip(".")
    return problem if problem.endswith("?") else f"{problem}.", f"See {command} --help."


def silence(*streams: TextIO) -> None:
    """Nobody reads these any more: let what is still to come vanish."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    for stream in streams:
        os.dup2(nowhere, stream.fileno())
    os.close(nowhere)


@contextmanager
def stdout_kept() -> Iterator[None]:
    """What the user's code prints goes to stderr, in worker processes too: stdout is the report's."""
    sys.stdout.flush()
    kept = os.dup(1)
    os.dup2(2, 1)
    try:
        yield
    finally:
        sys.stdout.flush()
        os.dup2(kept, 1)
        os.close(kept)
