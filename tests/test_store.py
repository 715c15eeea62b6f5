import fcntl
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fls_bench.errors import InputError
from fls_bench.schema import Outcome, RunConfig, RunRecord
from fls_bench.store import RUNS_SCHEMA, RunStore, default_path

finite = st.floats(-1e100, 1e100)
positive = st.floats(min_value=0, exclude_min=True, allow_infinity=False)


def a_record(seed: int = 0, epochs: int = 7, **fields: object) -> RunRecord:
    config = RunConfig(
        setup_digest="ab" * 32,
        c=2**-9,
        init_scale=1,
        lr=0.1,
        seed=seed,
        centered=False,
        max_epochs=9,
    )
    return RunRecord(
        config=config, outcome=Outcome.REACHED_TARGET, epochs=epochs, steps=42, **fields
    )


def run_python(code: str, *arguments: object) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", code, *map(str, arguments)], stderr=subprocess.PIPE, text=True
    )


@given(c=positive, lr=positive, loss=finite, value=finite, text=st.text(max_size=20))
def test_a_record_comes_back_exactly_and_under_the_digest_it_was_asked_for(
    tmp_path_factory: pytest.TempPathFactory,
    c: float,
    lr: float,
    loss: float,
    value: float,
    text: str,
) -> None:
    record = RunRecord(
        config=RunConfig(
            setup_digest="d", c=c, init_scale=lr, lr=lr, seed=-(2**70), centered=True, max_epochs=1
        ),
        outcome=Outcome.FAILED,
        epochs=0,
        steps=0,
        train_loss=loss,
        measurements={"effective_rank:logits": value, text: loss},
        message=text,
    )
    path = tmp_path_factory.mktemp("store") / "runs.jsonl"
    RunStore(path).append([record])
    (digest, back), *others = RunStore(path).load().items()
    assert not others
    assert digest == record.config.digest == back.config.digest
    assert repr(back) == repr(record)


def test_the_first_record_of_a_configuration_wins(tmp_path: Path) -> None:
    path = tmp_path / "runs.jsonl"
    first, second, other = a_record(epochs=1), a_record(epochs=2), a_record(seed=1)
    RunStore(path).append([first])
    RunStore(path).append([second, other])
    assert RunStore(path).load() == {first.config.digest: first, other.config.digest: other}


def test_an_absent_file_is_an_empty_store_and_appending_nothing_makes_no_file(
    tmp_path: Path,
) -> None:
    store = RunStore(tmp_path / "runs.jsonl")
    assert store.load() == {}
    store.append([])
    assert not store.path.exists()


def test_a_tail_cut_at_any_byte_heals(tmp_path: Path) -> None:
    path = tmp_path / "runs.jsonl"
    kept, cut, later = a_record(seed=0), a_record(seed=1, message="größer"), a_record(seed=2)
    RunStore(path).append([kept])
    start = path.stat().st_size
    RunStore(path).append([cut])
    whole = path.read_bytes()
    for end in range(start, len(whole) + 1):
        path.write_bytes(whole[:end])
        # Only its line break is missing from end = len - 1 on: the record itself is complete.
        expected = [kept, cut] if end >= len(whole) - 1 else [kept]
        damaged = start < end < len(whole) - 1
        store = RunStore(path)
        assert list(store.load().values()) == expected
        assert store.num_damaged == damaged
        store.append([later])
        assert list(store.load().values()) == [*expected, later]
        assert store.num_damaged == damaged
        assert path.read_bytes().startswith(whole[:end])


def test_batches_that_were_begun_come_back_all_of_a_call_or_none(tmp_path: Path) -> None:
    path = tmp_path / "runs.jsonl"
    store = RunStore(path)
    assert store.load_batches() == []
    store.keep_batches([])
    assert list(tmp_path.iterdir()) == []
    store.keep_batches([["a", "b"], ["c"]])
    beside = next(tmp_path.iterdir())
    start = beside.stat().st_size
    RunStore(path).keep_batches([["d"], ["e", "f"]])
    whole = beside.read_bytes()
    for end in range(start, len(whole) + 1):
        beside.write_bytes(whole[:end])
        expected = [["a", "b"], ["c"], *([["d"], ["e", "f"]] if end >= len(whole) - 1 else [])]
        assert RunStore(path).load_batches() == expected
        RunStore(path).keep_batches([["g"]])
        assert RunStore(path).load_batches() == [*expected, ["g"]]
    for damage in (b"5", b"[" * 10_000, b'{"schema":"fls-bench/batches/2","batches":[["h"]]}'):
        beside.write_bytes(damage + b"\n" + whole)
        assert RunStore(path).load_batches() == [["a", "b"], ["c"], ["d"], ["e", "f"]]
    assert RunStore(path).load() == {}


