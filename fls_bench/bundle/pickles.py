"""Pickles, taken apart opcode by opcode: what they name is never imported, called or allocated.

``read_pickle`` understands the small language in which ``torch.save`` writes dicts of plain
tensors, and nothing else. ``torch.load(weights_only=True)`` is not used: its unpickler calls more
functions than a model file needs (``bytearray`` among them), hashes whatever a file uses as a key,
and allocates what a file announces before anyone can compare that with the file's size.
"""

from __future__ import annotations

import io
import math
import pickletools
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, TypeGuard

import torch

MAX_PICKLE_BYTES = 16 * 2**20
MAX_DIMENSIONS = 16
LEGACY_TORCH_MAGIC = 0x1950A86A20F9469CFC6C

STORAGE_DTYPES = {
    "torch.HalfStorage": torch.float16,
    "torch.BFloat16Storage": torch.bfloat16,
    "torch.FloatStorage": torch.float32,
    "torch.DoubleStorage": torch.float64,
    "torch.CharStorage": torch.int8,
    "torch.ShortStorage": torch.int16,
    "torch.IntStorage": torch.int32,
    "torch.LongStorage": torch.int64,
    "torch.ByteStorage": torch.uint8,
    "torch.BoolStorage": torch.bool,
}
ORDERED_DICT = "collections.OrderedDict"
REBUILD_TENSOR = "torch._utils._rebuild_tensor_v2"
REBUILD_PARAMETER = "torch._utils._rebuild_parameter"
PLAIN_GLOBALS = frozenset({ORDERED_DICT, REBUILD_TENSOR, REBUILD_PARAMETER, *STORAGE_DTYPES})


class NotPlainError(Exception):
    """A pickle holds something else than plain values and plain tensors; the text says what."""


@dataclass(frozen=True)
class StoredTensor:
    """A tensor as a pickle describes it; its numbers lie in the archive's record ``key``."""

    dtype: torch.dtype
    key: str
    storage_numel: int
    offset: int
    shape: tuple[int, ...]
    stride: tuple[int, ...]

    @property
    def num_bytes(self) -> int:
        """Size of the tensor itself, in bytes, however few bytes its storage has."""
        return math.prod(self.shape) * self.dtype.itemsize

    @property
    def last_element(self) -> int:
        """Index in the storage of the last element; the tensor must not be empty."""
        steps = zip(self.shape, self.stride, strict=True)
        return self.offset + sum((size - 1) * stride for size, stride in steps)


# --- what does it name? -----------------------------------------------------------------------


@dataclass(frozen=True)
class PickleListing:
    """What a walk over the opcodes of one or more pickles in a row found."""

    globals: tuple[str, ...]
    """Everything that unpickling would import, as ``module.name``, in order, each once."""
    num_pickles: int
    """Pickles that were complete, up to their STOP."""
    legacy_torch: bool
    """Whether it starts as ``torch.save`` wrote before its zip format."""


def _opcodes(data: bytes) -> Iterator[tuple[Any, Any, int]]:
    """Opcodes with their arguments and ends; malformed bytes raise NotPlainError."""
    stream = io.BytesIO(data)
    try:
        # Escapes inside a file's strings are no warning of ours.
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            for opcode, argument, _ in pickletools.genops(stream):
                yield opcode, argument, stream.tell()
    except (ValueError, IndexError, OverflowError, UnicodeError, EOFError) as error:
        raise NotPlainError(f"is malformed ({str(error)[:80]})") from None


_STRINGS = frozenset(
    {"STRING", "BINSTRING", "SHORT_BINSTRING", "UNICODE", "BINUNICODE", "BINUNICODE8"}
    | {"SHORT_BINUNICODE"}
)
_UNKNOWN = object()


def _walk(data: bytes, found: dict[str, None]) -> int | None:
    """Add what one pickle names to ``found``; return its end, or None when it is malformed.

    The stack is simulated with strings as the only known values: enough to know the two names
    that STACK_GLOBAL takes, also through the memo.
    """
    stack: list[Any] = []
    memo: dict[int, Any] = {}
    try:
        for opcode, argument, end in _opcodes(data):
            name = opcode.name
            needed = opcode.stack_before
            if name == "STOP":
                return end
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
        return None
    return None


def list_pickle(data: bytes) -> PickleListing:
    """List what unpickling would import, by reading opcodes only.

    Args:
        data: One pickle, or several in a row; more than ``MAX_PICKLE_BYTES`` is not looked at.

    Returns:
        The names, as far as the bytes are well-formed.
    """
    data = data[:MAX_PICKLE_BYTES]
    found: dict[str, None] = {}
    start, num_pickles = 0, 0
    while num_pickles < 8 and data[start:]:
        end = _walk(data[start:], found)
        if end is None:
            break
        start, num_pickles = start + end, num_pickles + 1
    first = LEGACY_TORCH_MAGIC.to_bytes(10, "little")
    return PickleListing(tuple(found), num_pickles, legacy_torch=first in data[:20])


# --- plain values and tensors -----------------------------------------------------------------


@dataclass(frozen=True)
class _Global:
    name: str


@dataclass(frozen=True)
class _Storage:
    dtype: torch.dtype
    key: str
    numel: int


def _is_count(value: object) -> TypeGuard[int]:
    return type(value) is int and 0 <= value < 2**63


