"""Files that a model file must not be: each as bytes, with the error and the words it must get."""

import gzip
import io
import json
import os
import pickle
import struct
import zipfile
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from fls_bench.errors import FlsBenchError, InputError, UnsafeFileError

HEADER = {
    "schema": "fls-bench/bundle/1",
    "architecture": {
        "name": "mlp",
        "arguments": {"input_dim": 4, "n_outputs": 3, "depth": 2, "width": 5},
    },
}


class Touch:
    """Makes a folder when it is unpickled: the code that must never run."""

    def __init__(self, sentinel: Path) -> None:
        self.sentinel = sentinel

    def __reduce__(self):
        return os.mkdir, (str(self.sentinel),)


def weights(**changes) -> dict[str, torch.Tensor]:
    """Trained weights that fit HEADER, some of them changed or (with None) left out."""
    tensors = {"layers.0.weight": torch.ones(5, 4), "layers.1.weight": torch.ones(3, 5)} | changes
    return {f"final/{name}": value for name, value in tensors.items() if value is not None}


def changed(name: str, value: object) -> dict[str, torch.Tensor]:
    return weights(**{name: value})


def torch_file(value: object, **options) -> bytes:
    stream = io.BytesIO()
    torch.save(value, stream, **options)
    return stream.getvalue()


def bundle(header: object = HEADER, tensors: object = None, **extra) -> bytes:
    """A model file as anyone could write it, with nothing checked."""
    text = header if isinstance(header, str) else json.dumps(header)
    tensors = weights() if tensors is None else tensors
    return torch_file({"fls_bench": text, "tensors": tensors} | extra)


def with_header(**changes) -> bytes:
    return bundle(HEADER | changes)


def architecture(**changes) -> bytes:
    return with_header(architecture=HEADER["architecture"] | changes)


def rezip(
    content: bytes,
    replace: dict[str, bytes] | None = None,
    compression: int = zipfile.ZIP_STORED,
) -> bytes:
    """The same zip with other entries, each with a right checksum."""
    replace = dict(replace or {})
    stream = io.BytesIO()
    with (
        zipfile.ZipFile(io.BytesIO(content)) as old,
        zipfile.ZipFile(stream, "w", compression) as new,
    ):
        for name in old.namelist():
            new.writestr(name, replace.pop(name, None) or old.read(name))
        for name, value in replace.items():
            new.writestr(name, value)
    return stream.getvalue()


def archive(entries: dict[str, bytes]) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as out:
        for name, value in entries.items():
            out.writestr(name, value)
    return stream.getvalue()


def pickled_zip(data_pkl: bytes, records: dict[str, bytes] | None = None) -> bytes:
    entries = {"archive/data.pkl": data_pkl, "archive/version": b"3\n"}
    return archive(entries | {f"archive/data/{k}": v for k, v in (records or {}).items()})


def raw_tensor(numel: int, offset: int, shape: tuple, stride: tuple, record: bytes) -> bytes:
    """A bundle with one tensor described by hand."""

    def number(value: int) -> bytes:
        return pickle.dumps(value, protocol=2)[2:-1]

    def numbers(values: tuple) -> bytes:
        return b"(" + b"".join(map(number, values)) + b"t"

    header = json.dumps(HEADER).encode()
    data = b"".join(
        [
            b"\x80\x02}(X\x09\x00\x00\x00fls_benchX" + struct.pack("<I", len(header)) + header,
            b"X\x07\x00\x00\x00tensors}X\x07\x00\x00\x00final/w",
            b"ctorch._utils\n_rebuild_tensor_v2\n((X\x07\x00\x00\x00storagectorch\nFloatStorage\n",
            b"X\x01\x00\x00\x000X\x03\x00\x00\x00cpu" + number(numel) + b"tQ",
            number(offset) + numbers(shape) + numbers(stride),
            b"\x89ccollections\nOrderedDict\n)RtRsu.",
        ]
    )
    return pickled_zip(data, {"0": record})


def safetensors_file(header: object, data: bytes = b"", length: int | None = None) -> bytes:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text) if length is None else length) + text + data


