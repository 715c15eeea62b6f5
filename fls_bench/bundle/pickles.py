"""Plain values and tensor descriptions from a pickle: what it names is never imported or called.

``read_pickle`` understands the small language in which ``torch.save`` writes dicts of plain
tensors, and nothing else. ``torch.load(weights_only=True)`` is not used: its unpickler calls more
functions than a model file needs (``bytearray`` among them), hashes whatever a file uses as a key,
and allocates what a file announces before anyone can compare that with the file's size.

A training checkpoint holds settings beside its weights, as objects of the classes in
``PASSED_OVER``. Such an object is read past: an empty mark stands for it, no class is looked up, no
function called, and what it was made from is thrown away.
"""

from __future__ import annotations

import math
from collections.abc import Collection
from dataclasses import dataclass
from typing import Any, TypeGuard

import torch

from fls_bench.bundle.opcodes import MAX_OPCODES, MAX_PICKLE_BYTES, NotPlainError, opcodes

MAX_DIMENSIONS = 16

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
# torch.cuda.FloatStorage is how files of torch before 1.0 call what lay on a GPU.
STORAGE_DTYPES |= {
    name.replace("torch.", "torch.cuda.", 1): kind for name, kind in STORAGE_DTYPES.items()
}
ORDERED_DICT = "collections.OrderedDict"
REBUILD_TENSOR = "torch._utils._rebuild_tensor_v2"
REBUILD_PARAMETER = "torch._utils._rebuild_parameter"
PLAIN_GLOBALS = frozenset({ORDERED_DICT, REBUILD_TENSOR, REBUILD_PARAMETER, *STORAGE_DTYPES})

_BUILTINS = ("bool", "bytearray", "bytes", "complex", "dict", "float", "frozenset", "int", "list",
             "long", "object", "range", "set", "slice", "str", "tuple", "unicode")  # fmt: skip
_OPTIMIZERS = ("adadelta.Adadelta", "adagrad.Adagrad", "adam.Adam", "adamax.Adamax",
               "adamw.AdamW", "asgd.ASGD", "lbfgs.LBFGS", "nadam.NAdam", "radam.RAdam",
               "rmsprop.RMSprop", "rprop.Rprop", "sgd.SGD", "sparse_adam.SparseAdam")  # fmt: skip
_SCHEDULERS = ("ChainedScheduler", "ConstantLR", "CosineAnnealingLR", "CosineAnnealingWarmRestarts",
               "CyclicLR", "ExponentialLR", "LambdaLR", "LinearLR", "MultiStepLR", "OneCycleLR",
               "PolynomialLR", "ReduceLROnPlateau", "SequentialLR", "StepLR")  # fmt: skip
_PATHS = ("Path", "PosixPath", "PurePath", "PurePosixPath", "PureWindowsPath", "WindowsPath")
PASSED_OVER = frozenset(
    {
        *(f"{module}.{name}" for module in ("builtins", "__builtin__") for name in _BUILTINS),
        *(f"{module}.{name}" for module in ("pathlib", "pathlib._local") for name in _PATHS),
        *(f"collections.{name}" for name in ("Counter", "defaultdict", "deque")),
        *(f"datetime.{name}" for name in ("date", "datetime", "timedelta", "timezone")),
        "argparse.Namespace",
        "types.SimpleNamespace",
        "copyreg._reconstructor",
        "copy_reg._reconstructor",
        "_codecs.encode",
        "typing.Any",
        # A method of a scheduler, as older Lightning keeps it with the scheduler.
        "builtins.getattr",
        "__builtin__.getattr",
        *(f"torch.optim.{name}" for name in _OPTIMIZERS),
        *(f"torch.optim.lr_scheduler.{name}" for name in _SCHEDULERS),
        # Numbers and states of generators as numpy stores them, before and since numpy 2.
        "numpy.dtype",
        "numpy.ndarray",
        *(
            f"numpy.{core}.multiarray.{name}"
            for core in ("core", "_core")
            for name in ("_reconstruct", "scalar")
        ),
        # What optimizers, schedulers and settings of torch hold.
        "torch.Size",
        "torch.device",
        *(f"torch.{str(kind).partition('.')[2]}" for kind in STORAGE_DTYPES.values()),
        # Lightning's settings, by the name of each of its packages, and its enumerations.
        "lightning.fabric.utilities.data.AttributeDict",
        "lightning_fabric.utilities.data.AttributeDict",
        "pytorch_lightning.utilities.parsing.AttributeDict",
        "pytorch_lightning.callbacks.early_stopping.EarlyStopping",
        "pytorch_lightning.callbacks.model_checkpoint.ModelCheckpoint",
        # Hydra's settings.
        "omegaconf.dictconfig.DictConfig",
        "omegaconf.listconfig.ListConfig",
        "omegaconf.base.ContainerMetadata",
        "omegaconf.base.Metadata",
        *(
            f"omegaconf.nodes.{name}Node"
            for name in ("Any", "Boolean", "Bytes", "Enum", "Float", "Integer", "Path", "String")
        ),
    }
)
"""Classes and functions of settings: a checkpoint may name them, and none is looked up or called."""


