"""Reading a file never executes it, and a bad file gets a message instead of a traceback."""

import io
import json
import os
import pickle
import warnings
import zipfile

import pytest
import torch
from hostile_files import (
    HOSTILE,
    VALID,
    bundle,
    state_dict,
    torch_file,
)
from hypothesis import given
from hypothesis import strategies as st

import fls_bench
from fls_bench.bundle import Bundle, containers, load_bundle, save_bundle
from fls_bench.bundle.contents import DTYPES
from fls_bench.bundle.opcodes import list_pickle
from fls_bench.bundle.pickles import read_pickle
from fls_bench.errors import FlsBenchError, InputError, UnsafeFileError


@pytest.mark.parametrize("name", HOSTILE)
@pytest.mark.parametrize("suffix", [".pt", ".safetensors"])
def test_every_hostile_file_is_refused_with_a_reason_and_runs_nothing(tmp_path, name, suffix):
    sentinel, path = tmp_path / "executed", tmp_path / f"model{suffix}"
    path.write_bytes(HOSTILE[name].make(sentinel))
    with pytest.raises(InputError) as caught:
        load_bundle(path)
    assert type(caught.value) is HOSTILE[name].error
    assert not sentinel.exists()
    for word in HOSTILE[name].words:
        assert word in str(caught.value)
    problem, remedy = caught.value.problem, caught.value.remedy
    assert "model" in problem or "net" in problem
    assert problem.endswith(".")
    assert remedy
    assert len(str(caught.value)) < 2000
    assert str(caught.value).replace("\n", "").isprintable()


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    "name",
    [
        "raw pickle",
        "text pickle",
        "text pickle, INST",
        "names through the memo",
        "legacy torch file",
        "full pickle",
        "call among the tensors",
    ],
)
def test_the_hostile_files_are_live(tmp_path, name):
    """The control: an ordinary reader does execute them, so the test above could fail."""
    sentinel = tmp_path / "executed"
    content = HOSTILE[name].make(sentinel)
    if name in ("legacy torch file", "full pickle", "call among the tensors"):
        torch.load(io.BytesIO(content), weights_only=False)
    else:
        pickle.loads(content)
    assert sentinel.exists()


@pytest.mark.filterwarnings("ignore")
def test_the_lines_that_are_offered_convert_a_full_pickle(tmp_path, monkeypatch):
    path = tmp_path / "net.pt"
    path.write_bytes(torch_file(torch.nn.Linear(2, 2)))
    with pytest.raises(FlsBenchError) as caught:
        load_bundle(path)
    monkeypatch.setattr(fls_bench, "save_bundle", save_bundle, raising=False)
    exec("\n".join(line.strip() for line in caught.value.remedy.splitlines()[1:]))
    assert load_bundle(tmp_path / "net-bundle.pt").num_parameters == 6


@pytest.mark.filterwarnings("ignore")
def test_a_real_torchscript_archive_is_refused(tmp_path):
    torch.jit.script(torch.nn.Linear(2, 2)).save(tmp_path / "m.pt")
    with pytest.raises(UnsafeFileError, match="TorchScript archive"):
        load_bundle(tmp_path / "m.pt")


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_a_real_exported_program_is_refused(tmp_path):
    program = torch.export.export(torch.nn.Linear(2, 2), (torch.ones(1, 2),))
    torch.export.save(program, tmp_path / "m.pt2")
    with pytest.raises(UnsafeFileError, match="exported program"):
        load_bundle(tmp_path / "m.pt2")


def test_missing_file_directory_device_and_odd_paths(tmp_path):
    for path, word in [
        (tmp_path / "no.pt", "There is no file"),
        (tmp_path, "is a directory"),
        ("/dev/zero", "not a regular file"),
        (tmp_path / ("x" * 300), "can't be read"),
        ("a\0b", "can't be read"),
    ]:
        with pytest.raises(InputError, match=word):
            load_bundle(path)


def test_a_named_pipe_is_refused_without_waiting(tmp_path):
    os.mkfifo(tmp_path / "pipe.pt")
    with pytest.raises(InputError, match="not a regular file"):
        load_bundle(tmp_path / "pipe.pt")


