"""Hundreds of files that mean harm or are broken, each written when it is asked for.

Small ones come as bytes; what takes gigabytes is sparse and takes no disk. Whatever a pickle would
call leaves a file ``executed`` in the current folder, so that a test can see it.
"""

import base64
import bz2
import io
import itertools
import json
import lzma
import os
import pickle
import pickletools
import random
import re
import socket
import struct
import warnings
import zipfile
import zlib
from collections import OrderedDict, defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from enum import Enum
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

import fls_bench

FOREIGN = Path(__file__).resolve().parents[1] / "foreign_files"
GIB = 2**30
DIM, WIDTH, NUM_CLASSES = 4, 5, 3


class Ends(Enum):
    """How the command may end on a file."""

    REFUSED = "with a message, whatever it is asked"
    UNFIT = "with a message once there is a net"
    ANY = "with a message or a report"


@dataclass(frozen=True)
class HostileFile:
    """``make(folder)`` writes it below an empty folder and returns the path to diagnose."""

    name: str
    family: str
    make: Callable[[Path], Path]
    ends: Ends = Ends.REFUSED
    net: str = "normed"
    """The function of ``NETS`` that builds the net to diagnose it with."""


NETS = """
from torch import nn
def normed(): return nn.Sequential(nn.Linear(4, 5), nn.BatchNorm1d(5), nn.ReLU(), nn.Linear(5, 3))
def plain(): return nn.Sequential(nn.Linear(4, 5), nn.ReLU(), nn.Linear(5, 3))
"""