@dataclass(frozen=True)
class StoredTensor:
    """A tensor as a file describes it; its numbers lie in the file's record ``key``."""

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


@dataclass(frozen=True, eq=False)
class Mark:
    """Stands where a file has an object that was read past."""

    name: str


@dataclass(frozen=True)
class PlainPickle:
    """What a pickle holds."""

    value: Any
    """With a ``StoredTensor`` in the place of each tensor."""
    end: int
    """Index of the byte behind the pickle."""
    passed_over: tuple[str, ...]
    """What it names beside plain tensors, in order, each once."""
    storages: dict[str, tuple[torch.dtype, int]]
    """Key of each storage that it refers to -> number type and how many numbers."""
    num_steps: int
    """Opcodes that were read."""


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


def _global(
    module: object, name: object, allowed: Collection[str], passed: dict[str, None]
) -> _Global | Mark:
    # Anything but two strings may be nested so that showing it takes 2^depth steps.
    if isinstance(module, str) and isinstance(name, str):
        full = f"{module}.{name}"
        if full in PLAIN_GLOBALS:
            return _Global(full)
        if full in allowed:
            passed[full] = None
            return Mark(full)
        raise NotPlainError(f"names {full[:80]!r}")
    raise NotPlainError("computes the name of a function")


def _storage(persistent_id: object) -> _Storage:
    match persistent_id:
        # torch before 1.6 wrote a sixth part, None for a storage that is no view of another.
        case ("storage", _Global(name), str(key), str(), numel) | (
            "storage",
            _Global(name),
            str(key),
            str(),
            numel,
            None,
        ) if _is_count(numel):
            if name in STORAGE_DTYPES:
                return _Storage(STORAGE_DTYPES[name], key, numel)
    raise NotPlainError("refers to numbers in a way that torch.save does not")


def _reduce(function: object, arguments: object) -> object:
    """What torch's own functions would make of these arguments, as a description."""
    match function, arguments:
        case Mark(), tuple():
            return function
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


def _key(value: object, lenient: bool) -> Any:
    # Hashing a nested tuple can take 2^depth steps, so only what hashes at once may be a key.
    if type(value) is str or type(value) is int:
        return value
    if lenient:
        return Mark("key")
    raise NotPlainError("has a dictionary whose keys are not names")


def _extend(container: object, items: list[Any]) -> None:
    if isinstance(container, list):
        container.extend(items)
    elif not isinstance(container, Mark):
        raise NotPlainError("is malformed")


def _set(container: object, items: list[Any], lenient: bool) -> None:
    keys = [_key(key, lenient) for key in items[::2]]
    if isinstance(container, dict):
        container.update(zip(keys, items[1::2], strict=True))
    elif not isinstance(container, Mark):
        raise NotPlainError("is malformed")