def entry(shape: list[int], begin: int, end: int, dtype: str = "F32") -> dict:
    return {"dtype": dtype, "shape": shape, "data_offsets": [begin, end]}


def hash_bomb() -> bytes:
    """A dict whose key takes 2^200 steps to hash."""
    return pickled_zip(b"\x80\x02})q\x00" + b"h\x00h\x00\x86q\x00" * 200 + b"K\x01s.")


def shared_lists(depth: int = 200) -> bytes:
    """STACK_GLOBAL on lists whose text has 2^depth characters."""
    body = b"]\x94" + b"".join(
        b"](h" + bytes([i]) + b"h" + bytes([i]) + b"e\x94" for i in range(depth)
    )
    return pickled_zip(b"\x80\x04" + body + b"h\x01\x93.")


@dataclass(frozen=True)
class Hostile:
    """One bad file: ``make(sentinel)`` gives its bytes; loading it must say all of ``words``."""

    make: Callable[[Path], bytes]
    error: type[FlsBenchError]
    words: tuple[str, ...]


def unsafe(make: Callable[[Path], bytes], *words: str) -> Hostile:
    return Hostile(make, UnsafeFileError, (*words, "nothing was executed", "fls_bench.save_bundle"))


def bad(content: bytes, *words: str) -> Hostile:
    return Hostile(lambda _: content, InputError, words)


def touching_zip(sentinel: Path) -> bytes:
    return torch_file({"fls_bench": json.dumps(HEADER), "tensors": Touch(sentinel)})


def touching_tensor(sentinel: Path) -> bytes:
    """The call hides beside good tensors, inside the dict of a well-formed model file."""
    return bundle(tensors=weights() | {"final/extra": Touch(sentinel)})


def named_through_memo(sentinel: Path) -> bytes:
    """posix.mkdir by STACK_GLOBAL, its two names fetched from the memo in the wrong order."""
    path = str(sentinel).encode()
    return (
        b"\x80\x04\x8c\x05mkdir\x94\x8c\x05posix\x940\x8c\x05other0h\x01h\x00\x93"
        + b"X"
        + struct.pack("<I", len(path))
        + path
        + b"\x85R."
    )


def program(sentinel: Path, mark: str) -> bytes:
    """As torch.export.save: its sample inputs are a torch file, executed by torch.export.load."""
    inputs = torch_file(Touch(sentinel))
    return archive({"ep/data/sample_inputs/model.pt": inputs, f"ep/{mark}": b"{}"})


def torchscript(sentinel: Path, mark: str) -> bytes:
    content = pickle.dumps(Touch(sentinel), protocol=2)
    return archive({"ts/data.pkl": content, f"ts/{mark}": b"", "ts/version": b"3\n"})


def npz() -> bytes:
    stream = io.BytesIO()
    np.savez(stream, x=np.ones(3))
    return stream.getvalue()


def nested_json() -> str:
    return '{"schema": "fls-bench/bundle/1", "architecture": ' + "[" * 100_000 + "]" * 100_000 + "}"


def state_dict() -> OrderedDict:
    return torch.nn.Sequential(torch.nn.Linear(4, 3), torch.nn.BatchNorm1d(3)).state_dict()


def data(**arrays) -> bytes:
    task = {"name": "mine", "embedded": True}
    tensors = weights() | {f"data/{name}": value for name, value in arrays.items()}
    return bundle(HEADER | {"task": task}, tensors)


VALID = bundle()
NAN = torch.ones(5, 4).index_fill_(0, torch.tensor([2]), float("nan"))

FOREIGN = {"checkpoint", "legacy state dict", "safetensors, no header", "state dict"}
"""No model files of ours, but checkpoints that can be judged with a net and data."""