def normed() -> dict[str, torch.Tensor]:
    """A state dict that fits ``NETS.normed``."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        net = nn.Sequential(nn.Linear(4, 5), nn.BatchNorm1d(5), nn.ReLU(), nn.Linear(5, 3))
    return dict(net.state_dict())


STATE = normed()


def data_file(path: Path) -> Path:
    """Data that fit the nets."""
    rng = np.random.default_rng(0)
    arrays = {}
    for split in ("train", "val", "test"):
        arrays[f"x_{split}"] = rng.normal(size=(12, DIM)).astype(np.float32)
        arrays[f"y_{split}"] = np.arange(12) % NUM_CLASSES
    np.savez(path, **arrays)
    return path


# --- pieces of files ------------------------------------------------------------------------------


def put(name: str, content: bytes) -> Callable[[Path], Path]:
    def make(folder: Path) -> Path:
        path = folder / name
        path.write_bytes(content)
        return path

    return make


def later(name: str, content: Callable[[], bytes]) -> Callable[[Path], Path]:
    """As ``put``, for what takes long to make or much memory to hold."""
    return lambda folder: put(name, content())(folder)


def ops(value: object, protocol: int = 2) -> bytes:
    """Opcodes that push a plain value."""
    content = pickletools.optimize(pickle.dumps(value, protocol))
    start = {0: 0, 1: 0, 2: 2, 3: 2}[protocol]
    return content[start:-1]


def text(value: str) -> bytes:
    encoded = value.encode("utf-8", "surrogatepass")
    return b"X" + struct.pack("<I", len(encoded)) + encoded


def named(module: str, name: str) -> bytes:
    return f"c{module}\n{name}\n".encode()


def items(pairs: dict[str | bytes, bytes]) -> bytes:
    """Opcodes that push a dict; keys as text or as opcodes."""
    inner = b"".join((text(k) if isinstance(k, str) else k) + v for k, v in pairs.items())
    return b"}(" + inner + b"u"


def stored_tensor(
    key: str = "0",
    shape: object = (1,),
    stride: object = None,
    offset: object = 0,
    numel: object = 1,
    kind: str = "FloatStorage",
) -> bytes:
    """Opcodes that push a tensor, described in any way."""
    if stride is None and isinstance(shape, tuple):
        stride = tuple(int(np.prod(shape[axis + 1 :])) for axis in range(len(shape)))
    storage = b"(" + text("storage") + named("torch", kind) + text(key) + text("cpu")
    return (
        named("torch._utils", "_rebuild_tensor_v2")
        + b"("
        + storage
        + ops(numel)
        + b"tQ"
        + b"".join(map(ops, (offset, shape, stride)))
        + b"\x89"
        + named("collections", "OrderedDict")
        + b")RtR"
    )


def state_ops(**changes: bytes) -> dict[str | bytes, bytes]:
    """The weights of the net, by name, as opcodes; ``RECORDS`` holds their numbers."""
    tensors: dict[str | bytes, bytes] = {
        name: stored_tensor(
            str(i),
            tuple(value.shape),
            numel=value.numel(),
            kind="FloatStorage" if value.is_floating_point() else "LongStorage",
        )
        for i, (name, value) in enumerate(STATE.items())
    }
    return tensors | {name.replace("__", "."): value for name, value in changes.items()}


RECORDS = {str(i): value.numpy().tobytes() for i, value in enumerate(STATE.values())}


@dataclass
class Entry:
    """One entry of a zip archive, each field as someone may want to have it."""

    name: bytes
    content: bytes = b""
    size: int | None = None
    """What is announced; more than there is leaves a hole in the file."""
    crc: int | None = None
    method: int = 0
    unpacked: int | None = None
    flags: int = 0
    extra: bytes = b""
    central_name: bytes | None = None
    comment: bytes = b""


def zip_into(path: Path, entries: list[Entry], *, count: int | None = None) -> Path:
    """Write a zip archive by hand, zip64 where sizes need it."""
    directory = []
    with path.open("wb") as out:
        for one in entries:
            place = out.tell()
            size = len(one.content) if one.size is None else one.size
            whole = size if one.unpacked is None else one.unpacked
            crc = zlib.crc32(one.content) if one.crc is None else one.crc
            long = max(size, whole) >= 2**32 - 1
            sizes = (2**32 - 1,) * 2 if long else (size, whole)
            extra = (struct.pack("<HHQQ", 1, 16, whole, size) if long else b"") + one.extra
            head = (45, one.flags, one.method, 0, 33, crc, *sizes)
            out.write(b"PK\3\4" + struct.pack("<HHHHHIIIHH", *head, len(one.name), len(extra)))
            out.write(one.name + extra + one.content)
            out.seek(place + 30 + len(one.name) + len(extra) + size)
            far = place >= 2**32 - 1
            wide = (struct.pack("<QQ", whole, size) if long else b"") + (
                struct.pack("<Q", place) if far else b""
            )
            extra = (struct.pack("<HH", 1, len(wide)) + wide if wide else b"") + one.extra
            name = one.name if one.central_name is None else one.central_name
            directory.append(
                b"PK\1\2"
                + struct.pack(
                    "<HHHHHHIIIHHHHHII",
                    45,
                    *head,
                    len(name),
                    len(extra),
                    len(one.comment),
                    0,
                    0,
                    0,
                    2**32 - 1 if far else place,
                )
                + name
                + extra
                + one.comment
            )
        start = out.tell()
        for part in directory:
            out.write(part)
        end = out.tell()
        count = len(entries) if count is None else count
        if start >= 2**32 - 1 or count >= 2**16:
            out.write(
                b"PK\6\6"
                + struct.pack("<QHHIIQQQQ", 44, 45, 45, 0, 0, count, count, end - start, start)
                + b"PK\6\7"
                + struct.pack("<IQI", 0, end, 1)
            )
        out.write(
            b"PK\5\6"
            + struct.pack(
                "<HHHHIIH",
                0,
                0,
                min(count, 2**16 - 1),
                min(count, 2**16 - 1),
                min(end - start, 2**32 - 1),
                min(start, 2**32 - 1),
                0,
            )
        )
    return path


def torch_entries(data_pkl: bytes, records: dict[str, bytes] | None = None) -> list[Entry]:
    records = RECORDS if records is None else records
    return [
        Entry(b"m/data.pkl", data_pkl),
        Entry(b"m/byteorder", b"little"),
        *(Entry(f"m/data/{key}".encode(), value) for key, value in records.items()),
        Entry(b"m/version", b"3\n"),
    ]


def zipped(entries: list[Entry], **options: Any) -> Callable[[Path], Path]:
    return lambda folder: zip_into(folder / "m.pt", entries, **options)


def torch_zip(body: bytes, records: dict[str, bytes] | None = None) -> Callable[[Path], Path]:
    """A file of torch.save whose pickle pushes this value."""
    return zipped(torch_entries(b"\x80\x02" + body + b".", records))


LEGACY = {"protocol_version": 1001, "little_endian": True, "type_sizes": {"int": 4}}
LEGACY_HEAD = b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19.\x80\x02M\xe9\x03."


def legacy(body: bytes, keys: object = (), storages: bytes = b"", system: object = LEGACY) -> bytes:
    """As torch saved before 1.6."""
    parts = [ops(system), body, ops(list(keys)) if isinstance(keys, tuple) else keys]
    return LEGACY_HEAD + b"".join(b"\x80\x02" + part + b"." for part in parts) + storages


def saved(value: object, **options: Any) -> bytes:
    stream = io.BytesIO()
    torch.save(value, stream, **options)
    return stream.getvalue()


def sparse(name: str, start: bytes, size: int, end: bytes = b"") -> Callable[[Path], Path]:
    """A file of that size which takes no disk."""

    def make(folder: Path) -> Path:
        path = put(name, start)(folder)
        os.truncate(path, size - len(end))
        with path.open("ab") as out:
            out.write(end)
        return path

    return make


# --- pickles that would run something -------------------------------------------------------------

CODE = "open('executed', 'w')"
TOUCH = "touch executed"
CALLS: list[tuple[str, str, tuple[Any, ...]]] = [
    ("os", "system", (TOUCH,)),
    ("posix", "system", (TOUCH,)),
    ("nt", "system", (TOUCH,)),
    ("os", "popen", (TOUCH,)),
    ("os", "mkdir", ("executed",)),
    ("os", "remove", ("victim",)),
    ("os", "execv", ("/bin/touch", ["touch", "executed"])),
    ("os", "spawnlp", (0, "touch", "touch", "executed")),
    ("os", "_exit", (0,)),
    ("os", "symlink", ("/etc", "executed")),
    ("subprocess", "Popen", (["touch", "executed"],)),
    ("subprocess", "check_output", (["touch", "executed"],)),
    ("subprocess", "getoutput", (TOUCH,)),
    ("_posixsubprocess", "fork_exec", ()),
    ("builtins", "exec", (CODE,)),
    ("builtins", "eval", (CODE,)),
    ("__builtin__", "eval", (CODE,)),
    ("__builtin__", "execfile", ("evil.py",)),
    ("builtins", "__import__", ("evil",)),
    ("builtins", "open", ("executed", "w")),
    ("builtins", "compile", (CODE, "evil", "exec")),
    ("builtins", "breakpoint", ()),
    ("builtins", "input", ()),
    ("builtins", "setattr", ("x", "y", 1)),
    ("builtins", "map", ()),
    ("io", "open", ("executed", "w")),
    ("_io", "FileIO", ("executed", "w")),
    ("shutil", "rmtree", ("victim",)),
    ("shutil", "copy", ("/etc/hostname", "executed")),
    ("pty", "spawn", (["touch", "executed"],)),
    ("runpy", "run_path", ("evil.py",)),
    ("runpy", "_run_code", (CODE,)),
    ("ctypes", "CDLL", ("evil.so",)),
    ("importlib", "import_module", ("evil",)),
    ("importlib._bootstrap", "_load", ()),
    ("imp", "load_source", ("evil", "evil.py")),
    ("zipimport", "zipimporter", ("evil.zip",)),
    ("numpy", "load", ("evil.npy", None, True)),
    ("numpy", "savetxt", ("executed", [1.0])),
    ("numpy.testing._private.utils", "runstring", (CODE, {})),
    ("numpy.f2py.crackfortran", "myeval", (CODE,)),
    ("torch", "load", ("evil.pt",)),
    ("torch", "save", (1, "executed")),
    ("torch.hub", "load", ("evil/evil", "evil")),
    ("torch.jit", "load", ("evil.pt",)),
    ("torch.storage", "_load_from_bytes", (b"evil",)),
    ("torch.serialization", "load", ("evil.pt",)),
    ("torch.utils.cpp_extension", "load", ("evil", ["evil.cpp"])),
    ("torch._dynamo.guards.GuardBuilder", "get", ()),
    ("torch.fx.graph", "_exec_with_source", (CODE, {})),
    ("torch.distributed.rpc.internal", "_run_function", ()),
    ("torch._utils", "_rebuild_wrapper_subclass", ()),
    ("torch._utils", "_rebuild_device_tensor_from_numpy", ()),
    ("torch._utils", "_rebuild_device_tensor_from_cpu_tensor", ()),
    ("torch._tensor", "_rebuild_from_type_v2", ()),
    ("torch._tensor", "_rebuild_from_type", ()),
    ("torch.nn.modules.linear", "Linear", (2, 2)),
    ("torch", "_utils.sys", ()),
    ("operator", "attrgetter", ("system",)),
    ("operator", "methodcaller", ("system", TOUCH)),
    ("operator", "call", ()),
    ("functools", "partial", ()),
    ("functools", "reduce", ()),
    ("itertools", "starmap", ()),
    ("types", "CodeType", ()),
    ("types", "FunctionType", ()),
    ("marshal", "loads", (b"c",)),
    ("pickle", "loads", (b"cos\nsystem\n(S'touch executed'\ntR.",)),
    ("_pickle", "loads", (b"cos\nsystem\n(S'touch executed'\ntR.",)),
    ("joblib", "load", ("evil.pkl",)),
    ("dill._dill", "_create_code", ()),
    ("cloudpickle.cloudpickle", "_make_function", ()),
    ("yaml", "unsafe_load", ("!!python/object/apply:os.system [touch executed]",)),
    ("socket", "create_connection", (("127.0.0.1", 9),)),
    ("urllib.request", "urlretrieve", ("http://127.0.0.1:9/", "executed")),
    ("webbrowser", "open", ("http://127.0.0.1:9/",)),
    ("pathlib", "Path.touch", ("executed",)),
    ("logging.config", "dictConfig", ()),
    ("logging", "FileHandler", ("executed",)),
    ("code", "interact", ()),
    ("timeit", "timeit", (CODE,)),
    ("cProfile", "run", (CODE,)),
    ("pdb", "run", (CODE,)),
    ("bdb", "Bdb", ()),
    ("doctest", "debug_script", (CODE,)),
    ("signal", "raise_signal", (9,)),
    ("sys", "exit", (0,)),
    ("sys", "setrecursionlimit", (10**9,)),
    ("_thread", "start_new_thread", ()),
    ("asyncio.unix_events", "_UnixSubprocessTransport._start", ()),
    ("multiprocessing.util", "spawnv_passfds", ()),
    ("fls_bench.cli", "main", (["--version"],)),
    ("collections", "namedtuple", ("a", "b")),
    ("argparse", "Namespace.__init__", ()),
    ("argparse", "_sys.modules", ()),
    ("pathlib", "os.system", (TOUCH,)),
    ("copyreg", "__newobj__", ()),
    ("copyreg", "add_extension", ("os", "system", 7)),
    ("a" * 300_000, "b", ()),
    ("os.\x1b[2J\x1b]0;evil\x07", "system", ()),
    ("os\u202emetsys", "x", ()),
    ("os", "system' --allow 'x", ()),
]


def _args(args: tuple[Any, ...], protocol: int = 2) -> bytes:
    return ops(args, 0 if protocol == 0 else 3)


def _text_args(args: tuple[Any, ...]) -> bytes:
    return b"(" + b"".join(ops(arg, 0) for arg in args) + b"t"


def _by_reduce(m: str, n: str, args: tuple[Any, ...]) -> bytes:
    return named(m, n) + _args(args) + b"R"


def _by_text(m: str, n: str, args: tuple[Any, ...]) -> bytes:
    return named(m, n) + _text_args(args) + b"R"


def _by_inst(m: str, n: str, args: tuple[Any, ...]) -> bytes:
    return b"(" + b"".join(ops(arg, 0) for arg in args) + f"i{m}\n{n}\n".encode()


def _by_obj(m: str, n: str, args: tuple[Any, ...]) -> bytes:
    return b"(" + named(m, n) + b"".join(map(ops, args)) + b"o"


def _by_newobj(m: str, n: str, args: tuple[Any, ...]) -> bytes:
    return named(m, n) + _args(args) + b"\x81"


def _by_newobj_ex(m: str, n: str, args: tuple[Any, ...]) -> bytes:
    return named(m, n) + _args(args) + b"}\x92"


def _by_build(m: str, n: str, args: tuple[Any, ...]) -> bytes:
    return named(m, n) + b")\x81}" + text("__setstate__") + named(m, n) + b"sb" + _args(args) + b"b"


def _by_stack(m: str, n: str, args: tuple[Any, ...]) -> bytes:
    return text(m) + text(n) + b"\x93" + _args(args) + b"R"


def _by_memo(m: str, n: str, args: tuple[Any, ...]) -> bytes:
    return text(n) + b"q\xfa0" + text(m) + b"q\xfb0h\xfbh\xfa\x93" + _args(args) + b"R"


def _by_mixed_memo(m: str, n: str, args: tuple[Any, ...]) -> bytes:
    """A memo that is written twice, with another name in between."""
    first = text("OrderedDict") + b"q\xfa0" + text("collections") + b"q\xfb0h\xfbh\xfa\x930"
    return first + _by_memo(m, n, args)


def _by_dup(m: str, n: str, args: tuple[Any, ...]) -> bytes:
    return named(m, n) + b"20" + _args(args) + b"R"


def _by_wide_text(m: str, n: str, args: tuple[Any, ...]) -> bytes:
    module = m.encode("utf-8", "surrogatepass")
    return (
        b"\x8d" + struct.pack("<Q", len(module)) + module + text(n) + b"\x93" + _args(args) + b"R"
    )


def _by_persistent_id(m: str, n: str, args: tuple[Any, ...]) -> bytes:
    return b"(" + text("storage") + _by_reduce(m, n, args) + text("0") + text("cpu") + b"K\x01tQ"


def _by_extension(m: str, n: str, args: tuple[Any, ...]) -> bytes:
    return b"\x82\x07" + _args(args) + b"R"


def _by_wide_extension(m: str, n: str, args: tuple[Any, ...]) -> bytes:
    return b"\x84\x07\x00\x00\x01" + _args(args) + b"R"


def _by_getattr(m: str, n: str, args: tuple[Any, ...]) -> bytes:
    """getattr(module, name)(...): the first of these is among what is read past."""
    module = named("importlib", "import_module") + b"(" + text(m) + b"tR"
    return named("builtins", "getattr") + b"(" + module + text(n) + b"tR" + _args(args) + b"R"


def _as_function_of_object(m: str, n: str, args: tuple[Any, ...]) -> bytes:
    return named("copyreg", "_reconstructor") + b"(" + named(m, n) + b"c__builtin__\nobject\nNtR"


def _named_only(m: str, n: str, args: tuple[Any, ...]) -> bytes:
    return named(m, n)


WAYS = (
    _by_reduce,
    _by_text,
    _by_inst,
    _by_obj,
    _by_newobj,
    _by_newobj_ex,
    _by_build,
    _by_stack,
    _by_memo,
    _by_mixed_memo,
    _by_dup,
    _by_wide_text,
    _by_persistent_id,
    _by_extension,
    _by_wide_extension,
    _by_getattr,
    _as_function_of_object,
    _named_only,
)


def _raw(value: bytes) -> Callable[[Path], Path]:
    return put("m.pkl", b"\x80\x02" + value + b".")


def _raw_without_protocol(value: bytes) -> Callable[[Path], Path]:
    return put("m.bin", value + b".")


def _raw_in_frame(value: bytes) -> Callable[[Path], Path]:
    return put("m.pt", b"\x80\x04\x95" + struct.pack("<Q", len(value) + 1) + value + b".")


def _whole_zip(value: bytes) -> Callable[[Path], Path]:
    return torch_zip(value)


def _beside_weights(value: bytes) -> Callable[[Path], Path]:
    return torch_zip(items(state_ops(extra=value)))


def _as_key(value: bytes) -> Callable[[Path], Path]:
    return torch_zip(items({**state_ops(), value: b"N"}))


def _as_weight(value: bytes) -> Callable[[Path], Path]:
    return torch_zip(items(state_ops(**{"3__bias": value})))


def _in_lightning(value: bytes) -> Callable[[Path], Path]:
    parts: dict[str | bytes, bytes] = {
        "epoch": b"K\x03",
        "pytorch-lightning_version": text("2.6.6"),
        "state_dict": items(state_ops()),
        "hyper_parameters": items({"lr": b"G?\xb9\x99\x99\x99\x99\x99\x9a", "args": value}),
    }
    return torch_zip(items(parts))


def _in_namespace(value: bytes) -> Callable[[Path], Path]:
    space = named("argparse", "Namespace") + b")R" + items({"lr": value}) + b"b"
    return torch_zip(items({"model": items(state_ops()), "args": space}))


def _in_defaultdict(value: bytes) -> Callable[[Path], Path]:
    made = named("collections", "defaultdict") + value + b"\x85R"
    return torch_zip(items({"model": items(state_ops()), "counts": made}))


def _in_metadata(value: bytes) -> Callable[[Path], Path]:
    state = (
        named("collections", "OrderedDict")
        + b")R("
        + b"".join(text(str(k)) + v for k, v in state_ops().items())
        + b"u"
        + items({"_metadata": value})
        + b"b"
    )
    return torch_zip(state)


def _in_hooks_of_tensor(value: bytes) -> Callable[[Path], Path]:
    tensor = stored_tensor("0", (5, 4), numel=20)
    return torch_zip(items(state_ops(**{"0__weight": tensor[:-2] + value + b"tR"})))


def _thrown_away(value: bytes) -> Callable[[Path], Path]:
    """Called, popped, and no trace of it in the value."""
    return torch_zip(value + b"0" + items(state_ops()))


def _in_record(value: bytes) -> Callable[[Path], Path]:
    """A pickle in the place of numbers: nobody may ever read it as one."""
    records = RECORDS | {"0": (b"\x80\x02" + value + b".").ljust(80, b" ")[:80]}
    return torch_zip(items(state_ops()), records)


def _legacy(value: bytes) -> Callable[[Path], Path]:
    return put("m.pth", legacy(value))


def _legacy_system(value: bytes) -> Callable[[Path], Path]:
    head = LEGACY_HEAD + b"\x80\x02" + value + b"."
    return put("m.pth", head + b"\x80\x02}.\x80\x02].")


def _legacy_keys(value: bytes) -> Callable[[Path], Path]:
    return put("m.pth", legacy(items(state_ops()), keys=value))


def _after_plain_pickle(value: bytes) -> Callable[[Path], Path]:
    return put("m.pkl", b"\x80\x02}.\x80\x02" + value + b".")


def _torchscript(value: bytes) -> Callable[[Path], Path]:
    code = Entry(b"m/code/__torch__.py", b"import os")
    return zipped([*torch_entries(b"\x80\x02" + value + b"."), code])


PLACES = (
    _raw,
    _raw_without_protocol,
    _raw_in_frame,
    _whole_zip,
    _beside_weights,
    _as_key,
    _as_weight,
    _in_lightning,
    _in_namespace,
    _in_defaultdict,
    _in_metadata,
    _in_hooks_of_tensor,
    _thrown_away,
    _legacy,
    _legacy_system,
    _legacy_keys,
    _after_plain_pickle,
    _torchscript,
)


class _Runs:
    """Pickles itself as a call."""

    def __init__(self, module: str, name: str, args: tuple[Any, ...]) -> None:
        self.call = getattr(__import__(module), name), args

    def __reduce__(self) -> Any:
        return self.call


def _pickles() -> Iterator[HostileFile]:
    for i, (way, place) in enumerate(itertools.product(WAYS, PLACES)):
        module, name, args = CALLS[:48][i % 48]
        # All ways meet all places over the two halves; three in eight are enough.
        if i % 8 in (0, 3, 5):
            call = f"{module}.{name}"
            said = f"{call} {way.__name__}{place.__name__}"
            yield HostileFile(said, "pickles", place(way(module, name, args)))
    for i, (module, name, args) in enumerate(CALLS):
        place, way = PLACES[i % len(PLACES)], (_by_reduce, _by_stack, _by_newobj)[i % 3]
        if "\x1b" in module or "\u202e" in module:
            way = _by_stack
        said = f"{module[:30]!a}.{name} in{place.__name__}"
        yield HostileFile(said, "pickles", place(way(module, name, args)))
    for protocol in range(6):
        for module, name, args in (("posix", "system", (TOUCH,)), ("builtins", "exec", (CODE,))):
            value = _Runs(module, name, args)
            said = f"{module}.{name}, protocol {protocol}"
            content = pickle.dumps({"state_dict": value}, protocol)
            yield HostileFile(f"{said}, raw", "pickles", put("m.pkl", content))
            yield HostileFile(f"{said}, zip", "pickles", zipped(torch_entries(content)))
            whole = saved(
                {"w": torch.ones(2), "x": value},
                pickle_protocol=max(protocol, 2),
                _use_new_zipfile_serialization=protocol % 2 == 0,
            )
            yield HostileFile(f"{said}, torch.save", "pickles", put("m.pt", whole))
    value = _in_record(_by_reduce("os", "system", (TOUCH,)))
    yield HostileFile("a pickle among the numbers", "pickles", value, Ends.ANY)
    whole_net = saved(nn.Sequential(nn.Linear(2, 2)))
    yield HostileFile("a pickled net", "pickles", put("m.pt", whole_net))
    # Only names that are read past: nothing is called, so a report may follow.
    str_of = named("builtins", "getattr") + b"(" + named("builtins", "str") + text("join") + b"tR"
    for name, value in {
        "getattr of a class": str_of,
        "getattr chain": named("builtins", "getattr") + b"(" + str_of + text("__globals__") + b"tR",
        "bytearray of 10^12": named("builtins", "bytearray") + ops(10**12) + b"\x85R",
        "range of 10^18": named("builtins", "list")
        + named("builtins", "range")
        + ops(10**18)
        + b"\x85R\x85R",
        "tuple of tuples": named("builtins", "tuple") + b"(" * 999 + b"t" * 999 + b"\x85R",
        "encode with a codec": named("_codecs", "encode") + b"(" + text("x") + text("evil") + b"tR",
        "reconstructor": named("copyreg", "_reconstructor")
        + b"("
        + named("argparse", "Namespace")
        + named("builtins", "object")
        + b"NtR",
        "setattr by BUILD": named("builtins", "dict") + items({"__class__": b"N"}) + b"b",
        "dtype of objects": named("numpy", "dtype") + b"(" + text("O8") + b"\x89\x88tR",
        "array of objects": named("numpy.core.multiarray", "_reconstruct")
        + b"("
        + named("numpy", "ndarray")
        + ops((10**12,))
        + text("O")
        + b"tR",
    }.items():
        made = torch_zip(items({"state_dict": items(state_ops()), "args": value}))
        yield HostileFile(f"read past: {name}", "pickles", made, Ends.ANY)
        raw = put("m.pkl", b"\x80\x02" + value + b".")
        yield HostileFile(f"read past: {name}, raw", "pickles", raw)
    # A persistent id in text, and names that only a lookup would give.
    for name, content in {
        "text persistent id": b"Pposix.system\n.",
        "name from two lists": b"\x80\x04]]\x93)R.",
        "name from a number": b"\x80\x04K\x01K\x02\x93)R.",
        "name from a call": b"\x80\x04" + named("builtins", "str") + b")R" + text("x") + b"\x93)R.",
        "name from an extension": b"\x80\x04\x82\x01\x82\x02\x93)R.",
        "extension of 0": b"\x80\x02\x82\x00.",
        "out-of-band buffer": b"\x80\x05\x97.",
        "read-only buffer": b"\x80\x05\x97\x98.",
        "protocol 255": b"\x80\xff" + named("os", "system") + b".",
        "no STOP": b"\x80\x02" + named("os", "system") + text(TOUCH) + b"\x85R",
        "STOP first": b".",
        "GLOBAL without a name": b"cos\n",
        "dotted name": b"\x80\x04" + text("os") + text("path.os.system") + b"\x93.",
        "name with a line break": b"\x80\x04"
        + text("os\nsystem")
        + text("x\n\nerror: ok")
        + b"\x93.",
        "surrogate in a name": b"\x80\x04" + text("os\udc80") + text("\ud800") + b"\x93.",
        "empty names": b"\x80\x04" + text("") + text("") + b"\x93)R.",
    }.items():
        yield HostileFile(name, "pickles", put("m.pkl", content))
        # The same among the values of a torch file, once its STOP is off.
        body = content.removeprefix(b"\x80")[1:] if content[:1] == b"\x80" else content
        made = torch_zip(items(state_ops(extra=body.removesuffix(b"."))))
        yield HostileFile(f"{name}, in a zip", "pickles", made)


# --- zip archives ---------------------------------------------------------------------------------

GOOD_PKL = b"\x80\x02" + items(state_ops()) + b"."


def _deflated(content: bytes) -> tuple[bytes, int, int]:
    packer = zlib.compressobj(9, zlib.DEFLATED, -15)
    packed = packer.compress(content) + packer.flush()
    return packed, len(content), zlib.crc32(content)


def _packed(name: bytes, method: int, packed: bytes, unpacked: int, crc: int = 0) -> Entry:
    return Entry(name, packed, method=method, unpacked=unpacked, crc=crc)


def _program_of(entries: list[Entry]) -> list[Entry]:
    """What makes an archive TorchScript's: its pickles are looked into, to list what they name."""
    return [Entry(b"m/constants.pkl", b"\x80\x02)."), *entries]