@pytest.mark.parametrize("end", [1, 15, 40, 200])
def test_a_file_that_holds_only_a_cut_first_line_heals(tmp_path: Path, end: int) -> None:
    path = tmp_path / "runs.jsonl"
    RunStore(path).append([a_record(seed=0)])
    path.write_bytes(path.read_bytes()[:end])
    store = RunStore(path)
    store.append([a_record(seed=1)])
    assert [record.config.seed for record in store.load().values()] == [1]
    assert store.num_damaged == 1


@pytest.mark.parametrize(
    "damage",
    [
        b"\xff\xfe\x9c\n",
        b"\0" * 4096 + b"{\n",
        b"5\n",
        b"[]\n",
        b"[" * 100_000 + b"\n",
        f'{{"schema":"{RUNS_SCHEMA}","record":{{"config":null}}}}\n'.encode(),
        f'{{"schema":"{RUNS_SCHEMA}"}}\n'.encode(),
    ],
)
def test_a_damaged_line_anywhere_is_skipped_and_counted(tmp_path: Path, damage: bytes) -> None:
    path = tmp_path / "runs.jsonl"
    RunStore(path).append([a_record(seed=0)])
    line = path.read_bytes()
    for content in (damage + line, line + damage):
        path.write_bytes(content)
        store = RunStore(path)
        assert list(store.load().values()) == [a_record(seed=0)]
        assert store.num_damaged == 1


def test_bytes_that_a_power_failure_left_empty_lose_no_later_record(tmp_path: Path) -> None:
    path = tmp_path / "runs.jsonl"
    path.write_bytes(b"\0" * 512)
    RunStore(path).append([a_record()])
    assert list(RunStore(path).load().values()) == [a_record()]


@pytest.mark.parametrize(
    "content",
    [
        b'{"schema":"fls-bench/runs/2","record":{}}\n',
        b'{"schema":"fls-bench/report/1"}\n',
        b'{"name":"other"}\n',
        b"some notes\nof mine",
    ],
)
def test_a_file_of_another_schema_is_refused_and_left_as_it_was(
    tmp_path: Path, content: bytes
) -> None:
    path = tmp_path / "runs.jsonl"
    path.write_bytes(content)
    with pytest.raises(InputError, match=r"runs\.jsonl"):
        RunStore(path).load()
    with pytest.raises(InputError, match=r"runs\.jsonl"):
        RunStore(path).append([a_record()])
    assert path.read_bytes() == content


def test_a_path_that_can_not_be_a_store_is_refused_before_anything_is_run(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="not a file"):
        RunStore(tmp_path)
    with pytest.raises(InputError, match="does not exist"):
        RunStore(tmp_path / "missing" / "runs.jsonl")
    with pytest.raises(InputError, match="too long"):
        RunStore(tmp_path / ("x" * 300))
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(InputError, match="not a file"):
        RunStore(tmp_path / "pipe")


def test_a_folder_without_write_permission_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Not with chmod: the tests may run as root, for whom no folder is unwritable.
    monkeypatch.setattr("os.access", lambda path, mode: False)
    with pytest.raises(InputError, match="Permission denied"):
        RunStore(tmp_path / "runs.jsonl")


def test_a_file_that_can_not_be_opened_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = RunStore(tmp_path / "runs.jsonl")

    def refuse(*arguments: object) -> int:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("os.open", refuse)
    with pytest.raises(InputError, match="Permission denied"):
        store.append([a_record()])