HOSTILE: dict[str, Hostile] = {
    # would run code
    "raw pickle": unsafe(lambda s: pickle.dumps(Touch(s)), "is a pickle", "'posix.mkdir'"),
    "text pickle": unsafe(lambda s: pickle.dumps(Touch(s), protocol=0), "'posix.mkdir'"),
    "text pickle, INST": unsafe(
        lambda s: b"(S'" + str(s).encode() + b"'\niposix\nmkdir\n.", "'posix.mkdir'"
    ),
    "names through the memo": unsafe(named_through_memo, "'posix.mkdir'"),
    "legacy torch file": unsafe(
        lambda s: torch_file(Touch(s), _use_new_zipfile_serialization=False),
        "torch before 1.6",
        "'posix.mkdir'",
        "weights_only=False",
    ),
    "full pickle": unsafe(touching_zip, "is a full pickle", "'posix.mkdir'", "weights_only=False"),
    "full pickle of a net": unsafe(
        lambda s: torch_file(torch.nn.Linear(2, 2)), "'torch.nn.modules.linear.Linear'"
    ),
    "call among the tensors": unsafe(touching_tensor, "is a full pickle", "'posix.mkdir'"),
    "named, not called": unsafe(
        lambda _: bundle(extra=os.mkdir), "is a full pickle", "'posix.mkdir'"
    ),
    **{
        f"exported program, {mark}": unsafe(
            lambda s, mark=mark: program(s, mark),
            "exported program",
            "'posix.mkdir'",
            "data/sample_inputs/model.pt",
            "torch.export.load",
            ".state_dict",
        )
        for mark in ("archive_format", "archive_version", "models/model.json")
    },
    **{
        f"TorchScript, {mark}": unsafe(
            lambda s, mark=mark: torchscript(s, mark),
            "TorchScript",
            "'posix.mkdir'",
            mark,
            "torch.jit.load",
        )
        for mark in ("code/__torch__/net.py", "constants.pkl")
    },
    "architecture os:system": Hostile(
        lambda _: architecture(name="os:system", arguments={"command": "true"}),
        UnsafeFileError,
        ("'os:system'", "nothing was imported", "--model"),
    ),
    "architecture os.system": Hostile(
        lambda _: architecture(name="os.system"), UnsafeFileError, ("'os.system'", "--model")
    ),
    # would take for ever, or all memory
    "hash bomb": bad(hash_bomb(), "no model file"),
    "text bomb": unsafe(lambda _: shared_lists(), "a name computed while reading"),
    "header bomb": bad(bundle(nested_json()), "nested too deeply"),
    "long header": bad(bundle(" " * 1_000_001), "1,000,001 characters"),
    "expanded view": bad(
        bundle(tensors=changed("w", torch.ones(1).expand(10**12))),
        "announces tensors of 4e+12 bytes",
    ),
    "shared views": bad(
        bundle(tensors=dict.fromkeys([f"final/{i}" for i in range(99)], torch.ones(999))),
        "do not fit",
    ),
    "announced storage": bad(
        raw_tensor(10**12, 0, (1,), (1,), bytes(4)), "damaged", "announced size"
    ),
    "announced tensor": bad(raw_tensor(1, 0, (10**12,), (0,), bytes(4)), "announces tensors"),
    "outside its storage": bad(raw_tensor(2, 1, (2,), (1,), bytes(8)), "damaged"),
    "steps outside": bad(raw_tensor(2, 0, (2,), (2**62,), bytes(8)), "damaged"),
    "negative offset": bad(raw_tensor(2, -1, (2,), (1,), bytes(8)), "no plain tensor has"),
    "negative stride": bad(raw_tensor(2, 1, (2,), (-1,), bytes(8)), "no plain tensor has"),
    "many dimensions": bad(raw_tensor(1, 0, (1,) * 999, (1,) * 999, bytes(4)), "no plain tensor"),
    "compressed zip": bad(rezip(VALID, compression=zipfile.ZIP_DEFLATED), "compressed"),
    "zip bomb": bad(
        rezip(VALID, {"archive/data/9": bytes(10**7)}, zipfile.ZIP_DEFLATED), "compressed"
    ),
    # damaged, or something else
    "empty": bad(b"", "is empty"),
    "truncated zip": bad(VALID[: len(VALID) // 2], "truncated or damaged"),
    "empty zip": bad(archive({}), "torch.save did not write"),
    "damaged numbers": bad(VALID.replace(b"\x80\x3f", b"\x80\x3e"), "damaged"),
    "missing record": bad(
        pickled_zip(zipfile.ZipFile(io.BytesIO(VALID)).read("archive/data.pkl")), "damaged"
    ),
    "two data.pkl": bad(rezip(VALID, {"other/data.pkl": b"N."}), "exactly one data.pkl"),
    "other byte order": bad(rezip(VALID, {"archive/byteorder": b"big"}), "byte order"),
    "random bytes": bad(np.random.default_rng(0).bytes(999), "no known format"),
    "text": bad(b"hello, world\n", "no known format"),
    "JSON": bad(b' {"schema": "fls-bench/report/1"}', "JSON", "fls-bench report"),
    "HDF5": bad(b"\x89HDF\r\n\x1a\n" + bytes(99), "HDF5"),
    "GGUF": bad(b"GGUF\x03\x00\x00\x00{" + bytes(99), "GGUF"),
    "numpy array": bad(b"\x93NUMPY\x01\x00" + bytes(99), "numpy array"),
    "numpy archive": bad(npz(), "numpy archive", "--task"),
    "gzip": bad(gzip.compress(VALID), "gzip", "gunzip"),
    "tar": bad(b"x" * 257 + b"ustar" + bytes(250), "tar archive"),
    "other zip": bad(archive({"a.txt": b"a"}), "torch.save did not write", "'a.txt'"),
    "pickle in a zip, malformed": bad(pickled_zip(b"\x80\x02}("), "malformed"),
    "legacy state dict": bad(
        torch_file(state_dict(), _use_new_zipfile_serialization=False), "state dict of 7 tensors"
    ),
    "state dict": bad(
        torch_file(state_dict()), "state dict of 7 tensors", "'0.weight'", "save_bundle"
    ),
    "checkpoint": bad(
        torch_file({"epoch": 3, "model": state_dict()}), "checkpoint with 7 tensors under 'model'"
    ),
    "one tensor": bad(torch_file(torch.ones(3)), "holds no state dict"),
    # tensors of other kinds
    "sparse": bad(bundle(tensors=changed("w", torch.eye(3).to_sparse())), "sparse"),
    "complex": bad(bundle(tensors=changed("w", torch.ones(2, dtype=torch.cfloat))), "complex"),
    "float8": bad(
        bundle(tensors=changed("w", torch.ones(2).to(torch.float8_e4m3fn))), "unusual number type"
    ),
    "meta": bad(bundle(tensors=changed("w", torch.ones(2, device="meta"))), "meta tensors"),
    # well-formed, with contents that don't fit
    "NaN weights": bad(
        bundle(tensors=changed("layers.0.weight", NAN)),
        "'final/layers.0.weight'",
        "NaN or infinite values (4 of 20)",
    ),
    "infinite weights": bad(
        bundle(tensors=changed("layers.1.weight", torch.full((3, 5), torch.inf))), "15 of 15"
    ),
    "empty layer": bad(
        bundle(tensors=changed("layers.0.weight", torch.ones(0, 4))), "empty", "size zero"
    ),
    "missing weights": bad(
        bundle(tensors=changed("layers.1.weight", None)), "missing 'layers.1.weight'"
    ),
    "no weights": bad(bundle(tensors={}), "no trained weights"),
    "weights of another net": bad(
        bundle(tensors={"final/layer.0.weight": torch.ones(5, 4)}),
        "missing 'layers.0.weight'",
        "unexpected 'layer.0.weight'",
        "nearest known 'layers.0.weight'",
    ),
    "wrong shape": bad(
        bundle(tensors=changed("layers.0.weight", torch.ones(4, 5))),
        "'layers.0.weight' has shape (4, 5), not (5, 4)",
    ),
    "initial weights of another net": bad(
        bundle(tensors=weights() | {"init/layers.0.weight": torch.ones(5, 4)}),
        "initial weights",
        "missing 'layers.1.weight'",
    ),
    "centered without init": bad(with_header(centered=True), "centered", "initial_state="),
    "stray tensor": bad(bundle(tensors=weights() | {"w": torch.ones(2)}), "neither init/", "'w'"),
    "unprintable name": bad(bundle(tensors=changed("\x1b[2J", torch.ones(2))), "'\\x1b[2J'"),
    "third key": bad(bundle(extra=1), "exactly", "'extra'"),
    "tensors as a list": bad(bundle(tensors=[torch.ones(2)]), "tensors by name"),
    "unknown net": bad(architecture(name="resnet9000"), "no built-in net named 'resnet9000'"),
    "net without bounds": bad(
        architecture(arguments={"input_dim": 4, "n_outputs": 3, "width": 10**12}), "width"
    ),
    # header
    "header not JSON": bad(bundle("{"), "not valid JSON"),
    "header a list": bad(bundle([1]), "no key 'schema'"),
    "header with NaN": bad(architecture(arguments={"width": float("nan")}), "NaN is not a finite"),
    "header with 1e999": bad(
        bundle(json.dumps(HEADER).replace(": 4", ": 1e999")), "1e999 is not a finite"
    ),
    "header with many digits": bad(
        bundle(json.dumps(HEADER).replace(": 4", ": " + "4" * 9999)), "not valid JSON"
    ),
    "newer schema": bad(with_header(schema="fls-bench/bundle/3"), "newer fls-bench", "--upgrade"),
    "other schema": bad(with_header(schema="x"), "schema 'x'"),
    "missing header key": bad(bundle({"schema": HEADER["schema"]}), "missing key 'architecture'"),
    "unknown header key": bad(
        with_header(output_multiplyer=2.0), "'output_multiplyer'", "'output_multiplier'"
    ),
    "wrong header type": bad(with_header(output_multiplier="2"), "'output_multiplier': input"),
    "c = 0": bad(with_header(output_multiplier=0), "'output_multiplier'", "greater than 0"),
    "unprintable header": bad(with_header(feature_layer="\x1b[2J"), "unprintable"),
    "lone surrogate": bad(with_header(feature_layer="\ud800"), "unprintable"),
    # data
    "task in a file": bad(
        with_header(task={"name": "/etc/secret.npz"}), "'/etc/secret.npz'", "no other file was"
    ),
    "embedded, none there": bad(data(), "says that it embeds"),
    "data unsaid": bad(
        bundle(tensors=weights() | {"data/x_train": torch.ones(2, 4)}), "header says nothing"
    ),
    "x and y differ": bad(
        data(x_train=torch.ones(3, 4), y_train=torch.ones(2)), "(3, 4)", "(2,)", "train data"
    ),
    "x without y": bad(data(x_train=torch.ones(3, 4)), "None"),
    "unknown array": bad(data(z_train=torch.ones(3)), "'z_train'"),
    "NaN in data": bad(
        data(x_train=NAN, y_train=torch.ones(5)), "'data/x_train'", "NaN", "Remove or fill"
    ),
    # safetensors
    "safetensors, no header": bad(
        safetensors_file({"a": entry([1], 0, 4)}, bytes(4)), "safetensors file of 1 tensor ('a')"
    ),
    "safetensors, 10^12 elements": bad(
        safetensors_file({"a": entry([10**12], 0, 4 * 10**12)}, bytes(4)), "damaged"
    ),
    "safetensors, 10^12 in 4 bytes": bad(
        safetensors_file({"a": entry([10**12], 0, 4)}, bytes(4)), "damaged"
    ),
    "safetensors, overlap": bad(
        safetensors_file({"a": entry([1], 0, 4), "b": entry([1], 0, 4)}, bytes(4)), "damaged"
    ),
    "safetensors, out of range": bad(
        safetensors_file({"a": entry([1], 4, 8)}, bytes(4)), "damaged"
    ),
    "safetensors, header not JSON": bad(safetensors_file(b"{" * 99), "damaged"),
    "safetensors, truncated": bad(
        safetensors_file({"a": entry([1], 0, 4)}, length=10_000), "looks like safetensors"
    ),
    "safetensors, empty tensor": bad(
        safetensors_file(
            {"final/a": entry([10**9, 0], 0, 0), "__metadata__": {"fls_bench": json.dumps(HEADER)}}
        ),
        "empty",
    ),
}  # fmt: skip