# b"\x80\x02" and 2.5 GiB of zeros, as bz2 and as raw LZMA with its head in a zip, packed again with zlib
# (once, twice): to make them takes half a minute.
_BZ2_BOMB = (
    b"c-nJ{%CIzaj8qGb<mYK|V6C$_;BbM#fq{WTfgvDm7U!yYlkd1Xcn5j1hTaZX!C7;ZHD#u6iiLW24Qrhx12Y2ygF*wtAx"
    b"2Y4u7+t#w3uQ><wxa5<wxa5<wxa5<#EWT9=Nsc2$SCH29P`xNX20TwUx^}oI<y{C~AEyR|#(A<h5j(?*IVZ=n=v"
)
_LZMA_BOMB = (
    b"c-pJD_4aIbHZKDM!v$?K>130XlgjJQ+DOUkh-LD6u1?G}p2dI0dUMazN>%R@WuDV!>FA!h=H{YpyynQFWnpra!82xXmd"
    b"{+b|KVZF`UfuGJ2}>Hu`umr`pl%N>{kA6Z^+j@4+5|Jl03Rz+ur<%UEbZYCojI<{p)RA#GaCp9&alYFIt`)?z}(y>2@="
    b"dcRMcZ)A)P$*j>)=`~J&puQ_?_%P-x<W!qBr>H5hT?cDGqqR4s2`Hua$vxDSoUR(cr`DWg!pQ>+HTX|i6^lXjwY&ox)y"
    b"MDR4Kb-oVyDqg<PHWbrKY#qv!V2E3JaMn`J9kjK$$5{JE97pi{`Gk0izWJ|4@HHuxs%&u?eCkc&iOOD$@uy4r?s9rwl~"
    b"T)J^C<jNkX{O#rHp+o#^W6+VB7B_UYtkH68B1Jm==f1>XHo`uc5CPpe_>!GorytKH4)cFi%UN%ecV{Lj*xzVpkjJlpes"
    b"g0$e(+V_#M=jSh-yxm@As<qnM-$yrDF7(V^6#RXwT5esb?$*supKaMQ>&DLR&zDa<W@}@g%aN;nj`M51gx$;?3g43aPo"
    b"B14K6$xrzMl1u#|QpB+nTjCYHir+tE1E?HA;<AqZF8W^?%2{+4rZ)^R(~oW@@Z2{QrAD09_r@l>"
)
BOMB_BYTES = 2600 * 2**20 + 2


def _bz2_bomb() -> bytes:
    return zlib.decompress(base64.b85decode(_BZ2_BOMB))


def _lzma_bomb() -> bytes:
    return zlib.decompress(zlib.decompress(base64.b85decode(_LZMA_BOMB)))


def _many(num: int, name: Callable[[int], bytes], **fields: Any) -> list[Entry]:
    return [Entry(name(i), **fields) for i in range(num)]


def _directory_of(num: int, extra: bytes, name: bytes = b"") -> Callable[[Path], Path]:
    """One local entry and a directory of many records that all point at it."""

    def make(folder: Path) -> Path:
        start = b"PK\3\4" + struct.pack("<HHHHHIIIHH", 20, 0, 0, 0, 33, 0, 0, 0, 0, 0)
        record = (
            b"PK\1\2"
            + struct.pack(
                "<HHHHHHIIIHHHHHII",
                20,
                20,
                0,
                0,
                0,
                33,
                0,
                0,
                0,
                len(name),
                len(extra),
                0,
                0,
                0,
                0,
                0,
            )
            + name
            + extra
        )
        end = struct.pack("<HHHHIIH", 0, 0, 65535, 65535, len(record) * num, len(start), 0)
        return put("m.pt", start + record * num + b"PK\5\6" + end)(folder)

    return make


def _zips() -> Iterator[HostileFile]:
    def case(name: str, make: Callable[[Path], Path], ends: Ends = Ends.REFUSED) -> HostileFile:
        return HostileFile(name, "zips", make, ends)

    good = torch_entries(GOOD_PKL)
    yield case("the good archive that others are made of", zipped(good), Ends.ANY)
    for method, name in (
        (8, "deflate"),
        (12, "bzip2"),
        (14, "lzma"),
        (9, "deflate64"),
        (99, "AES"),
    ):
        yield case(f"data.pkl by {name}", zipped([_packed(b"m/data.pkl", method, b"\0" * 40, 999)]))
    bomb = _deflated(b"\x80\x02" + bytes(64 * 2**20))
    for name in ("data.pkl", "data/0", "byteorder", "extra"):
        entry = _packed(b"m/" + name.encode(), 8, *bomb)
        others = [one for one in good if one.name != entry.name]
        yield case(f"deflate bomb in {name}", zipped([*others, entry]))
        yield case(f"deflate bomb in {name} of a program", zipped(_program_of([*others, entry])))
    announced = Entry(b"m/data.pkl", bomb[0], method=8, unpacked=10, crc=0)
    yield case("deflate bomb that announces 10 bytes", zipped([announced]))
    for name, method, packed in (("bzip2", 12, _bz2_bomb()), ("lzma", 14, _lzma_bomb())):
        entry = _packed(b"m/data.pkl", method, packed, BOMB_BYTES)
        yield case(f"{name} bomb", zipped([entry]))
        yield case(f"{name} bomb in a program", zipped(_program_of([entry])))
    nested = _deflated(b"PK\3\4" + bytes(15 * 2**20))
    yield case(
        "nested bombs in a program",
        zipped(_program_of([_packed(f"m/{i}.zip".encode(), 8, *nested) for i in range(200)])),
    )

    def steps_in_steps(folder: Path) -> Path:
        """Nested archives whose pickles are all short steps."""
        pickles = _deflated(b"\x80\x02" + (b"\x80\x02" + b"N0" * 900_000 + b"N.") * 8)
        inner = zip_into(folder / "inner", [_packed(b"a.pkl", 8, *pickles)])
        entries = [Entry(f"m/{i}.zip".encode(), inner.read_bytes()) for i in range(20)]
        inner.unlink()
        return zip_into(folder / "m.pt", _program_of(entries))

    yield case("pickles of many steps in archives in a program", steps_in_steps)

    def recursive(folder: Path) -> Path:
        content = b"PK\5\6" + bytes(18)
        for i in range(40):
            path = zip_into(folder / "inner", [Entry(f"{i}.zip".encode(), content)])
            content = path.read_bytes()
        path.rename(folder / "m.pt")
        return folder / "m.pt"

    yield case("forty archives in each other", recursive)
    yield case(
        "a program of 30,000 pickles",
        zipped(_program_of(_many(30_000, lambda i: b"m/%d.pkl" % i, content=b"\x80\x02N."))),
    )
    yield case(
        "a program of 90,000 empty entries",
        zipped(_program_of(_many(90_000, lambda i: b"m/%d.pkl" % i))),
    )
    yield case("150,000 entries", zipped([*good, *_many(150_000, lambda i: b"m/data/x%d" % i)]))
    yield case(
        "90,000 more entries",
        zipped([*good, *_many(90_000, lambda i: b"m/data/x%d" % i)]),
        Ends.ANY,
    )
    yield case("directory of 700,000 records", _directory_of(700_000, b""))
    yield case("directory of 300,000 records", _directory_of(300_000, b"", b"x" * 40))
    yield case("directory of extras", _directory_of(500, struct.pack("<HH", 7, 0) * 16_000))
    yield case("directory of names", _directory_of(500, b"", b"n" * 65_000))
    yield case("directory of 40 MiB", _directory_of(640, b"", b"n" * 65_500))
    for bad in (
        b"../../evil",
        b"/etc/evil",
        b"C:\\evil",
        b"m/../../evil",
        b"m/data/../../../evil",
        b"..\\..\\evil",
        b"\\\\host\\share\\evil",
        b"m/data/\0evil",
        b"m\0/data.pkl",
        b"~/evil",
        b"m/\xff\xfe",
        b"",
        b"/",
        b"m/data.pkl/",
        b"con",
        b"m/\x1b[2J",
        b"m/\xe2\x80\xaeevil",
        b"m/" + b"x" * 60_000,
        b"m/" + b"a/" * 30_000,
        b"*/data.pkl",
        b"../data.pkl",
        b"/data.pkl",
    ):
        shown = repr(bad[:30])
        yield case(f"entry {shown}", zipped([*good, Entry(bad, b"evil")]), Ends.ANY)
        yield case(f"only entry {shown}", zipped([Entry(bad, b"\x80\x02}.")]))
        if len(bad) < 40:
            moved = [Entry(bad.rstrip(b"/") + one.name[1:], one.content) for one in good]
            yield case(f"root {shown}", zipped(moved), Ends.ANY)
    for one in good[:3]:
        rest = [other for other in good if other is not one]
        name = one.name.decode()
        yield case(f"{name} twice", zipped([*good, one]))
        yield case(
            f"{name} missing", zipped(rest), Ends.UNFIT if b"order" not in one.name else Ends.ANY
        )
        changes: dict[str, dict[str, Any]] = {
            "encrypted": {"flags": 1},
            "strongly encrypted": {"flags": 0x41},
            "patched": {"flags": 0x20},
            "masked header": {"flags": 0x2001},
            "wrong checksum": {"crc": 1},
            "called otherwise in its own header": {"central_name": b"m/other"},
            "announcing 2^62": {"extra": struct.pack("<HHQQ", 1, 16, 2**62, 2**62)},
            "announcing 2^62 for certain": {"size": 2**40, "unpacked": 2**62},
            "with a torn extra": {"extra": b"\x01\x00\xff\xff"},
            "with an empty zip64 extra": {"extra": b"\x01\x00\x00\x00"},
            "with a long comment": {"comment": b"PK\5\6" * 16_000},
        }
        for what, change in changes.items():
            if change.get("size"):
                continue
            entry = Entry(**{"name": one.name, "content": one.content, **change})
            yield case(f"{name} {what}", zipped([entry, *rest]), Ends.ANY)
    other = [Entry(b"n/data.pkl", GOOD_PKL), Entry(b"m/sub/data.pkl", GOOD_PKL)]
    yield case("data.pkl under two roots", zipped([*good, other[0]]))
    yield case("data.pkl under a root and below it", zipped([*good, other[1]]))
    yield case("data.pkl without a root", zipped([Entry(b"data.pkl", GOOD_PKL)]))
    yield case("data.pkl too deep", zipped([other[1]]))
    yield case(
        "big-endian",
        zipped([Entry(one.name, b"big" if b"order" in one.name else one.content) for one in good]),
    )
    yield case("a count of 65,535", zipped(good, count=65_535), Ends.ANY)
    yield case("a count of 2^60", zipped(good, count=2**60), Ends.ANY)

    def edited(edit: Callable[[bytearray], bytes | bytearray]) -> Callable[[Path], Path]:
        def make(folder: Path) -> Path:
            path = zip_into(folder / "m.pt", good)
            path.write_bytes(edit(bytearray(path.read_bytes())))
            return path

        return make

    def end_record(at: int, form: str, value: int) -> Callable[[bytearray], bytearray]:
        def edit(content: bytearray) -> bytearray:
            struct.pack_into(form, content, content.rindex(b"PK\5\6") + at, value)
            return content

        return edit

    def overlapping(content: bytearray) -> bytearray:
        """All records of numbers point at one entry."""
        first = content.index(b"PK\3\4", 4)
        place = content.index(b"PK\1\2")
        while (place := content.find(b"PK\1\2", place + 4)) >= 0:
            struct.pack_into("<I", content, place + 42, first)
        return content

    yield case("overlapping entries", edited(overlapping), Ends.UNFIT)
    for at, form in ((4, "<H"), (8, "<H"), (10, "<H"), (12, "<I"), (16, "<I"), (20, "<H")):
        for value in (0, 1, 2 ** (8 * struct.calcsize(form)) - 1):
            name = f"end record at {at}: {value}"
            yield case(name, edited(end_record(at, form, value)), Ends.ANY)
    yield case("another archive behind it", edited(lambda c: c + c), Ends.ANY)
    yield case(
        "a comment that is an archive",
        edited(lambda c: end_record(20, "<H", 22)(c) + b"PK\5\6" + bytes(18)),
        Ends.ANY,
    )
    wide = b"PK\6\6" + struct.pack("<QHHIIQQQQ", 2**63, 45, 45, 0, 0, 2**62, 2**62, 2**62, 2**62)
    locator = b"PK\6\7" + struct.pack("<IQI", 0, 4, 1)
    end = b"PK\5\6" + struct.pack("<HHHHIIH", *(2**16 - 1,) * 4, *(2**32 - 1,) * 2, 0)
    yield case("zip64 end that announces 2^62", put("m.pt", b"PK\3\4" + wide + locator + end))
    far = b"PK\6\7" + struct.pack("<IQI", 0, 2**63, 2**31)
    yield case("zip64 locator that points to 2^63", put("m.pt", b"PK\3\4" + wide + far + end))
    yield case("only an end record", put("m.pt", b"PK\5\6" + bytes(18)))
    yield case("only a start", put("m.pt", b"PK\3\4"))
    yield case("end records all over", put("m.pt", b"PK\3\4" + b"PK\5\6" * 10_000))
    data = io.BytesIO()
    np.savez(data, x=np.ones(3))
    yield case("numpy archive", put("m.pt", data.getvalue()))
    yield case("numpy archive of objects", zipped([Entry(b"x.npy", b"\x93NUMPY" + bytes(99))]))
    for i, name in enumerate(
        ("m\x1b[2J.pt", "m\nerror: all is well.\n.pt", "m\u202e.pt", "-m.pt", "m';x.pt")
    ):
        for kind, content in (("npz", data.getvalue()), ("pickle", b"cos\nsystem\n(S'x'\ntR.")):
            yield case(f"file name {i}, {kind}", put(name, content))
        yield case(f"file name {i}, good", later(name, lambda: saved(STATE)), Ends.ANY)