def read_pickle(
    data: bytes, allowed: Collection[str] = frozenset(), max_steps: int = MAX_OPCODES
) -> PlainPickle:
    """Read plain values and tensor descriptions from a pickle, without unpickling it.

    Understood are None, booleans, numbers, strings, lists, tuples, dicts with string or integer
    keys, ``OrderedDict`` and plain strided tensors, as ``torch.save`` writes them.

    Args:
        data: Starts with the pickle, at most ``MAX_PICKLE_BYTES``.
        allowed: Names of classes and functions, as ``module.name``, whose objects are read past; a
            ``Mark`` stands for each, and for a key of a dict that is no name. None: all is plain.
        max_steps: How many opcodes may be read.

    Returns:
        The value, and what was read past.

    Raises:
        NotPlainError: Anything else, at the first opcode that says so.
    """
    if len(data) > MAX_PICKLE_BYTES:
        raise NotPlainError(f"is larger than {MAX_PICKLE_BYTES:,} bytes")
    lenient = bool(allowed)
    passed: dict[str, None] = {}
    stack: list[Any] = []
    outer: list[list[Any]] = []  # what lies below each mark
    storages: dict[str, tuple[torch.dtype, int]] = {}
    memo: dict[int, Any] = {}
    try:
        for steps, (opcode, argument, end) in enumerate(opcodes(data, max_steps), 1):
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
                case "LONG1" if lenient or -(2**63) <= argument < 2**63:
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
                    _extend(stack[-1], [item])
                case "APPENDS":
                    items, stack = stack, outer.pop()
                    _extend(stack[-1], items)
                case "SETITEM":
                    items = [stack.pop(-2), stack.pop()]
                    _set(stack[-1], items, lenient)
                case "SETITEMS":
                    items, stack = stack, outer.pop()
                    _set(stack[-1], items, lenient)
                case "BINPUT" | "LONG_BINPUT":
                    memo[argument] = stack[-1]
                case "MEMOIZE":
                    memo[len(memo)] = stack[-1]
                case "BINGET" | "LONG_BINGET":
                    stack.append(memo[argument])
                case "GLOBAL":
                    module, _, name = argument.partition(" ")
                    stack.append(_global(module, name, allowed, passed))
                case "STACK_GLOBAL":
                    name, module = stack.pop(), stack.pop()
                    stack.append(_global(module, name, allowed, passed))
                case "BINPERSID":
                    storage = _storage(stack.pop())
                    storages[storage.key] = storage.dtype, storage.numel
                    stack.append(storage)
                case "REDUCE":
                    arguments, function = stack.pop(), stack.pop()
                    stack.append(_reduce(function, arguments))
                case "BUILD" if isinstance(stack[-2], dict | Mark):
                    stack.pop()  # the `_metadata` of a state dict, which no tensor depends on
                case "STOP":
                    return PlainPickle(stack.pop(), end, tuple(passed), storages, steps)
                # What only objects that are read past are made of.
                case "NEWOBJ" if lenient and isinstance(stack[-2], Mark):
                    stack.pop()
                case "NEWOBJ_EX" if lenient and isinstance(stack[-3], Mark):
                    del stack[-2:]
                case "EMPTY_SET" if lenient:
                    stack.append(Mark("set"))
                case "ADDITEMS" if lenient:
                    items, stack = stack, outer.pop()
                    _extend(stack[-1], items)
                case "FROZENSET" if lenient:
                    stack = outer.pop()
                    stack.append(Mark("frozenset"))
                case "BINBYTES" | "SHORT_BINBYTES" | "BINBYTES8" | "BYTEARRAY8" if lenient:
                    stack.append(Mark("bytes"))
                # What is left of an object that holds itself.
                case "POP" if lenient and stack:
                    stack.pop()
                case "POP" | "POP_MARK" if lenient:
                    stack = outer.pop()
                # Python 2 had one kind of string.
                case "SHORT_BINSTRING" | "BINSTRING" if lenient:
                    stack.append(argument)
                case name:
                    raise NotPlainError(f"uses the opcode {name}")
    except (IndexError, KeyError, AttributeError, TypeError, ValueError):
        raise NotPlainError("is malformed") from None
    raise NotPlainError("is malformed")