def _global(module: object, name: object) -> _Global:
    # Anything but two strings may be nested so that showing it takes 2^depth steps.
    if isinstance(module, str) and isinstance(name, str):
        if f"{module}.{name}" in PLAIN_GLOBALS:
            return _Global(f"{module}.{name}")
        raise NotPlainError(f"names {f'{module}.{name}'[:80]!r}")
    raise NotPlainError("computes the name of a function")


def _storage(persistent_id: object) -> _Storage:
    match persistent_id:
        case ("storage", _Global(name), str(key), str(), numel) if _is_count(numel):
            if name in STORAGE_DTYPES:
                return _Storage(STORAGE_DTYPES[name], key, numel)
    raise NotPlainError("refers to numbers in a way that torch.save does not")


def _reduce(function: object, arguments: object) -> object:
    """What torch's own functions would make of these arguments, as a description."""
    match function, arguments:
        case _Global(name), () if name == ORDERED_DICT:
            return {}
        case _Global(name), (StoredTensor() as tensor, _, _) if name == REBUILD_PARAMETER:
            return tensor
        # A seventh argument would carry lazy negation or conjugation: other numbers than stored.
        case (
            _Global(name),
            (_Storage() as storage, offset, tuple(shape), tuple(stride), bool(), {}),
        ) if name == REBUILD_TENSOR:
            counts = all(map(_is_count, (*shape, *stride)))
            if len(shape) == len(stride) <= MAX_DIMENSIONS and counts and _is_count(offset):
                return StoredTensor(
                    storage.dtype, storage.key, storage.numel, offset, shape, stride
                )
    raise NotPlainError("calls a function with arguments that no plain tensor has")


def _key(value: object) -> str | int:
    # Hashing a nested tuple can take 2^depth steps, so only what hashes at once may be a key.
    if type(value) is str or type(value) is int:
        return value
    raise NotPlainError("has a dictionary whose keys are not names")


def read_pickle(data: bytes) -> Any:
    """Read plain values and tensor descriptions from a pickle, without unpickling it.

    Understood are None, booleans, numbers, strings, lists, tuples, dicts with string or integer
    keys, ``OrderedDict`` and plain strided tensors, as ``torch.save`` writes them.

    Args:
        data: The pickle, at most ``MAX_PICKLE_BYTES``.

    Returns:
        The value, with a ``StoredTensor`` in the place of each tensor.

    Raises:
        NotPlainError: Anything else, at the first opcode that says so.
    """
    if len(data) > MAX_PICKLE_BYTES:
        raise NotPlainError(f"is larger than {MAX_PICKLE_BYTES:,} bytes")
    stack: list[Any] = []
    outer: list[list[Any]] = []  # what lies below each mark
    memo: dict[int, Any] = {}
    try:
        for opcode, argument, _ in _opcodes(data):
            match opcode.name:
                case "PROTO" | "FRAME":
                    pass
                case "NONE":
                    stack.append(None)
                case "NEWTRUE":
                    stack.append(True)
                case "NEWFALSE":
                    stack.append(False)
                case "BININT" | "BININT1" | "BININT2" | "BINFLOAT":
                    stack.append(argument)
                case "LONG1" if -(2**63) <= argument < 2**63:
                    stack.append(argument)
                case "BINUNICODE" | "SHORT_BINUNICODE":
                    stack.append(argument)
                case "EMPTY_DICT":
                    stack.append({})
                case "EMPTY_LIST":
                    stack.append([])
                case "EMPTY_TUPLE":
                    stack.append(())
                case "TUPLE1" | "TUPLE2" | "TUPLE3":
                    items = [stack.pop() for _ in range(int(opcode.name[-1]))]
                    stack.append(tuple(reversed(items)))
                case "MARK":
                    outer.append(stack)
                    stack = []
                case "TUPLE":
                    items, stack = stack, outer.pop()
                    stack.append(tuple(items))
                case "APPEND":
                    item = stack.pop()
                    stack[-1].append(item)
                case "APPENDS":
                    items, stack = stack, outer.pop()
                    stack[-1].extend(items)
                case "SETITEM":
                    key, value = stack.pop(-2), stack.pop()
                    stack[-1][_key(key)] = value
                case "SETITEMS":
                    items, stack = stack, outer.pop()
                    for key, value in zip(items[::2], items[1::2], strict=True):
                        stack[-1][_key(key)] = value
                case "BINPUT" | "LONG_BINPUT":
                    memo[argument] = stack[-1]
                case "MEMOIZE":
                    memo[len(memo)] = stack[-1]
                case "BINGET" | "LONG_BINGET":
                    stack.append(memo[argument])
                case "GLOBAL":
                    stack.append(_global(*argument.split(" ", 1)))
                case "STACK_GLOBAL":
                    name, module = stack.pop(), stack.pop()
                    stack.append(_global(module, name))
                case "BINPERSID":
                    stack.append(_storage(stack.pop()))
                case "REDUCE":
                    arguments, function = stack.pop(), stack.pop()
                    stack.append(_reduce(function, arguments))
                case "BUILD" if isinstance(stack[-2], dict):
                    stack.pop()  # the `_metadata` of a state dict, which no tensor depends on
                case "STOP":
                    return stack.pop()
                case name:
                    raise NotPlainError(f"uses the opcode {name}")
    except (IndexError, KeyError, AttributeError, TypeError, ValueError):
        raise NotPlainError("is malformed") from None
    raise NotPlainError("is malformed")