# --- sizes ----------------------------------------------------------------------------------------


def _weight(**changes: Any) -> Callable[[Path], Path]:
    """A good state dict but for one tensor."""
    given = {"key": "0", "shape": (5, 4), "numel": 20} | changes
    return torch_zip(items(state_ops(**{"0__weight": stored_tensor(**given)})))


def _big_storage(size: int) -> Callable[[Path], Path]:
    """The first weights are a view into a storage of that size, which is really there."""

    def make(folder: Path) -> Path:
        tensor = stored_tensor("big", (5, 4), numel=size // 4)
        body = b"\x80\x02" + items(state_ops(**{"0__weight": tensor})) + b"."
        return zip_into(
            folder / "m.pt",
            [*torch_entries(body), Entry(b"m/data/big", size=size, crc=_crc_of_zeros(size))],
        )

    return make


def _crc_of_zeros(size: int) -> int:
    crc, zeros = 0, bytes(2**24)
    if size > 2 * GIB:
        return 0  # would take seconds, and nobody may read so far
    while size > 0:
        crc, size = zlib.crc32(zeros[: min(size, len(zeros))], crc), size - len(zeros)
    return crc


def _legacy_big_storage(size: int) -> Callable[[Path], Path]:
    body = items({"0.weight": stored_tensor("big", (5, 4), numel=size // 4)})
    start = legacy(body, ("big",), struct.pack("<Q", size // 4))
    return sparse("m.pth", start, len(start) + size)


def _header(**changes: Any) -> str:
    header = {"schema": "fls-bench/bundle/1", "architecture": {"name": None}}
    return json.dumps(header | changes)


def _bundle_ops(tensors: bytes, **changes: Any) -> bytes:
    return items({"fls_bench": text(_header(**changes)), "tensors": tensors})


def _sizes() -> Iterator[HostileFile]:
    def case(name: str, make: Callable[[Path], Path], ends: Ends = Ends.REFUSED) -> HostileFile:
        return HostileFile(name, "sizes", make, ends)

    for name, start in {
        "zip": b"PK\3\4",
        "zip end": b"PK\5\6" + bytes(18),
        "legacy": LEGACY_HEAD,
        "safetensors": struct.pack("<Q", 2 * GIB) + b"{",
        "safetensors, a header of 16 MiB": struct.pack("<Q", 16 * 2**20) + b'{"',
        "JSON": b'{"weight_map": {',
        "JSON, spaces": b'{"weight_map"' + b" " * 1000,
        "pickle": b"\x80\x02",
        "text pickle": b"cos\nsystem\n",
        "zeros": b"",
        "HDF5": b"\x89HDF\r\n\x1a\n",
    }.items():
        for size in (3 * GIB, 15 * GIB, 2**40):
            yield case(f"{name} and nothing, {size // GIB} GiB", sparse("m.pt", start, size))
    huge = {
        "10^12 numbers announced": {"numel": 10**12},
        "2^63 numbers announced": {"numel": 2**63},
        "2^62 numbers announced": {"numel": 2**62},
        "2^2000 numbers announced": {"numel": 2**2000},
        "minus one number announced": {"numel": -1},
        "numbers announced as text": {"numel": "20"},
        "shape of 10^12": {"shape": (10**12,)},
        "shape of 10^12, expanded": {"shape": (10**12,), "stride": (0,)},
        "shape of 10^6 x 10^6": {"shape": (10**6, 10**6)},
        "shape of 10^6 x 10^6, expanded": {"shape": (10**6, 10**6), "stride": (0, 0)},
        "shape of 2^62 x 16": {"shape": (2**62,) * 16, "stride": (0,) * 16},
        "shape of 17 axes": {"shape": (1,) * 17},
        "shape of 10^5 axes": {"shape": (1,) * 10**5, "stride": (0,) * 10**5},
        "negative shape": {"shape": (-5, -4), "stride": (4, 1)},
        "shape of floats": {"shape": (5.0, 4.0), "stride": (4, 1)},
        "shape of truths": {"shape": (True, True), "stride": (1, 1)},
        "shape as a list": {"shape": [5, 4], "stride": (4, 1)},
        "shape with None": {"shape": (5, None), "stride": (4, 1)},
        "empty shape": {"shape": ()},
        "shape of zero": {"shape": (0, 4)},
        "huge stride": {"stride": (2**62, 1)},
        "stride that overflows": {"stride": (2**63 - 1, 2**63 - 1)},
        "negative stride": {"stride": (-4, 1)},
        "stride beyond 2^63": {"stride": (2**64, 1)},
        "fewer strides": {"stride": (1,)},
        "expanded in the right shape": {"stride": (0, 0), "numel": 1},
        "overlapping rows": {"stride": (1, 1)},
        "huge offset": {"offset": 2**62},
        "offset that overflows": {"offset": 2**63 - 1},
        "negative offset": {"offset": -1},
        "offset by one": {"offset": 1},
        "offset as a float": {"offset": 0.0},
        "record missing": {"key": "99"},
        "record outside": {"key": "../../etc/passwd"},
        "record above": {"key": "../data.pkl"},
        "record with NUL": {"key": "0\0"},
        "record of a long name": {"key": "9" * 100_000},
        "record of twice the size": {"kind": "DoubleStorage"},
        "numbers of another kind": {"kind": "IntStorage"},
        "storage of an unknown kind": {"kind": "EvilStorage"},
        "complex storage": {"kind": "ComplexFloatStorage"},
        "untyped storage": {"kind": "UntypedStorage"},
    }
    loose = {"overlapping rows", "numbers of another kind", "expanded in the right shape"}
    for name, change in huge.items():
        made = _weight(**change)
        yield case(name, made, Ends.UNFIT if name not in loose else Ends.ANY)
        if name in ("shape of 2^62 x 16", "10^12 numbers announced", "huge stride", "huge offset"):
            given = {"key": "0", "shape": (5, 4), "numel": 20} | change
            body = items({"0.weight": stored_tensor(**given)})
            storage = struct.pack("<Q", 20) + RECORDS["0"]
            yield case(f"{name}, legacy", put("m.pth", legacy(body, ("0",), storage)), Ends.UNFIT)
    vast = stored_tensor("0", (2**62,) * 16, (0,) * 16, numel=20)
    many = b"".join(
        text(f"final/{i}") + (vast + b"q\x01" if i == 0 else b"h\x01") for i in range(9999)
    )
    yield case(
        "a model file that announces 10^310 bytes", torch_zip(_bundle_ops(b"}(" + many + b"u"))
    )
    for size in (GIB - 2**20, GIB + GIB // 2, 14 * GIB):
        said = f"{size / GIB:.2g} GiB"
        yield case(f"view into a storage of {said}", _big_storage(size), Ends.ANY)
        yield case(f"view into a storage of {said}, legacy", _legacy_big_storage(size), Ends.ANY)

    def model_file(folder: Path) -> Path:
        size = GIB - 2**20
        tensors = items({"final/w": stored_tensor("big", (size // 4,), numel=size // 4)})
        body = b"\x80\x02" + _bundle_ops(tensors) + b"."
        entry = Entry(b"m/data/big", size=size, crc=_crc_of_zeros(size))
        return zip_into(folder / "m.pt", [*torch_entries(body, {}), entry])

    yield case("model file with one tensor of 1 GiB", model_file, Ends.ANY)

    def spread(folder: Path) -> Path:
        size = 150 * 2**20
        changes = {
            name.replace(".", "__"): stored_tensor(f"b{i}", tuple(value.shape), numel=size // 4)
            for i, (name, value) in enumerate(STATE.items())
            if value.is_floating_point()
        }
        body = b"\x80\x02" + items(state_ops(**changes)) + b"."
        big = [Entry(f"m/data/b{i}".encode(), size=size, crc=0) for i in range(7)]
        return zip_into(folder / "m.pt", [*torch_entries(body), *big])

    yield case("each weight in a storage of 150 MiB", spread, Ends.UNFIT)
    for name, entry in {
        "data.pkl": Entry(b"m/data.pkl", GOOD_PKL, size=12 * GIB),
        "data.pkl just below the limit": Entry(b"m/data.pkl", GOOD_PKL, size=16 * 2**20),
        "byteorder": Entry(b"m/byteorder", b"little", size=12 * GIB),
        "a byteorder of 1.5 GiB": Entry(b"m/byteorder", b"little", size=GIB + GIB // 2),
        "records that are not read": Entry(b"m/data/optimizer", size=15 * GIB),
        "a file behind": Entry(b"m/version", size=15 * GIB),
    }.items():
        rest = [one for one in torch_entries(GOOD_PKL) if one.name != entry.name]
        yield case(f"gigabytes in {name}", zipped([*rest, entry]), Ends.ANY)

    # Steps: as many as are allowed, and more, of every cost.
    for name, step in {
        "None": b"N",
        "truth": b"\x88",
        "small numbers": b"K\x01",
        "tuples": b"\x85",
        "empty dicts": b"}",
        "empty lists": b"]",
        "sets that are thrown away": b"\x8f0",
        "looks into the memo": b"h\x00",
        "memo entries": b"\x94",
        "marks": b"(",
        "frames": b"\x95" + bytes(8),
        "protocols": b"\x80\x02",
        "globals": b"ctorch\nSize\n",
        "text numbers": b"I1\n",
        "text": b"\x8c\x00",
        "calls": b"ctorch\nSize\n)R0",
        "appends": b"]Na0",
    }.items():
        room = 15 * 2**20 // len(step)
        for label, num in (("many", min(room, 450_000)), ("too many", min(room, 2_100_000))):

            def content(step: bytes = step, num: int = num) -> bytes:
                return b"\x80\x02]q\x000(N" + step * num + b"."

            if name in ("None", "tuples", "marks", "globals"):
                yield case(f"{label} steps: {name}, raw", later("m.pkl", content))

            def in_zip(folder: Path, content: Callable[[], bytes] = content) -> Path:
                return zip_into(folder / "m.pt", torch_entries(content()))

            yield case(f"{label} steps: {name}", in_zip, Ends.ANY)
    steps = b"\x80\x02](" + b"N" * 1_900_000 + b"e."
    slow = b"\x80\x02](N" + b"\x8f0" * 900_000 + b"e."
    yield case("eight pickles of two million steps", later("m.pkl", lambda: steps * 8))
    yield case("eight slow pickles", later("m.pkl", lambda: slow * 8))
    yield case(
        "legacy, every part of many steps",
        later("m.pth", lambda: LEGACY_HEAD[:15] + steps + slow + slow + slow),
    )

    def settings(value: bytes) -> Callable[[Path], Path]:
        return torch_zip(items({"state_dict": items(state_ops()), "settings": value}))

    # A value beside good weights that is dear to walk over.
    for name, value in {
        "shared lists, 2^200": b"]" + b"q\x01" + b"](h\x01h\x01eq\x01" * 200,
        "shared dicts, 2^200": b"}q\x01"
        + (b"}(" + text("a") + b"h\x01" + text("b") + b"h\x01uq\x01") * 200,
        "shared tuples, 2^200": b")q\x01" + b"h\x01h\x01\x86q\x01" * 200,
        "shared wide lists, 1000^7": b"]q\x01" + (b"](" + b"h\x01" * 1000 + b"eq\x01") * 7,
        "nested lists": b"](" * 99_999 + b"e" * 99_999,
        "nested dicts": (b"}" + b"K\x01") * 99_999 + b"N" + b"s" * 99_999,
        "nested tuples": b")" + b"\x85" * 200_000,
        "nested marks": b"(" * 200_000 + b"t" * 200_000,
        "a list that holds itself": b"]q\x01h\x01a",
        "a dict that holds itself": b"}q\x01" + text("me") + b"h\x01s",
        "a list in a tuple in the list": b"]q\x01h\x01\x85a",
        "two dicts that hold each other": b"}q\x01"
        + text("a")
        + b"}q\x02"
        + text("b")
        + b"h\x01ss",
        "a wide dict that holds itself": b"}q\x01("
        + b"".join(text(f"k{i}") + b"h\x01" for i in range(999))
        + b"u",
        "hash bomb": b"}" + b")q\x01" + b"h\x01h\x01\x86q\x01" * 200 + b"K\x01s",
        "hash bomb in a set": b"\x8f(" + b")q\x01" + b"h\x01h\x01\x86q\x01" * 200 + b"\x90",
        "hash bomb in a frozen set": b"(" + b")q\x01" + b"h\x01h\x01\x86q\x01" * 200 + b"\x91",
        "extended by itself": b"]q\x01(" + b"h\x01" * 9999 + b"e",
        "a number of 2^2000": ops(2**2000),
        "a number of 2^(10^6)": b"\x8b" + struct.pack("<I", 125_000) + b"\x7f" * 125_000,
        "a number of a million digits": b"L" + b"9" * 10**6 + b"L\n",
        "text that announces 4 GiB": b"X\xff\xff\xff\xff",
        "text that announces 2^63": b"\x8d" + struct.pack("<Q", 2**63),
        "bytes that announce 2^63": b"\x8e" + struct.pack("<Q", 2**63),
        "bytearray that announces 2^62": b"\x96" + struct.pack("<Q", 2**62),
        "a frame that announces 2^63": b"\x95" + struct.pack("<Q", 2**63) + b"N",
        "memo entry 2^31": b"Nr\xff\xff\xff\x7f",
        "memo entry 10^30": b"Np" + b"9" * 30 + b"\n",
        "memo entry that is not there": b"h\xfe",
        "10 MB of text": text("x" * 10**7),
    }.items():
        yield case(f"{name}, in settings", settings(value), Ends.ANY)
        yield case(f"{name}, alone", torch_zip(value), Ends.ANY)
        yield case(f"{name}, legacy", put("m.pth", legacy(value)), Ends.ANY)
    wide = text("x" * 2**20) + b"](" + stored_tensor() + b"q\x01" + b"h\x01" * 200_000 + b"e"
    yield case("200,000 tensors under a name of 1 MiB", torch_zip(b"}(" + wide + b"u"), Ends.ANY)
    deep = b"N"
    for _ in range(11):
        deep = b"}(" + text("x" * 2**20) + b"](" + deep + b"h\x01" * 5_000 + b"eu"
    yield case("long names of long names", torch_zip(stored_tensor() + b"q\x010" + deep), Ends.ANY)
    for name, one in {
        "a name of 10 MB": "x" * 10**7,
        "a name of dots": "." * 10**6,
        "a name of wrappers": "_orig_mod." * 100_000,
        "a name of module.": "module." * 80,
        "a name near to another": "0.weigh" * 80,
    }.items():
        yield case(name, torch_zip(items(state_ops(**{one: stored_tensor()}))), Ends.ANY)
        yield case(f"{name}, no other", torch_zip(items({one: stored_tensor()})), Ends.UNFIT)

    def tensors(name: Callable[[int], str], num: int, *, good: bool) -> Callable[[], bytes]:
        def content() -> bytes:
            first = stored_tensor("0", (5, 4), numel=20) + b"q\x010}("
            rest = b"".join(text(name(i)) + b"h\x01" for i in range(num))
            more = b"".join(text(str(k)) + v for k, v in state_ops().items()) if good else b""
            return b"\x80\x02" + first + more + rest + b"u."

        return content

    for label, name, num in (
        ("100,000 tensors", lambda i: f"w{i}", 100_000),
        ("100,000 layers", lambda i: f"{i}.weight", 100_000),
        ("100,000 nets", lambda i: f"net{i}.0.weight", 100_000),
        ("25,000 names of dots", lambda i: f"{i}" + ".a" * 290, 25_000),
        ("25,000 names of only dots", lambda i: "." * 590 + f"{i}", 25_000),
        ("20,000 names of wrappers", lambda i: "_orig_mod." * 58 + f"{i}", 20_000),
        ("150,000 numbers as names", lambda i: str(i), 150_000),
    ):
        for good in (True, False):
            content = tensors(name, num, good=good)

            def write(folder: Path, content: Callable[[], bytes] = content) -> Path:
                return zip_into(folder / "m.pt", torch_entries(content()))

            said = "beside the weights" if good else "and no others"
            yield case(f"{label} {said}", write, Ends.ANY)
    # A million names out of two megabytes: one dict of 999 tensors under a thousand long keys.
    for letter in ("a", "\U00020000"):
        inner = {f"{i}": stored_tensor("0") if i == 0 else b"h\x05" for i in range(999)}
        inner["0"] += b"q\x05"
        outer: dict[str | bytes, bytes] = {
            f"{letter * 550}{i}": items(dict(inner)) + b"q\x06" if i == 0 else b"h\x06"
            for i in range(1000)
        }

        body = b"\x80\x02" + items(outer) + b"."

        def shared(folder: Path, body: bytes = body) -> Path:
            return zip_into(folder / "m.pt", torch_entries(body))

        yield case(f"a million names out of one dict, {letter!a}", shared, Ends.ANY)
    keys = b"](" + text("0") + b"q\x01" + b"h\x01" * 400_000 + b"e"
    none = items({"w": stored_tensor("0", (0,), numel=0)})
    yield case(
        "legacy, one storage a million times",
        lambda folder: sparse("m.pth", legacy(none, keys), len(legacy(none, keys)) + 8 * 400_001)(
            folder
        ),
        Ends.ANY,
    )
    far = b"](" + stored_tensor("0", numel=2**62) + stored_tensor("1", numel=2**62) + b"e"
    place = legacy(far, ("0", "1"), struct.pack("<Q", 2**62) + bytes(64))
    yield case("legacy, a storage that ends beyond 2^63", put("m.pth", place))
    yield case("legacy, storages that are not in the file", put("m.pth", legacy(far, ("0", "1"))))
    yield case("legacy, keys that are no list", put("m.pth", legacy(far, b"}")), Ends.ANY)
    yield case("legacy, keys that are lists", put("m.pth", legacy(far, b"]](]ea")), Ends.ANY)
    for system in ({}, {"little_endian": False}, [1], {"little_endian": 1}, None):
        made = put("m.pth", legacy(items(state_ops()), (), b"", system))
        yield case(f"legacy, written on {system!r}", made)


# --- contents -------------------------------------------------------------------------------------


def _of_torch(value: object, **options: Any) -> Callable[[Path], Path]:
    return later("m.pt", lambda: saved(value, **options))


def _odd_tensors() -> dict[str, tuple[torch.Tensor, Ends]]:
    weight = STATE["0.weight"].clone()

    def filled(place: int, value: float) -> torch.Tensor:
        changed = weight.clone()
        changed.view(-1)[place] = value
        return changed

    return {
        "one NaN": (filled(7, float("nan")), Ends.UNFIT),
        "all NaN": (torch.full_like(weight, float("nan")), Ends.UNFIT),
        "infinite": (filled(0, float("inf")), Ends.UNFIT),
        "minus infinite": (filled(19, float("-inf")), Ends.UNFIT),
        "1e38 each": (torch.full_like(weight, 1e38), Ends.ANY),
        "3e38 and -3e38": (filled(0, 3e38).index_fill(0, torch.tensor(1), -3e38), Ends.ANY),
        "denormal": (torch.full_like(weight, 1e-45), Ends.ANY),
        "zeros": (torch.zeros_like(weight), Ends.ANY),
        "1e300 in double": (torch.full((5, 4), 1e300, dtype=torch.float64), Ends.ANY),
        "half NaN": (torch.full((5, 4), float("nan")).half(), Ends.UNFIT),
        "half": (weight.half(), Ends.ANY),
        "bfloat16 infinite": (torch.full((5, 4), float("inf")).bfloat16(), Ends.UNFIT),
        "complex": (weight.to(torch.cfloat), Ends.REFUSED),
        "complex double": (weight.to(torch.cdouble), Ends.REFUSED),
        "complex half": (weight.to(torch.complex32), Ends.REFUSED),
        "int8": ((weight * 100).to(torch.int8), Ends.UNFIT),
        "int64": (weight.to(torch.int64), Ends.UNFIT),
        "uint8": (weight.to(torch.uint8), Ends.UNFIT),
        "bool": (weight > 0, Ends.UNFIT),
        "uint16": (weight.abs().to(torch.uint16), Ends.REFUSED),
        "float8": (weight.to(torch.float8_e4m3fn), Ends.REFUSED),
        "float8 of the other kind": (weight.to(torch.float8_e5m2), Ends.REFUSED),
        "sparse": (weight.to_sparse(), Ends.REFUSED),
        "compressed sparse": (weight.to_sparse_csr(), Ends.REFUSED),
        "quantized": (torch.quantize_per_tensor(weight, 0.1, 0, torch.qint8), Ends.REFUSED),
        "quantized by channel": (
            torch.quantize_per_channel(weight, torch.ones(5), torch.zeros(5), 0, torch.qint8),
            Ends.REFUSED,
        ),
        "nested": (torch.nested.nested_tensor([weight[0], weight[1, :2]]), Ends.REFUSED),
        "meta": (torch.ones(5, 4, device="meta"), Ends.REFUSED),
        "a lazy parameter": (nn.parameter.UninitializedParameter(), Ends.REFUSED),
        "conjugate": (weight.to(torch.cfloat).conj(), Ends.REFUSED),
        "negated lazily": (torch._neg_view(weight), Ends.REFUSED),
        "transposed": (weight.T.contiguous().T, Ends.ANY),
        "of another shape": (weight.T.contiguous(), Ends.UNFIT),
        "of one axis": (weight.flatten(), Ends.UNFIT),
        "of one more axis": (weight[None], Ends.UNFIT),
        "one number": (torch.tensor(1.0), Ends.UNFIT),
        "empty": (torch.ones(0, 4), Ends.UNFIT),
        "empty of 10^9": (torch.ones(0, 10**9), Ends.UNFIT),
        "expanded": (torch.ones(1).expand(5, 4), Ends.ANY),
        "expanded to 10^12": (torch.ones(1).expand(10**12), Ends.UNFIT),
        "expanded to 10^6 x 10^6": (torch.ones(1).expand(10**6, 10**6), Ends.UNFIT),
        "with a gradient": (weight.clone().requires_grad_(), Ends.ANY),
        "a parameter": (nn.Parameter(weight.clone()), Ends.ANY),
        "a buffer": (nn.Buffer(weight.clone()), Ends.ANY),
    }


def _contents() -> Iterator[HostileFile]:
    def case(name: str, make: Callable[[Path], Path], ends: Ends) -> HostileFile:
        return HostileFile(name, "contents", make, ends)

    for name, (value, ends) in _odd_tensors().items():
        yield case(f"a weight is {name}", _of_torch(STATE | {"0.weight": value}), ends)
    for buffer, values in {
        "1.running_var": (-1.0, 0.0, float("nan"), 1e38, -1e38, 1e-45),
        "1.running_mean": (float("inf"), 3e38),
        "1.num_batches_tracked": (-1, 2**62),
    }.items():
        for value in values:
            finite = np.isfinite(value)
            state = STATE | {buffer: torch.full_like(STATE[buffer], value)}
            yield case(f"{buffer} is {value}", _of_torch(state), Ends.ANY if finite else Ends.UNFIT)
    everything = {
        name: torch.full_like(value, 3e38) for name, value in STATE.items() if "num" not in name
    }
    yield case("all weights are 3e38", _of_torch(STATE | everything), Ends.ANY)
    for scale in (0.0, 1e-38, 1e19, 1e36):
        state = {k: v * scale if v.is_floating_point() else v for k, v in STATE.items()}
        yield case(f"all weights times {scale}", _of_torch(state), Ends.ANY)
    for name in STATE:
        less = {k: v for k, v in STATE.items() if k != name}
        yield case(f"{name} missing", _of_torch(less), Ends.ANY if "num_b" in name else Ends.UNFIT)
        odd = {"\x1b[31m" + k if k == name else k: v for k, v in STATE.items()}
        yield case(f"{name} with an escape", _of_torch(odd), Ends.REFUSED)
    ones = torch.ones(3)
    for bad in (
        "\x1b[2J",
        "a\x07",
        "a\nerror: fine",
        "\u202eb",
        "a\0b",
        "\ud800",
        "\x7f",
        "\u2028",
        "\ufeff",
        "\u200b",
        "a\tb",
    ):
        yield case(f"a name {bad!a}", _of_torch(STATE | {bad: ones}), Ends.REFUSED)
        yield case(f"a key {bad!a}", _of_torch({bad: STATE}), Ends.REFUSED)
        yield case(
            f"a setting {bad!a}", _of_torch({"model": STATE, "epoch": bad, bad: bad}), Ends.ANY
        )
    for odd in (
        "",
        " ",
        ".",
        "..",
        ".*",
        "(a+)+$",
        "[",
        "\\",
        "a.*.b",
        "(?:",
        "%s%s%n",
        "{0.__class__}",
        "'",
        '"',
        "../../evil",
        "</script>",
        "0.weight.0.weight",
        "é",
        "名",
        "[link](x)",
        "a" * 600,
        "$(touch executed)",
    ):
        yield case(f"a stray name {odd[:20]!r}", _of_torch(STATE | {odd: ones}), Ends.ANY)
        yield case(f"weights under {odd[:20]!r}", _of_torch({odd: STATE}), Ends.ANY)
        yield case(f"only a name {odd[:20]!r}", _of_torch({odd: ones}), Ends.UNFIT)
    renamed = {k.replace("weight", "wieght"): v for k, v in STATE.items()}
    yield case("misspelt", _of_torch(renamed), Ends.UNFIT)
    yield case(
        "twice", _of_torch({"a": STATE, "b": {k: v + 1 for k, v in STATE.items()}}), Ends.UNFIT
    )
    yield case("twice the same", _of_torch({"a": STATE, "b": STATE}), Ends.ANY)
    yield case(
        "a hundred times",
        _of_torch({f"net{i}": {k: v + i for k, v in STATE.items()} for i in range(100)}),
        Ends.UNFIT,
    )
    yield case("a small part", _of_torch(STATE | {"more": torch.ones(10_000)}), Ends.ANY)
    for name, value in {
        "a tensor": ones,
        "a list of tensors": [ones, ones],
        "a tuple of tensors": (ones, ones),
        "a list of state dicts": [STATE],
        "nested lists of tensors": [[ones], [[ones]]],
        "None": None,
        "a number": 3,
        "text": "x",
        "an empty dict": {},
        "an empty list": [],
        "a dict of numbers": {"a": 1},
        "tensors by number": {0: ones, 1: ones},
        "tensors by truth": {True: ones},
        "tensors by None": {None: ones},
        "tensors by tuple": {(1, 2): ones},
        "weights in a tuple": ("x", STATE),
        "an OrderedDict": OrderedDict(STATE),
        "a defaultdict": defaultdict(list, STATE),
        "a set": {1, 2},
        "bytes": b"x",
        "a slice": slice(3),
        "a complex number": 1j,
        "two names that are one": {"a": {"b": ones}, "a.b": ones + 1},
        "weights in lists": {"nets": [STATE, STATE]},
        "an int key of 2^500": {2**500: ones},
        "a header and no tensors": {"fls_bench": _header()},
        "a header and weights": {"fls_bench": _header(), "model": STATE},
        "a header of another kind": {"fls_bench": 3, "model": STATE},
        "a header that is text": {"fls_bench": "x", "model": STATE},
        "a header that is long": {"fls_bench": "x" * 10**7, "model": STATE},
        "a header nested without end": {"fls_bench": "[" * 99_999, "model": STATE},
        "a header with an escape": {"fls_bench": _header(feature_layer="\x1b[2J"), "model": STATE},
        "tensors and no header": {"fls_bench": None, "tensors": STATE},
    }.items():
        yield case(f"the value is {name}", _of_torch(value), Ends.ANY)
        if name != "a complex number":
            made = _of_torch(value, _use_new_zipfile_serialization=False)
            yield case(f"the value is {name}, legacy", made, Ends.ANY)
    # Claims of the file about its training: what is said must be a number that can be shown.
    for key in (
        "epoch",
        "global_step",
        "train_loss",
        "loss",
        "pytorch-lightning_version",
        "callbacks",
    ):
        for said in (
            2**2000,
            -1,
            float("nan"),
            float("inf"),
            -float("inf"),
            1e308,
            True,
            None,
            "x" * 10**6,
            "\x1b[2J",
            [1],
            {"a": {"monitor": "train_loss\x1b", "current_score": ones}},
            {"a": {"monitor": "train_loss" * 999, "current_score": torch.tensor(float("nan"))}},
            torch.tensor(float("nan")),
            torch.tensor(2**62),
            torch.ones(3),
            torch.ones(1, 1),
            torch.tensor(1e300, dtype=torch.float64),
            {1: 2},
            10**300,
        ):
            shown = repr(said)[:30].replace("\n", " ")
            made = _of_torch({"state_dict": STATE, key: said})
            yield case(f"{key} is {shown} ({type(said).__name__}{len(repr(said))})", made, Ends.ANY)
    missing = items({"state_dict": items(state_ops()), "loss": stored_tensor("99", ())})
    yield case("the loss's record is missing", torch_zip(missing), Ends.ANY)
    far = items({"state_dict": items(state_ops()), "loss": stored_tensor("0", (), numel=10**12)})
    yield case("the loss lies in a storage of 10^12", torch_zip(far), Ends.ANY)
    # Settings of the net and of training in a header of ours.
    for name, changes in {
        "c of 1e308": {"output_multiplier": 1e308},
        "c of 1e-308": {"output_multiplier": 1e-308},
        "init scale of 1e300": {"init_scale": 1e300},
        "init scale of 1e-300": {"init_scale": 1e-300},
        "a layer that is not there": {"feature_layer": "nope"},
        "a long layer": {"feature_layer": "x" * 9999},
        "an odd digest": {"init_digest": "x"},
        "a claim of 1e308": {"outcome": {"train_loss": 1e308}},
        "a centered net": {"centered": True},
        "a path as net": {"architecture": {"name": "os:system"}},
        "a task that is a path": {"task": {"name": "/etc/passwd"}},
        "a task that is a URL": {"task": {"name": "http://127.0.0.1:9/x.npz"}},
        "a net of 10^12": {
            "architecture": {
                "name": "mlp",
                "arguments": {"input_dim": 4, "n_outputs": 3, "width": 10**12},
            }
        },
        "a net of 10^6 layers": {
            "architecture": {
                "name": "mlp",
                "arguments": {"input_dim": 4, "n_outputs": 3, "depth": 10**6},
            }
        },
        "a net of a gigabyte": {
            "architecture": {
                "name": "mlp",
                "arguments": {"input_dim": 10**5, "n_outputs": 10**5, "width": 10**5},
            }
        },
    }.items():
        tensors = {f"final/{k}": v for k, v in STATE.items()}
        header = _header(**changes)
        yield case(
            f"model file with {name}",
            _of_torch({"fls_bench": header, "tensors": tensors}),
            Ends.ANY,
        )
        record = {"fls_bench": header.replace("bundle/1", "bundle/2"), "model": STATE}
        yield case(f"checkpoint with {name}", _of_torch(record), Ends.ANY)
    for name, (x, y) in {
        "labels up to 10^9": (torch.ones(4, 4), torch.tensor([0, 1, 2, 10**9])),
        "labels up to 2^62": (torch.ones(4, 4), torch.tensor([0, 1, 2, 2**62])),
        "negative labels": (torch.ones(4, 4), torch.tensor([0, 1, 2, -5])),
        "labels that are floats": (torch.ones(4, 4), torch.tensor([0.5, 1, 2, 3])),
        "inputs of NaN": (torch.full((4, 4), float("nan")), torch.arange(4)),
        "inputs of 3e38": (torch.full((4, 4), 3e38), torch.arange(4) % 3),
        "one point": (torch.ones(1, 4), torch.zeros(1, dtype=torch.int64)),
        "no classes": (torch.ones(4, 4), torch.zeros(4, dtype=torch.int64)),
    }.items():
        arrays = {
            f"data/{a}_{s}": v for a, v in (("x", x), ("y", y)) for s in ("train", "val", "test")
        }
        tensors = {f"final/{k}": v for k, v in STATE.items()} | arrays
        header = _header(task={"name": "mine", "embedded": True})
        made = _of_torch({"fls_bench": header, "tensors": tensors})
        yield case(f"model file with {name}", made, Ends.ANY)


# --- safetensors ----------------------------------------------------------------------------------


def _st(header: object, data: bytes = b"", length: int | None = None) -> bytes:
    said = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(said) if length is None else length) + said + data


def _one(shape: object, begin: object, end: object, dtype: object = "F32") -> dict[str, Any]:
    return {"dtype": dtype, "shape": shape, "data_offsets": [begin, end]}


def _good_st(**changes: Any) -> bytes:
    header: dict[str, Any] = {}
    data = b""
    for name, value in STATE.items():
        content = value.numpy().tobytes()
        kind = "F32" if value.is_floating_point() else "I64"
        header[name] = _one(list(value.shape), len(data), len(data) + len(content), kind)
        data += content
    return _st(header | changes, data)


def _safetensors() -> Iterator[HostileFile]:
    def case(name: str, content: bytes, ends: Ends = Ends.REFUSED) -> HostileFile:
        return HostileFile(
            f"safetensors, {name}", "safetensors", put("m.safetensors", content), ends
        )

    def dear(name: str, content: Callable[[], bytes], ends: Ends = Ends.ANY) -> HostileFile:
        make = later("m.safetensors", content)
        return HostileFile(f"safetensors, {name}", "safetensors", make, ends)

    yield case("good", _good_st(), Ends.ANY)
    four = bytes(4)
    a = _one([1], 0, 4)
    for length in (0, 1, 2**31, 2**32, 2**40, 2**63 - 1, 2**63, 2**64 - 1, 100, 16 * 2**20 + 1):
        yield case(f"a length of {length}", _st({"a": a}, four, length))
    for name, header in {
        "nothing": b"",
        "an empty object": b"{}",
        "a list": b"[]",
        "null": b"null",
        "broken off": b'{"a": {',
        "braces": b"{" * 999,
        "brackets": b'{"a":' + b"[" * 9999,
        "deep": b'{"a":' * 9999 + b"1" + b"}" * 9999,
        "a number of many digits": b'{"a":' + b"9" * 99_999 + b"}",
        "an escape": b'{"\\u001b": 1}',
        "a lone surrogate": b'{"\\ud800": 1}',
        "bytes that are no text": b'{"\xff\xfe": 1}',
        "a comment": b'{/* x */"a": 1}',
        "two objects": b"{}{}",
        "a pickle": b"{\x80\x02cos\nsystem\n.",
        "NaN": b'{"a": NaN}',
        "trailing comma": b'{"a": 1,}',
        "NUL": b'{"a\\u0000b": {}}',
    }.items():
        yield case(f"a header of {name}", _st(header, four))
    for name, entry in {
        "10^12 numbers": _one([10**12], 0, 4 * 10**12),
        "10^12 in 4 bytes": _one([10**12], 0, 4),
        "2^63 numbers": _one([2**63], 0, 4),
        "2^64 numbers": _one([2**64], 0, 4),
        "a product that overflows": _one([2**32, 2**32, 2**32], 0, 4),
        "a product that overflows to 4": _one([2**62, 4, 1], 0, 0),
        "offsets beyond 2^63": _one([1], 2**63, 2**63 + 4),
        "offsets that wrap": _one([1], 2**64 - 4, 2**64),
        "offsets turned round": _one([1], 4, 0),
        "negative offsets": _one([1], -4, 0),
        "negative shape": _one([-1], 0, 4),
        "no shape": _one([], 0, 4),
        "shape of text": _one("1", 0, 4),
        "shape of floats": _one([1.5], 0, 4),
        "shape of null": _one(None, 0, 4),
        "10^5 axes": _one([1] * 10**5, 0, 4),
        "unknown type": _one([1], 0, 4, "EVIL"),
        "type of null": _one([1], 0, 4, None),
        "type of wrong size": _one([1], 0, 4, "F64"),
        "float8": _one([4], 0, 4, "F8_E4M3"),
        "float4": _one([8], 0, 4, "F4"),
        "complex": _one([1], 0, 4, "C64"),
        "unsigned": _one([1], 0, 4, "U32"),
        "offsets missing": {"dtype": "F32", "shape": [1]},
        "one offset": {"dtype": "F32", "shape": [1], "data_offsets": [0]},
        "three offsets": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4, 4]},
        "one more key": a | {"evil": 1},
        "not an object": 3,
        "null": None,
        "a list": [1],
        "empty": {},
        "empty tensor": _one([0], 0, 0),
        "empty of 10^18": _one([10**9, 10**9, 0], 0, 0),
    }.items():
        yield case(f"{name}", _st({"0.weight": entry}, four), Ends.UNFIT)
    yield case("overlap", _st({"a": a, "b": a}, four))
    yield case("partial overlap", _st({"a": _one([2], 0, 8), "b": _one([2], 4, 12)}, bytes(12)))
    yield case("a hole", _st({"a": a, "b": _one([1], 8, 12)}, bytes(12)))
    yield case("bytes behind", _st({"a": a}, bytes(8)))
    yield case("bytes missing", _st({"a": a}, bytes(3)))
    yield case(
        "a name twice",
        _st(b'{"a":' + json.dumps(a).encode() + b',"a":' + json.dumps(a).encode() + b"}", four),
        Ends.ANY,
    )
    for name, meta in {
        "text": "x",
        "null": None,
        "a list": [],
        "numbers": {"a": 1},
        "nested": {"a": {"b": "c"}},
        "null inside": {"a": None},
        "a header": {"fls_bench": _header()},
        "a bad header": {"fls_bench": "["},
        "an escape": {"\x1b[2J": "\x1b[2J"},
        "much": {"a": "x" * 10**7},
        "a long header": {"fls_bench": "x" * 10**7},
        "a class": {"format": "pt'); import os"},
    }.items():
        yield case(f"metadata of {name}", _good_st(__metadata__=meta), Ends.ANY)
    nan = struct.pack("<20f", *[float("nan")] * 20)
    rest = json.loads(_good_st()[8:].split(b"}}")[0] + b"}}")
    body = _good_st()[8 + int.from_bytes(_good_st()[:8], "little") :]
    yield case("NaN", _st(rest, nan + body[80:]), Ends.UNFIT)
    for kind, size in (
        ("F16", 2),
        ("BF16", 2),
        ("F64", 8),
        ("I32", 4),
        ("U8", 1),
        ("BOOL", 1),
        ("F8_E5M2", 1),
    ):
        header, data = dict(rest), b""
        for name, entry in rest.items():
            num = int(np.prod(entry["shape"]))
            header[name] = _one(entry["shape"], len(data), len(data) + num * size, kind)
            data += bytes(num * size)
        yield case(
            f"all {kind}",
            _st(header, data),
            Ends.ANY if kind in ("F16", "BF16", "F64") else Ends.UNFIT,
        )
    for bad in ("\x1b[2J", "\u202e", "a\nb", "", "x" * 9999, "__metadata__"):
        yield case(f"a name {bad[:20]!a}", _st({bad: a}, four), Ends.UNFIT)
    yield case("16 MiB of spaces", _st(b"{" + b" " * (16 * 2**20 - 2) + b"}"))
    yield dear(
        "16 MiB of empty tensors",
        lambda: _st(
            b"{"
            + b",".join(
                b'"%d":{"dtype":"F32","shape":[0],"data_offsets":[0,0]}' % i for i in range(290_000)
            )
            + b"}"
        ),
    )
    yield dear(
        "16 MiB of lists", lambda: _st(b'{"a":[' + b"[]," * 5_500_000 + b"[]]}"), Ends.REFUSED
    )
    yield dear(
        "16 MiB of metadata",
        lambda: _st(
            b'{"__metadata__":{' + b",".join(b'"%d":""' % i for i in range(1_200_000)) + b"}}"
        ),
    )
    yield dear(
        "16 MiB of names of dots",
        lambda: _st(
            b"{"
            + b",".join(
                b'"%d%s":{"dtype":"F32","shape":[0],"data_offsets":[0,0]}' % (i, b".a" * 290)
                for i in range(25_000)
            )
            + b"}"
        ),
    )

    def gigabytes(folder: Path) -> Path:
        size = 15 * GIB
        header = dict(rest) | {"more": _one([size // 4], len(body), len(body) + size)}
        start = _st(header, body)
        return sparse("m.safetensors", start, len(start) + size)(folder)

    yield HostileFile("safetensors, 15 GiB that are not read", "safetensors", gigabytes, Ends.ANY)

    def gigabyte(folder: Path) -> Path:
        size = GIB - 2**20
        header = {"final/w": _one([size // 4], 0, size), "__metadata__": {"fls_bench": _header()}}
        return sparse("m.safetensors", _st(header), len(_st(header)) + size)(folder)

    yield HostileFile("safetensors, a model file of 1 GiB", "safetensors", gigabyte, Ends.ANY)


# --- shards ---------------------------------------------------------------------------------------

INDEX = "model.safetensors.index.json"


def _split() -> tuple[bytes, bytes]:
    names = list(STATE)
    parts = []
    for group in (names[:4], names[4:]):
        header, data = {}, b""
        for name in group:
            content = STATE[name].numpy().tobytes()
            kind = "F32" if STATE[name].is_floating_point() else "I64"
            header[name] = _one(list(STATE[name].shape), len(data), len(data) + len(content), kind)
            data += content
        parts.append(_st(header, data))
    return parts[0], parts[1]


def _map(first: object = "a.safetensors", second: object = "b.safetensors") -> dict[str, Any]:
    return {name: first if i < 4 else second for i, name in enumerate(STATE)}


def _sharded_files(
    index: object, prepare: Callable[[Path], object] | None = None, shards: bool = True
) -> Callable[[Path], Path]:
    """An index, by default with good shards beside it; ``prepare`` changes them."""

    def make(folder: Path) -> Path:
        inside = folder / "model"
        inside.mkdir()
        one, two = _split()
        # Good shards also where no index may lead: reading them would look like success.
        for place in (folder, inside if shards else folder):
            (place / "a.safetensors").write_bytes(one)
            (place / "b.safetensors").write_bytes(two)
        if prepare is not None:
            prepare(inside)
        path = inside / INDEX
        if not path.exists():
            path.write_bytes(index if isinstance(index, bytes) else json.dumps(index).encode())
        return path

    return make


def _replaced(change: Callable[[Path], object]) -> Callable[[Path], None]:
    def prepare(folder: Path) -> None:
        (folder / "a.safetensors").unlink()
        change(folder / "a.safetensors")

    return prepare


def _listen(path: Path) -> None:
    """A socket in the file system; its path may have only some 100 characters."""
    here = os.getcwd()
    os.chdir(path.parent)
    try:
        with socket.socket(socket.AF_UNIX) as end:
            end.bind(path.name)
    finally:
        os.chdir(here)


def _shards() -> Iterator[HostileFile]:
    def case(name: str, make: Callable[[Path], Path], ends: Ends = Ends.REFUSED) -> HostileFile:
        return HostileFile(f"shards, {name}", "shards", make, ends)

    good = {"metadata": {"total_size": 9}, "weight_map": _map()}
    yield case("good", _sharded_files(good), Ends.ANY)
    yield case(
        "a folder of good ones", lambda folder: _sharded_files(good)(folder).parent, Ends.ANY
    )
    for outside in (
        "../a.safetensors",
        "/etc/passwd",
        "..",
        ".",
        "",
        "../../../../etc/passwd",
        "sub/a.safetensors",
        "./a.safetensors",
        "model/../../a.safetensors",
        "..\\a.safetensors",
        "C:\\a.safetensors",
        "//host/a.safetensors",
        "file:///etc/passwd",
        "http://127.0.0.1:9/a",
        "a.safetensors\0",
        "\0",
        "~",
        "~root",
        "$HOME",
        "x" * 300,
        "x" * 10**6,
        "a.safetensors/",
        "a.safetensors/..",
        "\ud800",
        "\udcff",
        "\x1b[2J",
        "\u202ea.safetensors",
        "a.safetensors\n",
        "/proc/self/mem",
        "/dev/zero",
        "/dev/stdin",
        "NUL",
        "*",
        "?",
    ):
        yield case(
            f"at {outside[:40]!a} ({len(outside)})", _sharded_files({"weight_map": _map(outside)})
        )
    beyond: dict[str, Callable[[Path], object]] = {
        "above": lambda path: path.symlink_to("../a.safetensors"),
        "absolute": lambda path: path.symlink_to(path.parent.parent / "a.safetensors"),
        "passwd": lambda path: path.symlink_to("/etc/passwd"),
        "zero": lambda path: path.symlink_to("/dev/zero"),
        "memory": lambda path: path.symlink_to("/proc/self/mem"),
        "itself": lambda path: path.symlink_to(path.name),
        "nothing": lambda path: path.symlink_to("nothing"),
        "the folder": lambda path: path.symlink_to("."),
        "the index": lambda path: path.symlink_to(INDEX),
        "a link that leads out": lambda path: (
            path.symlink_to("c"),
            (path.parent / "c").symlink_to("../a.safetensors"),
        ),
        "a loop of two": lambda path: (
            path.symlink_to("c"),
            (path.parent / "c").symlink_to("a.safetensors"),
        ),
        "a folder's file": lambda path: (
            (path.parent / "d").symlink_to(".."),
            path.symlink_to("d/a.safetensors"),
        ),
    }
    for name, change in beyond.items():
        yield case(f"a link to {name}", _sharded_files(good, _replaced(change)))
    one, two = _split()
    kinds: dict[str, Callable[[Path], object]] = {
        "missing": lambda path: None,
        "a pickle": lambda path: path.write_bytes(b"cos\nsystem\n(S'touch executed'\ntR."),
        "a folder": lambda path: path.mkdir(),
        "a pipe": lambda path: os.mkfifo(path),
        "a socket": _listen,
        "empty": lambda path: path.touch(),
        "a torch file": lambda path: path.write_bytes(saved(STATE)),
        "an index": lambda path: path.write_text(json.dumps(good)),
        "cut off": lambda path: path.write_bytes(one[:-9]),
        "cut off in its header": lambda path: path.write_bytes(one[:99]),
        "longer": lambda path: path.write_bytes(one + b"x"),
        "the other": lambda path: path.write_bytes(two),
        "without tensors": lambda path: path.write_bytes(_st({})),
        "with one more": lambda path: path.write_bytes(_good_st()),
        "of NaN": lambda path: path.write_bytes(one[:-80] + b"\xff" * 80),
        "100 GiB": lambda path: sparse(path.name, one, 100 * GIB)(path.parent),
        "zeros": lambda path: path.write_bytes(bytes(999)),
        "float8": lambda path: path.write_bytes(_st({"a": _one([4], 0, 4, "F8_E4M3")}, bytes(4))),
    }
    for name, change in kinds.items():
        ends = Ends.UNFIT if name == "of NaN" else Ends.REFUSED
        yield case(f"one is {name}", _sharded_files(good, _replaced(change)), ends)
    for name, weight_map in {
        "null": None,
        "a list": ["a.safetensors"],
        "text": "a.safetensors",
        "a number": 3,
        "empty": {},
        "of numbers": _map(1, 2),
        "of lists": _map(["a.safetensors"]),
        "of null": _map(None),
        "of truths": _map(True),
        "of objects": _map({}),
        "mixed": _map("a.safetensors", 2),
        "one shard for all": _map("a.safetensors", "a.safetensors"),
        "turned round": _map("b.safetensors", "a.safetensors"),
        "the index": _map(INDEX, INDEX),
        "one name more": _map() | {"more": "a.safetensors"},
        "one name less": {k: v for k, v in _map().items() if k != "0.weight"},
        "an odd name": _map() | {"\x1b[2J": "a.safetensors"},
        "1001 shards": {f"w{i}": f"{i}.safetensors" for i in range(1001)},
        "100,000 shards": {f"w{i}": f"{i}" for i in range(100_000)},
        "100,000 names": {f"w{i}": "a.safetensors" for i in range(100_000)},
        "a long name": {"x" * 10**6: "a.safetensors"},
    }.items():
        yield case(f"map is {name}", _sharded_files({"weight_map": weight_map}))
    for name, content in {
        "only the word": b'{"weight_map"',
        "a list": b'["weight_map"]',
        "deep": b'{"weight_map":' + b"[" * 10**6,
        "deep and closed": b'{"weight_map":' * 99_999 + b"1" + b"}" * 99_999,
        "digits": b'{"weight_map":{"a":' + b"9" * 10**6 + b"}}",
        "twice": b'{"weight_map":{},"weight_map":{"a":"../a"}}',
        "no text": b'{"weight_map":{"\xff":"a"}}',
        "UTF-16": '{"weight_map":{}}'.encode("utf-16"),
        "a mark first": b"\xef\xbb\xbf" + json.dumps(good).encode(),
        "NaN": b'{"weight_map":NaN}',
        "an exponent": b'{"weight_map":{"a":1e999999999}}',
        "trailing": json.dumps(good).encode() + b"x",
    }.items():
        yield case(f"index of {name}", _sharded_files(content))
    bombs: dict[str, Callable[[], bytes]] = {
        "lists": lambda: b'{"weight_map":[' + b"[]," * 5_000_000 + b"[]]}",
        "objects": lambda: b'{"weight_map":[' + b"{}," * 5_000_000 + b"{}]}",
        "names": lambda: (
            b'{"weight_map":{' + b",".join(b'"%d":"%d"' % (i, i) for i in range(700_000)) + b"}}"
        ),
        "spaces": lambda: b'{"weight_map":' + b" " * 17_000_000 + b"{}}",
    }
    for name, content in bombs.items():

        def write(folder: Path, content: Callable[[], bytes] = content) -> Path:
            return put(INDEX, content())(folder)

        yield case(f"index bomb of {name}", write)

    def many_small(folder: Path) -> Path:
        """As many shards as are allowed, one of them with very many tensors."""
        weight_map = {}
        for i in range(999):
            (folder / f"{i:04}.safetensors").write_bytes(_st({f"w{i}": _one([1], 0, 4)}, bytes(4)))
            weight_map[f"w{i}"] = f"{i:04}.safetensors"
        names = [f"v{i}" for i in range(250_000)]
        header = b"{" + b",".join(
            b'"%s":{"dtype":"U8","shape":[0],"data_offsets":[0,0]}' % n.encode() for n in names
        )
        (folder / "z.safetensors").write_bytes(_st(header + b"}"))
        weight_map |= dict.fromkeys(names, "z.safetensors")
        return put(INDEX, json.dumps({"weight_map": weight_map}).encode())(folder)

    yield case("999 small ones and one with 250,000 tensors", many_small, Ends.ANY)

    def many_large(folder: Path) -> Path:
        weight_map = {}
        for i in range(20):
            start = _st({f"w{i}": _one([GIB], 0, 4 * GIB)})
            sparse(f"{i:02}.safetensors", start, len(start) + 4 * GIB)(folder)
            weight_map[f"w{i}"] = f"{i:02}.safetensors"
        return put(INDEX, json.dumps({"weight_map": weight_map}).encode())(folder)

    yield case("80 GiB in twenty", many_large, Ends.ANY)

    def many_headers(folder: Path) -> Path:
        """Shards that are all header."""
        weight_map = {}
        for i in range(60):
            name, shard = f"w{i}", f"{i:02}.safetensors"
            header = {name: _one([1], 0, 4), "__metadata__": {"a": "x" * (16 * 2**20 - 200)}}
            (folder / shard).write_bytes(_st(header, bytes(4)))
            weight_map[name] = shard
        return put(INDEX, json.dumps({"weight_map": weight_map}).encode())(folder)

    yield case("sixty with a header of 16 MiB", many_headers, Ends.ANY)

    def two_indices(folder: Path) -> Path:
        _sharded_files(good)(folder)
        (folder / "model" / "other.index.json").write_text(json.dumps(good))
        return folder / "model"

    yield case("a folder with two indices", two_indices)

    def linked_index(folder: Path) -> Path:
        path = _sharded_files(good)(folder)
        (folder / "elsewhere").mkdir()
        (folder / "elsewhere" / INDEX).symlink_to(path)
        return folder / "elsewhere" / INDEX

    yield case("an index that is a link", linked_index, Ends.ANY)

    def cache(leads_out: bool) -> Callable[[Path], Path]:
        """Hugging Face's cache, with one of its links leading to another model's."""

        def make(folder: Path) -> Path:
            snapshot = folder / "models--x" / "snapshots" / "1"
            snapshot.mkdir(parents=True)
            for home in ("models--x", "models--y"):
                (folder / home / "blobs").mkdir(parents=True)
                for name, content in zip("ab", _split(), strict=True):
                    (folder / home / "blobs" / name).write_bytes(content)
            first = "models--y" if leads_out else "models--x"
            (snapshot / "a.safetensors").symlink_to(f"../../../{first}/blobs/a")
            (snapshot / "b.safetensors").symlink_to("../../blobs/b")
            return put(INDEX, json.dumps(good).encode())(snapshot)

        return make

    yield case("a cache", cache(False), Ends.ANY)
    yield case("a cache that leads out", cache(True))


# --- paths ----------------------------------------------------------------------------------------


def _paths() -> Iterator[HostileFile]:
    def case(name: str, make: Callable[[Path], Path], ends: Ends = Ends.REFUSED) -> HostileFile:
        return HostileFile(f"path, {name}", "paths", make, ends)

    def link(target: str) -> Callable[[Path], Path]:
        def make(folder: Path) -> Path:
            (folder / "m.pt").symlink_to(target)
            return folder / "m.pt"

        return make

    for target in (
        "/dev/zero",
        "/dev/random",
        "/dev/full",
        "/dev/null",
        "/dev/stdin",
        "/dev/tty",
        "/",
        "/proc/self/mem",
        "/proc/self/environ",
        "/proc/self/maps",
        "/proc/self/fd/0",
        "/proc/kmsg",
        "/proc/self/pagemap",
        "/sys",
        ".",
        "m.pt",
        "nothing",
        "../..",
        "/etc/passwd",
        "/proc/self/exe",
        "/proc/self/cmdline",
        "/proc/kcore",
    ):
        yield case(f"a link to {target}", link(target))

    def pipe(folder: Path) -> Path:
        os.mkfifo(folder / "m.pt")
        return folder / "m.pt"

    def end(folder: Path) -> Path:
        _listen(folder / "m.pt")
        return folder / "m.pt"

    def chain(folder: Path) -> Path:
        for i in range(60):
            (folder / f"{i}").symlink_to(f"{i + 1}")
        (folder / "60").write_bytes(saved(STATE))
        return folder / "0"

    def good_link(folder: Path) -> Path:
        (folder / "good").write_bytes(saved(STATE))
        (folder / "m.pt").symlink_to("good")
        return folder / "m.pt"

    def inside(*names: str) -> Callable[[Path], Path]:
        def make(folder: Path) -> Path:
            for name in names:
                (folder / name).symlink_to("/dev/zero")
            return folder

        return make

    def loop(folder: Path) -> Path:
        (folder / "d").symlink_to(".")
        return folder / "/".join("d" * 30) / "m.pt"

    def crowded(folder: Path) -> Path:
        for i in range(3000):
            (folder / f"{i}.safetensors").touch()
        return folder

    def own(folder: Path) -> Path:
        (folder / "x.index.json").symlink_to(".")
        return folder

    yield case("a pipe", pipe)
    yield case("a socket", end)
    yield case("a chain of links", chain)
    yield case("a link to a good file", good_link, Ends.ANY)
    yield case("an empty folder", lambda folder: folder)
    yield case("a folder with a link to zero", inside("m.safetensors"))
    yield case("a folder with an index that is zero", inside("m.index.json"))
    yield case("a folder with two", inside("a.safetensors", "\x1b[2J.safetensors"))
    yield case("a distributed checkpoint", inside(".metadata"))
    yield case("a folder with its own index", own)
    yield case("a folder of 3000", crowded)
    yield case("a loop of folders", loop)
    yield case("a missing file", lambda folder: folder / "m.pt")
    yield case("a file as folder", lambda folder: put("m", b"x")(folder) / "m.pt")
    yield case("a long name", lambda folder: folder / ("x" * 300))
    yield case("a very long path", lambda folder: folder / "/".join(["x" * 200] * 15))
    yield case("a name with NUL", lambda folder: folder / "a\0b")
    yield case("a name with escapes", lambda folder: folder / "\x1b[2J\nerror: fine.\n")
    yield case("a name that is no text", lambda folder: folder / os.fsdecode(b"\xff\xfe"))
    for name, content in {
        "empty": b"",
        "one byte": b"\x80",
        "zeros": bytes(4096),
        "text": b"hello\n",
        "an image": b"\x89PNG\r\n\x1a\n",
        "a program": b"\x7fELF" + bytes(99),
        "a script": b"#!/bin/sh\ntouch executed\n",
        "gzip": b"\x1f\x8b\x08" + bytes(99),
        "zlib": zlib.compress(bytes(99)),
        "xz": lzma.compress(bytes(99)),
        "bz2": bz2.compress(bytes(99)),
        "tar": b"x" * 257 + b"ustar" + bytes(250),
        "numpy": b"\x93NUMPY\x01\x00" + bytes(99),
        "HDF5": b"\x89HDF\r\n\x1a\n" + bytes(99),
        "GGUF": b"GGUF" + bytes(99),
        "ONNX": b"\x08\x07\x12\x07pytorch",
        "JSON": b'{"a": 1}',
        "YAML": b"!!python/object/apply:os.system [touch executed]\n",
        "XML": b"<?xml version='1.0'?>",
        "Python": b"import os; os.system('touch executed')\n",
        "random": random.Random(0).randbytes(999),
        "a report": b'{"schema": "fls-bench/report/1"}',
    }.items():
        yield HostileFile(f"a file that is {name}", "paths", put("m.pt", content))


# --- broken copies of good files ------------------------------------------------------------------


def _bases() -> dict[str, tuple[str, bytes, str]]:
    """Good files by name: suffix, content, net."""
    bases: dict[str, tuple[str, bytes, str]] = {
        "torch.save": (".pt", saved(STATE), "normed"),
        "torch.save, nested": (".pt", saved({"epoch": 3, "model": STATE, "loss": 0.5}), "normed"),
        "torch.save, legacy": (
            ".pth",
            saved(STATE, _use_new_zipfile_serialization=False),
            "normed",
        ),
        "safetensors": (".safetensors", _good_st(), "normed"),
    }
    for suffix in (".pt", ".safetensors"):
        bases[f"model file {suffix}"] = (suffix, _model_file(suffix), "normed")
    for path in sorted(FOREIGN.glob("*.pt")) + sorted(FOREIGN.glob("*.ckpt")):
        net = "plain" if path.suffix == ".ckpt" else "normed"
        bases[path.name] = (path.suffix, path.read_bytes(), net)
    return bases


def _model_file(suffix: str) -> bytes:
    import tempfile

    net = nn.Sequential(nn.Linear(4, 5), nn.BatchNorm1d(5), nn.ReLU(), nn.Linear(5, 3))
    net.load_state_dict(STATE)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / f"m{suffix}"
        fls_bench.save_bundle(path, net, builder_hint="nets:normed")
        return path.read_bytes()


def _flip(content: bytearray, rng: random.Random) -> None:
    for _ in range(rng.choice((1, 1, 2, 8))):
        content[rng.randrange(len(content))] ^= 1 << rng.randrange(8)


def _overwrite(content: bytearray, rng: random.Random) -> None:
    place, size = rng.randrange(len(content)), rng.choice((1, 2, 4, 8, 64))
    value = rng.choice((b"\0", b"\xff", b"\x7f", b"\x80", rng.randbytes(1)))
    content[place : place + size] = value * size


def _insert(content: bytearray, rng: random.Random) -> None:
    place = rng.randrange(len(content))
    content[place:place] = rng.choice(
        (rng.randbytes(5), bytes(4096), b"cos\nsystem\n", b"PK\5\6", b"h\0R")
    )


def _delete(content: bytearray, rng: random.Random) -> None:
    place = rng.randrange(len(content))
    del content[place : place + rng.choice((1, 3, 64, 512))]


def _swap(content: bytearray, rng: random.Random) -> None:
    size = rng.choice((4, 32, 256))
    a, b = (rng.randrange(max(1, len(content) - size)) for _ in range(2))
    one, two = bytes(content[a : a + size]), bytes(content[b : b + size])
    content[a : a + size], content[b : b + size] = two, one


def _repeat(content: bytearray, rng: random.Random) -> None:
    place = rng.randrange(len(content))
    part = bytes(content[place : place + 200])
    content[place:place] = part * rng.choice((1, 50))


MUTATIONS = (_flip, _overwrite, _insert, _delete, _swap, _repeat)


def _mended(content: bytes, name: str, change: Callable[[bytearray], None]) -> bytes:
    """A zip with one entry changed and right checksums: the change reaches the reader."""
    stream = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(content)) as old, zipfile.ZipFile(stream, "w") as new:
        for info in old.infolist():
            value = bytearray(old.read(info))
            if info.filename.endswith(name):
                change(value)
            new.writestr(info.filename, bytes(value))
    return stream.getvalue()


def _mutants() -> Iterator[HostileFile]:
    rng = random.Random(20261125)
    for base, (suffix, content, net) in _bases().items():

        def case(
            what: str, changed: bytes, base: str = base, suffix: str = suffix, net: str = net
        ) -> HostileFile:
            make = put(f"m{suffix}", changed)
            return HostileFile(f"{base}, {what}", "mutants", make, Ends.ANY, net)

        ours = not (FOREIGN / base).exists()
        cuts = (0.03, 0.3, 0.6, 0.9, 0.99) if ours else (rng.random(),)
        for share in cuts:
            size = int(share * len(content))
            yield case(f"cut to {size}", content[:size])
        yield case("a byte less", content[:-1])
        for i, mutate in enumerate(MUTATIONS * (3 if ours else 1)):
            changed = bytearray(content)
            mutate(changed, rng)
            yield case(f"mutant {i}, {mutate.__name__[1:]}", bytes(changed))
        if content[:2] == b"PK":
            for i in range(10 if ours else 2):
                mutate = rng.choice(MUTATIONS)
                mended = _mended(content, "data.pkl", lambda value, m=mutate: m(value, rng))
                yield case(f"pickle {i}, {mutate.__name__[1:]}", mended)
            mended = _mended(content, "/data/0", lambda value: _flip(value, rng))
            yield case("numbers, changed", mended)
        elif suffix == ".safetensors":
            size = 8 + int.from_bytes(content[:8], "little")
            for i in range(10):
                head = bytearray(content[8:size])
                mutate = rng.choice(MUTATIONS)
                mutate(head, rng)
                mended = _st(bytes(head), content[size:])
                yield case(f"header {i}, {mutate.__name__[1:]}", mended)
    for folder in ("sharded", "sharded-bf16"):
        files = {path.name: path.read_bytes() for path in sorted((FOREIGN / folder).iterdir())}
        for i, mutate in enumerate(MUTATIONS * 2):
            victim = rng.choice(sorted(files))
            changed = bytearray(files[victim])
            mutate(changed, rng)

            def make(
                place: Path, files: dict[str, bytes] = files | {victim: bytes(changed)}
            ) -> Path:
                for name, content in files.items():
                    (place / name).write_bytes(content)
                return place / next(name for name in files if name.endswith(".json"))

            name = f"{folder}, mutant {i}, {mutate.__name__[1:]} in {victim}"
            yield HostileFile(name, "mutants", make, Ends.ANY)


GOOD = saved(STATE)
PLAIN = saved({name.replace("3.", "2."): value for name, value in STATE.items() if name[0] != "1"})
"""Files that fit the nets."""

FAMILIES = (_pickles, _zips, _sizes, _contents, _safetensors, _shards, _paths, _mutants)


@cache
def hostile_files() -> tuple[HostileFile, ...]:
    """All of them, the same ones in the same order each time."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of torch, on kinds of tensors that it makes
        return tuple(one for family in FAMILIES for one in family())


_ALWAYS = re.compile(
    r"os.system _by_reduce_raw|eight slow pickles|legacy, every part|bzip2 bomb in a program"
    r"|at '../a\.safe|a link to (above|passwd)|10\^12 numbers announced|shape of 10\^12, expanded"
    r"|gigabytes in byteorder|storage of (1\.5|14) GiB|a weight is (one NaN|int8)|directory of extras"
    r"|hash bomb, alone"
)
_DEAR = re.compile(
    r"steps|0,000|^shared|extended by itself|a wide dict|16 MiB|1 GiB|1.5 GiB|bomb of|gigabytes"
    r"|999 small|a million names|sixty|of 250,000|storage of|10 MB|million|10\^5"
)


def by_default() -> tuple[HostileFile, ...]:
    """A third of them, fewer of the dear ones, and always those that guard a limit."""
    chosen = []
    for number, one in enumerate(hostile_files()):
        every = 1 if _ALWAYS.search(one.name) else 12 if _DEAR.search(one.name) else 3
        if number % every == 0:
            chosen.append(one)
    return tuple(chosen)