FULL_DISK = """
import resource, sys
from fls_bench.errors import InputError
from fls_bench.schema import RunRecord
from fls_bench.store import RunStore
path, record = sys.argv[1], RunRecord.model_validate_json(sys.argv[2])
store = RunStore(path)
store.append([record])
size = store.path.stat().st_size
resource.setrlimit(resource.RLIMIT_FSIZE, (size + 100, resource.RLIM_INFINITY))
try:
    store.append([record.model_copy(update={"epochs": 1})] * 3)
except InputError:
    assert store.path.stat().st_size == size, "the half-written line is still there"
else:
    raise SystemExit("the full disk was not noticed")
"""


def test_a_disk_that_fills_up_in_the_middle_of_a_line_leaves_the_file_as_it_was(
    tmp_path: Path,
) -> None:
    path = tmp_path / "runs.jsonl"
    process = run_python(FULL_DISK, path, a_record().model_dump_json())
    assert process.communicate()[1] == ""
    assert process.returncode == 0
    assert list(RunStore(path).load().values()) == [a_record()]


WRITER = """
import sys, time
from pathlib import Path
from fls_bench.schema import RunRecord
from fls_bench.store import RunStore
path, start, template = Path(sys.argv[1]), int(sys.argv[2]), sys.argv[3]
record = RunRecord.model_validate_json(template)
batches, seed = [], start
while seed < start + 400:
    size = 1 + seed % 7
    batches.append([record.model_copy(update={"config": record.config.model_copy(
        update={"seed": seed + i})}) for i in range(size)])
    seed += size
path.with_suffix(f".{start}").touch()
while len(list(path.parent.iterdir())) < 3:
    time.sleep(0.001)
store = RunStore(path)
for batch in batches:
    store.append(batch)
"""


def test_two_processes_writing_at_once_lose_nothing_and_mangle_nothing(tmp_path: Path) -> None:
    path = tmp_path / "runs.jsonl"
    # Longer than a page, so that a line that is written in pieces would show.
    record = a_record(message="x" * 10_000)
    path.write_bytes(b'{"schema":"fls-ben')
    writers = [run_python(WRITER, path, start, record.model_dump_json()) for start in (0, 10_000)]
    reader = RunStore(path)
    while any(writer.poll() is None for writer in writers):
        reader.load()
        assert reader.num_damaged == 1
    assert [writer.communicate()[1] for writer in writers] == ["", ""]
    seeds = [loaded.config.seed for loaded in reader.load().values()]
    assert reader.num_damaged == 1
    for start in (0, 10_000):
        own = [seed for seed in seeds if start <= seed < start + 1000]
        assert own == list(range(start, own[-1] + 1))
        assert len(own) >= 400
    assert all(loaded.message == record.message for loaded in reader.load().values())


def test_a_writer_waits_for_the_other_one(tmp_path: Path) -> None:
    store = RunStore(tmp_path / "runs.jsonl")
    store.append([a_record(seed=0)])
    with store.path.open("ab") as other, ThreadPoolExecutor(1) as pool:
        fcntl.flock(other, fcntl.LOCK_EX)
        waiting = pool.submit(store.append, [a_record(seed=1)])
        with pytest.raises(TimeoutError):
            waiting.result(timeout=0.1)
        fcntl.flock(other, fcntl.LOCK_UN)
        waiting.result(timeout=10)
    assert len(store.load()) == 2


def test_the_default_folder_follows_the_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = "0123456789abcdef.jsonl"
    digest = "0123456789abcdef" * 4
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("XDG_CACHE_HOME", "relative")
    monkeypatch.delenv("FLS_BENCH_STORE", raising=False)
    assert default_path(digest) == tmp_path / "home/.cache/fls-bench/runs" / name
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    assert default_path(digest) == tmp_path / "cache/fls-bench/runs" / name
    monkeypatch.setenv("FLS_BENCH_STORE", "~/chosen")
    assert default_path(digest) == tmp_path / "home/chosen" / name
    RunStore(default_path(digest)).append([a_record()])
    (tmp_path / "file").touch()
    monkeypatch.setenv("FLS_BENCH_STORE", str(tmp_path / "file"))
    with pytest.raises(InputError, match="FLS_BENCH_STORE"):
        default_path(digest)
