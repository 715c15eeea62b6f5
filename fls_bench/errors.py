"""The few kinds of error that reach a person; every message ends with what to do next."""

from __future__ import annotations


class FlsBenchError(Exception):
    """Base of all errors that fls-bench raises on purpose.

    Args:
        problem: One sentence that says what is wrong.
        remedy: One sentence that says what to do next.
    """

    exit_code = 3

    def __init__(self, problem: str, remedy: str) -> None:
        self.problem = problem
        self.remedy = remedy
        super().__init__(f"{problem} {remedy}")

    def __reduce__(self) -> tuple[type[FlsBenchError], tuple[str, str]]:
        """It may come from another process."""
        return type(self), (self.problem, self.remedy)


class InputError(FlsBenchError):
    """The command line, a file or a value that the user gave can't be used."""

    exit_code = 2


class AbsentDataError(InputError):
    """A data set that fls-bench knows by name is not on this machine."""


class UnsafeFileError(InputError):
    """A model file that would have to execute code to be read; nothing in it was executed."""


class RunFailedError(FlsBenchError):
    """A training run or a measurement failed, although the input was valid."""

    exit_code = 3


class NothingToCompareError(FlsBenchError):
    """A baseline that was asked for is missing, or is one of something else."""

    exit_code = 5
