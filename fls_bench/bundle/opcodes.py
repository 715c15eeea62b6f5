"""What a pickle names, by walking over its opcodes: nothing is imported, called or allocated."""

from __future__ import annotations

import io
import pickletools
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

MAX_PICKLE_BYTES = 16 * 2**20
MAX_OPCODES = 500_000
"""Of all pickles of a file. A tensor takes some 40 of them: two seconds of reading at most."""


class NotPlainError(Exception):
    """A pickle holds something else than plain values and plain tensors; the text says what."""


@dataclass(frozen=True)
class PickleListing:
    """What a walk over the opcodes of one or more pickles in a row found."""

    globals: tuple[str, ...]
    """Everything that unpickling would import, as ``module.name``, in order, each once."""
    num_pickles: int
    """Pickles that were complete, up to their STOP."""
    num_steps: int
    """Opcodes that were walked over."""


def opcodes(data: bytes, max_steps: int = MAX_OPCODES) -> Iterator[tuple[Any, Any, int]]:
    """Opcodes of a pickle, with their arguments and ends.

    Args:
        data: Starts with the pickle; what follows its STOP is not looked at.
        max_steps: How many of them may be read.

    Yields:
        (opcode as in ``pickletools``, its argument or None, index of the byte behind it).

    Raises:
        NotPlainError: The bytes are malformed, or more than ``max_steps``.
    """
    stream = io.BytesIO(data)
    try:
        # Escapes inside a file's strings are no warning of ours.
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            for count, (opcode, argument, _) in enumerate(pickletools.genops(stream)):
                if count >= max_steps:
                    raise NotPlainError(
                        f"has more than {MAX_OPCODES:,} steps (a long list beside the weights?)"
                    )
                yield opcode, argument, stream.tell()
    except (ValueError, IndexError, OverflowError, UnicodeError, EOFError) as error:
        raise NotPlainError(f"is malformed ({str(error)[:80]})") from None


_STRINGS = frozenset(
    {"STRING", "BINSTRING", "SHORT_BINSTRING", "UNICODE", "BINUNICODE", "BINUNICODE8"}
    | {"SHORT_BINUNICODE"}
)
_UNKNOWN = object()


def _walk(data: bytes, found: dict[str, None], max_steps: int) -> tuple[int | None, int]:
    """Add what one pickle names to ``found``; return its end (None: malformed) and its steps.

    The stack is simulated with strings as the only known values: enough to know the two names
    that STACK_GLOBAL takes, also through the memo.
    """
    stack: list[Any] = []
    memo: dict[int, Any] = {}
    steps = 0
    try:
        for steps, (opcode, argument, end) in enumerate(opcodes(data, max_steps), 1):
            name = opcode.name
            needed = opcode.stack_before
            if name == "STOP":
                return end, steps
            if name in ("PUT", "BINPUT", "LONG_BINPUT"):
                memo[argument] = stack[-1]
                continue
            if name == "MEMOIZE":
                memo[len(memo)] = stack[-1]
                continue
            top = stack[-2:]
            if pickletools.markobject in needed or (
                name == "POP" and stack[-1] is pickletools.markobject
            ):
                while stack.pop() is not pickletools.markobject:
                    pass
                # Whatever lies below the mark is consumed as well (the dict of SETITEMS, say).
                needed = needed[: needed.index(pickletools.markobject)] if name != "POP" else []
            for _ in needed:
                stack.pop()
            if name in ("GLOBAL", "INST"):
                found[argument.replace(" ", ".", 1)] = None
            elif name == "STACK_GLOBAL":
                known = all(isinstance(part, str) for part in top)
                found[".".join(top) if known else "<a name computed while reading>"] = None
            elif name.startswith("EXT"):
                found[f"<copyreg extension {argument}>"] = None
            if name in _STRINGS:
                stack.append(argument)
            elif name in ("GET", "BINGET", "LONG_BINGET"):
                stack.append(memo.get(argument, _UNKNOWN))
            elif name == "DUP":
                stack += [top[-1], top[-1]]
            elif name == "MARK":
                stack.append(pickletools.markobject)
            else:
                stack += [_UNKNOWN] * len(opcode.stack_after)
    except (NotPlainError, IndexError):
        pass
    return None, steps


def list_pickle(data: bytes, max_steps: int = MAX_OPCODES) -> PickleListing:
    """List what unpickling would import, by reading opcodes only.

    Args:
        data: One pickle, or several in a row; more than ``MAX_PICKLE_BYTES`` is not looked at.
        max_steps: How many opcodes are looked at, of all pickles together.

    Returns:
        The names, as far as the bytes are well-formed.
    """
    data = data[:MAX_PICKLE_BYTES]
    found: dict[str, None] = {}
    start, num_pickles, num_steps = 0, 0, 0
    while num_pickles < 8 and start < len(data) and num_steps < max_steps:
        end, steps = _walk(data[start:], found, max_steps - num_steps)
        num_steps += steps
        if end is None:
            break
        start, num_pickles = start + end, num_pickles + 1
    return PickleListing(tuple(found), num_pickles, num_steps)