def test_a_file_over_the_limit_is_not_read(tmp_path, monkeypatch):
    (tmp_path / "m.pt").write_bytes(VALID)
    monkeypatch.setattr(containers, "MAX_FILE_BYTES", len(VALID) - 1)
    with pytest.raises(InputError, match="GiB"):
        load_bundle(tmp_path / "m.pt")


def test_entries_that_occur_twice_are_refused(tmp_path):
    stream = io.BytesIO(VALID)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with zipfile.ZipFile(stream, "a") as out:
            out.writestr("archive/data.pkl", b"N.")
    (tmp_path / "m.pt").write_bytes(stream.getvalue())
    with pytest.raises(InputError, match=r"holds entries twice: 'archive/data\.pkl'"):
        load_bundle(tmp_path / "m.pt")


def test_no_reader_of_torch_or_pickle_is_ever_called(tmp_path, monkeypatch):
    def fail(*args, **options):
        raise AssertionError("a reader that can execute code was called")

    for owner, name in [
        (pickle, "load"),
        (pickle, "loads"),
        (pickle, "Unpickler"),
        (torch, "load"),
        (torch.jit, "load"),
    ]:
        monkeypatch.setattr(owner, name, fail)
    for name, hostile in HOSTILE.items():
        path = tmp_path / "m.pt"
        path.write_bytes(hostile.make(tmp_path / "executed"))
        with pytest.raises(InputError):
            load_bundle(path)
        assert not (tmp_path / "executed").exists(), name
    (tmp_path / "good.pt").write_bytes(VALID)
    assert load_bundle(tmp_path / "good.pt").num_parameters == 35


# --- the reader against torch's own ---------------------------------------------------------------

_PLAIN = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**62), 2**62)
    | st.floats(allow_nan=False)
    | st.text(),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.text() | st.integers(-5, 5), inner, max_size=3)
        | st.lists(inner, max_size=3).map(tuple)
    ),
    max_leaves=12,
)


@given(_PLAIN, st.sampled_from([2, 3, 4, 5]))
def test_plain_values_are_read_as_pickle_reads_them(value, protocol):
    assert read_pickle(pickle.dumps(value, protocol=protocol)).value == value


@pytest.mark.parametrize("protocol", [2, 4])
def test_tensors_are_read_as_torch_reads_them(tmp_path, protocol):
    base = torch.arange(24.0).reshape(4, 6)
    header = {"schema": "fls-bench/bundle/1", "architecture": {}}
    tensors = {
        "final/plain": base + 1,
        "final/transposed": (base + 2).T,
        "final/strided": base[1:, ::2],
        "final/parameter": torch.nn.Parameter(torch.ones(3, 2)),
        "final/scalar": torch.tensor(7),
        "final/mask": torch.tensor([True, False]),
        **{f"final/{dtype}": torch.arange(5).to(dtype) for dtype in DTYPES - {torch.bool}},
    }
    path = tmp_path / "m.pt"
    torch.save(
        {"fls_bench": json.dumps(header), "tensors": tensors}, path, pickle_protocol=protocol
    )
    # torch's own weights-only reader knows protocol 2 alone.
    oracle = torch.load(path, weights_only=protocol == 2)["tensors"]
    ours = load_bundle(path).final
    assert ours.keys() == {name.removeprefix("final/") for name in oracle}
    for name, value in ours.items():
        assert value.dtype == oracle[f"final/{name}"].dtype
        assert torch.equal(value, oracle[f"final/{name}"])
        assert not value.requires_grad


def test_the_listing_finds_what_an_unpickler_would_import():
    class Recorder(pickle.Unpickler):
        def find_class(self, module, name):
            seen.append(f"{module}.{name}")
            return super().find_class(module, name)

    for protocol in range(6):
        seen: list[str] = []
        content = pickle.dumps([torch.nn.Linear, zipfile.ZipFile, Bundle], protocol=protocol)
        Recorder(io.BytesIO(content)).load()
        assert list_pickle(content).globals == tuple(seen)


def test_a_state_dict_with_its_metadata_is_recognized():
    with zipfile.ZipFile(io.BytesIO(torch_file(state_dict()))) as archive:
        assert list(read_pickle(archive.read("archive/data.pkl")).value) == list(state_dict())


def test_bundle_without_surprises_loads(tmp_path):
    (tmp_path / "m.bin").write_bytes(bundle())
    assert load_bundle(tmp_path / "m.bin").header.architecture.name == "mlp"
