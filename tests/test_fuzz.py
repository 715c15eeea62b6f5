"""Whatever a file or an option holds: a value or an FlsBenchError, and never anything else."""

from __future__ import annotations

import copy
import io
import json
import math
import pickle
import re
import sys
import tomllib
import zipfile
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any, TypeVar

import pytest
import torch
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from profiles import FEW
from safetensors.torch import load as load_safetensors
from safetensors.torch import save as save_safetensors

sys.path.insert(0, str(Path(__file__).resolve().parent / "bundle"))
import hostile_files
import own_nets
import report_fixtures
from hostile_files import HEADER, VALID, Touch, rezip, weights

from fls_bench import baselines, bench, console, report
from fls_bench.bundle import load_bundle
from fls_bench.bundle.opcodes import NotPlainError, list_pickle
from fls_bench.bundle.pickles import read_pickle
from fls_bench.cli import main
from fls_bench.cli.options import parse_named, parse_optimizer, parse_seconds
from fls_bench.comparing import compare_files
from fls_bench.errors import FlsBenchError
from fls_bench.report import html, markdown
from fls_bench.scaling import parse_multiplier, scaled_rate
from fls_bench.schema import LrRule, Outcome, TargetLoss
from fls_bench.store import RunStore
from fls_bench.subject import NOTHING, from_bundle
from fls_bench.suite import load_suite, suite_folder
from fls_bench.sweep import SweepPlan, prepare
from fls_bench.sweep.sweeper import Sweeper
from fls_bench.tasks import Task
from fls_bench.training import Engine, engines

Cli = Callable[..., Any]

OLD = Path(__file__).parent / "old_formats"
PARTS = ("train", "val", "test")
T = TypeVar("T")


def value_of(make: Callable[[], T]) -> T | None:
    """What comes out, or None where it is refused in our own words."""
    with suppress(FlsBenchError):
        return make()
    return None


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One for all examples: whatever is written there is written anew by each."""
    return tmp_path_factory.mktemp("fuzz")


# --- what is drawn --------------------------------------------------------------------------

WORDS = (
    "", "x", "mlp", "cnn", "vit", "resnet", "digits", "wine", "mixture", "noise", "1/3", "2^-9",
    "sgd", "adam", "module:function", "../x.npz", "\x1b[2J", "[red]x[/]", "{{ 7 }}", "\ud800", "é中🙂",
    "y" * 400, "\0.npz", "y" * 400 + ".csv",
)  # fmt: skip
NUMBERS = (
    0, 1, -1, 2, 3, 7, 100, 10**6, 2**31, 2**63, -(2**63), 10**30, 10**400, 0.0, -0.0, 0.5, -0.5, 1.0,
    5e-324, 1e-300, 1e-9, 1e9, 1e150, 1e300, 1.7e308, float("nan"), float("inf"), float("-inf"),
)  # fmt: skip
scalars = (
    st.none() | st.booleans() | st.sampled_from(NUMBERS) | st.sampled_from(WORDS) | st.integers()
    | st.floats() | st.text(max_size=8)
)  # fmt: skip
keys = st.sampled_from(WORDS) | st.text(max_size=8)
values = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(keys, inner, max_size=3),
    max_leaves=6,
)


def with_value(tree: Any, *place: Any, value: Any) -> Any:
    """A JSON value with another one at a place."""
    tree = within = copy.deepcopy(tree)
    for key in place[:-1]:
        within = within[key]
    within[place[-1]] = value
    return tree


def as_bytes(value: Any) -> bytes:
    return json.dumps(value).encode()


def mutated_bytes(*valid: bytes) -> st.SearchStrategy[bytes]:
    """One of these files with a few cuts and insertions."""

    def mutated(content: bytes) -> st.SearchStrategy[bytes]:
        def mutate(edits: Sequence[tuple[int, int, bytes]]) -> bytes:
            changed = bytearray(content)
            for where, removed, added in edits:
                changed[where : where + removed] = added
            return bytes(changed)

        place = st.integers(0, len(content) - 1)
        edit = st.tuples(place, st.sampled_from([0, 1, 2, 8, 500]), st.binary(max_size=9))
        return st.lists(edit, min_size=1, max_size=4).map(mutate)

    return st.sampled_from(valid).flatmap(mutated)


def alike(value: Any) -> st.SearchStrategy[Any]:
    """Values of the same type, which come further than others before they are refused."""
    match value:
        case bool():
            return st.just(not value)
        case int():
            return st.sampled_from([k for k in NUMBERS if isinstance(k, int)]) | st.integers(1, 9)
        case float():
            finite = [k for k in NUMBERS if isinstance(k, float) and math.isfinite(k)]
            return st.sampled_from(finite) | st.floats(allow_nan=False, allow_infinity=False)
        case str():
            return st.sampled_from(WORDS) | st.text(max_size=8)
        case list():
            return st.sampled_from([value[1:], value[:1], value[::-1], 2 * value])
    return values


@st.composite
def mutated_trees(draw: st.DrawFn, trees: Sequence[Any]) -> Any:
    """One of these JSON values with drawn values at drawn places, or parts lost, added or copied."""
    tree = copy.deepcopy(draw(st.sampled_from(trees)))

    def place() -> tuple[Any, Any]:
        within = tree
        while True:
            keys_there = sorted(within) if isinstance(within, dict) else range(len(within))
            key = draw(st.sampled_from(keys_there))
            inner = within[key]
            if not isinstance(inner, dict | list) or not inner or draw(st.integers(0, 3)) == 0:
                return within, key
            within = inner

    for _ in range(draw(st.sampled_from([1, 1, 2, 3]))):
        if not tree:
            break
        within, key = place()
        match draw(st.sampled_from(["alike"] * 5 + ["any", "number", "lose", "copy", "add"])):
            case "alike":
                within[key] = draw(alike(within[key]))
            case "any":
                within[key] = draw(values)
            case "number":
                within[key] = draw(st.sampled_from(NUMBERS))
            case "lose":
                del within[key]
            case "copy":
                other, its_key = place()
                within[key] = copy.deepcopy(other[its_key])
            case "add" if isinstance(within, dict):
                within[draw(keys)] = draw(values)
            case "add":
                within.insert(key, draw(values))
    return tree


# --- model files ----------------------------------------------------------------------------


def load_and_rebuild(path: Path, content: bytes) -> None:
    path.write_bytes(content)
    found = value_of(lambda: load_bundle(path))
    if found is not None:
        value_of(lambda: from_bundle(found, NOTHING))


def header_of(safetensors: bytes) -> Any:
    length = int.from_bytes(safetensors[:8], "little")
    return json.loads(json.loads(safetensors[8 : 8 + length])["__metadata__"]["fls_bench"])


def as_file(header: Any, tensors: dict[str, torch.Tensor], kind: str) -> bytes:
    if kind == "pt":
        return hostile_files.bundle(json.dumps(header), tensors)
    return save_safetensors(tensors, metadata={"fls_bench": json.dumps(header)})


REAL_PT = (OLD / "bundle-1.pt").read_bytes()
REAL_SAFETENSORS = (OLD / "bundle-1.safetensors").read_bytes()
REAL_HEADER, REAL_TENSORS = header_of(REAL_SAFETENSORS), load_safetensors(REAL_SAFETENSORS)
EMBEDDED_HEADER = {
    **HEADER,
    "recipe": REAL_HEADER["recipe"],
    "task": {"name": "mine", "embedded": True, "n_train": 30, "n_classes": 3},
}
BLOBS = own_nets.blobs(0, n_train=30)
EMBEDDED_TENSORS = {
    **weights(),
    **{name.replace("final/", "init/"): value / 2 for name, value in weights().items()},
    **{f"data/x_{part}": torch.tensor(getattr(BLOBS, f"x_{part}")[:, :4]) for part in PARTS},
    **{f"data/y_{part}": torch.tensor(getattr(BLOBS, f"y_{part}")) for part in PARTS},
}
DATA_PKL = zipfile.ZipFile(io.BytesIO(VALID)).read("archive/data.pkl")
kinds = st.sampled_from(["pt", "safetensors"])


@pytest.mark.parametrize("kind", ["pt", "safetensors"])
def test_the_files_that_are_mutated_are_whole(folder: Path, kind: str) -> None:
    """The control: from each a subject can be made, with all its evidence."""
    for header, tensors in ((REAL_HEADER, REAL_TENSORS), (EMBEDDED_HEADER, EMBEDDED_TENSORS)):
        (folder / "whole").write_bytes(as_file(header, tensors, kind))
        found = load_bundle(folder / "whole")
        assert from_bundle(found, NOTHING).setup is not None


@given(st.sampled_from([b"", b"\x80\x04", b"PK\x03\x04", b"(", b"c"]), st.binary(max_size=300))
def test_random_bytes_are_no_model_file(folder: Path, prefix: bytes, content: bytes) -> None:
    load_and_rebuild(folder / "m.pt", prefix + content)


@given(mutated_bytes(VALID, REAL_PT))
def test_changed_torch_files(folder: Path, content: bytes) -> None:
    load_and_rebuild(folder / "m.pt", content)


@given(mutated_bytes(as_file(HEADER, weights(), "safetensors"), REAL_SAFETENSORS))
def test_changed_safetensors_files(folder: Path, content: bytes) -> None:
    load_and_rebuild(folder / "m.pt", content)


@given(mutated_bytes(DATA_PKL))
def test_changed_pickles_with_right_checksums(folder: Path, content: bytes) -> None:
    load_and_rebuild(folder / "m.pt", rezip(VALID, {"archive/data.pkl": content}))


@given(
    mutated_bytes(DATA_PKL) | mutated_bytes(pickle.dumps(Touch.__init__)) | st.binary(max_size=99)
)
@example(b"\x80\x02h\x07.")
def test_walking_any_pickle_raises_nothing_else(content: bytes) -> None:
    list_pickle(content)
    with suppress(NotPlainError):
        read_pickle(content)


@given(mutated_bytes(as_bytes(REAL_HEADER)), kinds)
def test_changed_text_of_a_header(folder: Path, text: bytes, kind: str) -> None:
    header = text.decode("utf-8", "replace")
    if kind == "pt":
        content = hostile_files.bundle(header, REAL_TENSORS)
    else:
        content = save_safetensors(REAL_TENSORS, metadata={"fls_bench": header})
    load_and_rebuild(folder / "m.pt", content)


@given(mutated_trees([REAL_HEADER]), kinds)
def test_changed_headers(folder: Path, header: Any, kind: str) -> None:
    load_and_rebuild(folder / "m.pt", as_file(header, REAL_TENSORS, kind))


@given(mutated_trees([EMBEDDED_HEADER]), kinds)
def test_changed_headers_of_files_with_data(folder: Path, header: Any, kind: str) -> None:
    load_and_rebuild(folder / "m.pt", as_file(header, EMBEDDED_TENSORS, kind))


@st.composite
def other_tensors(draw: st.DrawFn, tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """The same with other names, shapes, number types and values."""
    changed = dict(tensors)
    for _ in range(draw(st.integers(1, 3))):
        if not changed:
            break
        name = draw(st.sampled_from(sorted(changed)))
        value = changed.pop(name)
        match draw(st.sampled_from(["name", "shape", "type", "value", "lose"])):
            case "name":
                names = st.sampled_from(sorted(tensors)) | st.tuples(
                    st.sampled_from(["init/", "final/", "data/", "", "x"]), st.text(max_size=5)
                ).map("".join)
                changed[draw(names)] = value
            case "shape":
                flat = value.reshape(-1)[: draw(st.integers(1, 64))]
                shapes = [(-1,), (1, -1), (-1, 1), (1, 1, -1), (-1, 1, 1, 1), (1,) * 15 + (-1,)]
                changed[name] = flat.reshape(draw(st.sampled_from(shapes))).contiguous()
            case "type":
                types = [torch.float16, torch.bfloat16, torch.float64, torch.int64, torch.uint8]
                changed[name] = value.to(draw(st.sampled_from([*types, torch.bool])))
            case "value":
                other = value.clone().reshape(-1)
                other[draw(st.integers(0, len(other) - 1))] = draw(
                    st.sampled_from([0, 1, 3, 100])
                    if not value.is_floating_point()
                    else st.sampled_from([0.0, -1.0, 1e-30, 1e30, 3e38])
                )
                changed[name] = other.reshape(value.shape)
    return changed


@given(st.data(), kinds)
def test_changed_tensors(folder: Path, data: st.DataObject, kind: str) -> None:
    header, tensors = data.draw(
        st.sampled_from([(REAL_HEADER, REAL_TENSORS), (EMBEDDED_HEADER, EMBEDDED_TENSORS)])
    )
    content = as_file(header, data.draw(other_tensors(tensors)), kind)
    load_and_rebuild(folder / "m.pt", content)


@pytest.mark.parametrize("kind", ["pt", "safetensors"])
def test_data_in_half_precision_are_data(folder: Path, kind: str) -> None:
    half = dict(EMBEDDED_TENSORS)
    for part in PARTS:
        half[f"data/x_{part}"] = half[f"data/x_{part}"].bfloat16()
        half[f"data/y_{part}"] = half[f"data/y_{part}"].half()
    (folder / "half").write_bytes(as_file(EMBEDDED_HEADER, half, kind))
    found = load_bundle(folder / "half")
    subject = from_bundle(found, NOTHING)
    assert subject.task is not None
    assert subject.task.x_test.tolist() == half["data/x_test"].tolist()


# --- suites ---------------------------------------------------------------------------------

MOST_CASES = 6
"""Of a suite that is changed: each is set up for every example, and the atlas has hundreds."""


def shortened(text: str) -> str:
    return "\n[[case]]".join(text.split("\n[[case]]")[: MOST_CASES + 1])


SUITES = [
    shortened(path.read_text())
    for path in sorted(suite_folder().glob("*.toml"), key=lambda p: (p.stem != "quick", p.stem))
]
SUITE_TREES = [tomllib.loads(text) for text in SUITES]


def in_toml(value: Any) -> str:
    """A value in one line, tables inline; as valid as it is."""
    match value:
        case bool():
            return str(value).lower()
        case dict():
            return (
                "{" + ", ".join(f"{json.dumps(k)} = {in_toml(v)}" for k, v in value.items()) + "}"
            )
        case list():
            return "[" + ", ".join(map(in_toml, value)) + "]"
        case str() | None:
            return json.dumps(value or "")
    return repr(value)


def as_suite(tree: Any) -> str:
    return "\n".join(f"{json.dumps(key)} = {in_toml(value)}" for key, value in tree.items())


def load_and_set_up(path: Path, content: bytes) -> None:
    path.write_bytes(content)
    suite = value_of(lambda: load_suite(path))
    for case in () if suite is None else suite.cases:
        assert suite is not None
        value_of(lambda: bench.case_setup(suite, case))  # noqa: B023 (called at once)


@pytest.mark.parametrize("number", range(len(SUITES)))
def test_the_suites_that_are_mutated_are_whole(folder: Path, number: int) -> None:
    """The control: written in one line per key they are the suites that they were."""
    (folder / "whole.toml").write_text(as_suite(SUITE_TREES[number]))
    (folder / "given.toml").write_text(SUITES[number])
    assert load_suite(folder / "whole.toml") == load_suite(folder / "given.toml")


@given(st.binary(max_size=200) | st.text(max_size=200).map(lambda t: t.encode("utf-8", "replace")))
def test_random_suites(folder: Path, content: bytes) -> None:
    load_and_set_up(folder / "s.toml", content)


@st.composite
def other_tokens(draw: st.DrawFn, texts: Sequence[str]) -> str:
    """One of these texts with words, numbers and signs replaced, lost, doubled or exchanged."""
    tokens = re.findall(r"\w+|\s+|[^\w\s]", draw(st.sampled_from(texts)))
    for _ in range(draw(st.integers(1, 4))):
        here, there = (draw(st.integers(0, len(tokens) - 1)) for _ in range(2))
        other = st.sampled_from(WORDS) | st.sampled_from(NUMBERS).map(repr)
        tokens[here] = draw(
            st.sampled_from(["", tokens[there], 2 * tokens[here]]) | other | st.text(max_size=3)
        )
    return "".join(tokens)


@FEW
@given(other_tokens(SUITES))
@example(SUITES[0].replace("n_train = ", f"x = {'[' * 250}{']' * 250}, n_train = ", 1))
@example(SUITES[0].replace("n_train = ", f"x = {'{x = ' * 250}1{'}' * 250}, n_train = ", 1))
@example(SUITES[0].replace("n_train = ", f"x = {'[' * 9999}{']' * 9999}, n_train = ", 1))
def test_changed_text_of_suites(folder: Path, text: str) -> None:
    load_and_set_up(folder / "s.toml", text.encode("utf-8", "replace"))


QUICK_SUITE = SUITE_TREES[0]


@FEW
@given(mutated_trees(SUITE_TREES))
@example(with_value(QUICK_SUITE, "case", 0, "model", "output_multiplier", value="2^1000"))
@example(with_value(QUICK_SUITE, "case", 0, "task", "n_train", value=[50]))
@example(with_value(QUICK_SUITE, "case", 0, "task", "name", value="y" * 400))
@example(with_value(QUICK_SUITE, "case", 0, "task", "name", value="y" * 400 + ".csv"))
@example(with_value(QUICK_SUITE, "case", 0, "task", "name", value="y" * 400 + ".npz"))
@example(with_value(QUICK_SUITE, "case", 1, "task", "kappa", value=2**63))
@example(with_value(QUICK_SUITE, "case", 1, "task", "kappa", value=1e150))
@example(with_value(QUICK_SUITE, "case", 1, "task", "sigma", value=10**400))
@example(with_value(QUICK_SUITE, "case", 1, "task", "sigma", value=1e150))
def test_changed_suites(folder: Path, tree: Any) -> None:
    load_and_set_up(folder / "s.toml", as_suite(tree).encode("utf-8", "replace"))


# --- reports --------------------------------------------------------------------------------

REPORTS = [
    (OLD / "report-1.json").read_bytes(),
    *(report.to_json(make()).encode() for make in report_fixtures.PAGES.values()),
]
REPORT_TREES = [json.loads(content) for content in REPORTS]


def read_and_show(path: Path, content: bytes, *, page: bool = False) -> None:
    path.write_bytes(content)
    found = value_of(lambda: report.read(path))
    if found is None:
        return
    if page:
        assert html.render(found).rstrip().endswith("</html>")
    text = report.to_json(found)
    path.write_text(text)
    again = report.read(path)
    assert again == found
    assert report.to_json(again) == text
    shown = io.StringIO()
    console.show(found, shown, width=80)
    assert "\x1b" not in shown.getvalue()


@given(st.binary(max_size=200) | mutated_bytes(*REPORTS))
def test_random_bytes_and_changed_bytes_of_reports(folder: Path, content: bytes) -> None:
    read_and_show(folder / "r.json", content)


OLD_REPORT = REPORT_TREES[0]
FIRST_CELL = ("sweep", "cells", 0)


@given(mutated_trees(REPORT_TREES))
@example(with_value(OLD_REPORT, "setup", "x", value=[float("nan")]))
@example(with_value(OLD_REPORT, "diagnosis", "c", value=0))
@example(with_value(OLD_REPORT, *FIRST_CELL, "c", value=-1))
@example(with_value(OLD_REPORT, *FIRST_CELL, "seeds", 0, "val_error", value=1e300))
@example(with_value(OLD_REPORT, *FIRST_CELL, "seeds", 0, "test_loss", value=1e300))
def test_changed_reports(folder: Path, tree: Any) -> None:
    read_and_show(folder / "r.json", as_bytes(tree))


@FEW
@given(mutated_trees(REPORT_TREES))
@example(with_value(OLD_REPORT, *FIRST_CELL, "seeds", 0, "test_error", value=-1))
@example(with_value(OLD_REPORT, *FIRST_CELL, "seeds", 0, "test_loss", value=-1))
def test_pages_of_changed_reports(folder: Path, tree: Any) -> None:
    read_and_show(folder / "r.json", as_bytes(tree), page=True)


# --- baselines and comparisons --------------------------------------------------------------

BASELINES = [(OLD / "baseline-1.json").read_bytes()]
BASELINE_TREES = [json.loads(content) for content in BASELINES]
FIRST_RECORDED = ("cases", 0, "cells", 0)


def read_and_compare(folder: Path, content: bytes, *, page: bool = False) -> None:
    """Against the whole one, either way round; as text, Markdown and JSON, and as a page."""
    whole, path = folder / "whole.json", folder / "b.json"
    whole.write_bytes(BASELINES[0])
    path.write_bytes(content)
    found = value_of(lambda: baselines.read(path))
    if found is None:
        return
    path.write_text(baselines.to_text(found))
    assert baselines.read(path) == found
    assert baselines.to_text(baselines.read(path)).encode() == path.read_bytes()
    for paths in ((whole, path), (path, whole)):
        made = compare_files(paths)
        assert report.to_json(made)
        assert markdown.render(made)
        console.show(made, io.StringIO(), width=80)
        if page:
            assert html.render(made).rstrip().endswith("</html>")
    console.show_baseline(found, "here")


@given(mutated_bytes(*BASELINES) | mutated_trees(BASELINE_TREES).map(as_bytes))
@example(as_bytes(with_value(BASELINE_TREES[0], *FIRST_RECORDED, "seeds", value=[2**70] * 8)))
@example(as_bytes(with_value(BASELINE_TREES[0], *FIRST_RECORDED, "c", value=5e-324)))
@example(as_bytes(with_value(BASELINE_TREES[0], "cases", 0, "log2_c_ratio", "low", value=-1e308)))
@example(as_bytes(with_value(BASELINE_TREES[0], "environment", "blas", value="\ud800")))
def test_changed_baselines(folder: Path, content: bytes) -> None:
    read_and_compare(folder, content)


@FEW
@given(mutated_trees(BASELINE_TREES))
@example(with_value(BASELINE_TREES[0], *FIRST_RECORDED, "c", value=5e-324))
@example(with_value(BASELINE_TREES[0], *FIRST_RECORDED, "values", "test_error", value=[1e100] * 8))
@example(with_value(BASELINE_TREES[0], *FIRST_RECORDED, "values", "test_error", value=[-5.0] * 8))
def test_pages_of_changed_baselines(folder: Path, tree: Any) -> None:
    read_and_compare(folder, as_bytes(tree), page=True)


# --- the store ------------------------------------------------------------------------------

RUNS = (OLD / "runs-1.jsonl").read_bytes()
RUN_TREES = [json.loads(line) for line in RUNS.splitlines()]
lines = mutated_trees(RUN_TREES).map(as_bytes)


def load_and_append(path: Path, content: bytes) -> None:
    path.write_bytes(content)
    found = value_of(RunStore(path).load)
    if found is None:
        assert path.read_bytes() == content
        return
    assert all(digest == record.config.digest for digest, record in found.items())
    RunStore(path).append(list(found.values()))
    assert RunStore(path).load() == found
    assert path.read_bytes().startswith(content)


@given(st.binary(max_size=200) | mutated_bytes(RUNS))
def test_random_bytes_and_changed_bytes_of_stores(folder: Path, content: bytes) -> None:
    load_and_append(folder / "runs.jsonl", content)


@given(st.lists(lines | st.sampled_from(RUNS.splitlines()), min_size=1, max_size=4))
def test_changed_records(folder: Path, some: list[bytes]) -> None:
    load_and_append(folder / "runs.jsonl", b"\n".join(some))


def few_blobs(seed: int) -> Task:
    return own_nets.blobs(seed, n_train=12)


class Silent:
    def plan(self, total_runs: int, text: str) -> None:
        pass

    def done(self, runs: int, text: str) -> None:
        pass

    def note(self, text: str) -> None:
        pass


ENGINES = [
    asdict(Engine(kind, why="A reason.", ratio=1.5)) for kind in ("fused", "vmapped", "single")
]


@given(st.binary(max_size=50) | (values | mutated_trees(ENGINES)).map(as_bytes))
@example(b"[" * 9999)
@example(as_bytes(with_value(ENGINES[1], "replicas", value=0)))
@example(as_bytes(with_value(ENGINES[1], "device", value="cuda")))
@example(as_bytes(ENGINES[0]))
def test_whatever_lies_in_the_place_of_the_engine(folder: Path, content: bytes) -> None:
    path = folder / "own.jsonl"
    path.with_suffix(".engine.json").write_bytes(content)
    stop = TargetLoss(0.3, max_epochs=1)
    setup = own_nets.own(own_nets.plain_body, task=few_blobs, stop=stop)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(engines, "_by_trial", lambda *_: Engine("single"))  # takes no time
        prepared = prepare(setup, SweepPlan(), stores=lambda _: RunStore(path))
    sweeper = Sweeper.of(prepared, lambda _: None, Silent(), 1)
    sweeper.train([sweeper.config(1.0, 0, False)], "")
    assert [record.outcome for record in sweeper.used.values()] != [Outcome.FAILED]


# --- options --------------------------------------------------------------------------------

texts = (
    st.text(max_size=20)
    | st.text('0123456789.+-*/^e ,:=smh[]{}"٣²', max_size=20)
    | st.builds(
        "".join, st.lists(st.sampled_from(["1", "9" * 400, *"./^*-,:=", *WORDS]), max_size=6)
    )
)
options = texts | st.builds(
    "{},{}={}".format,
    st.sampled_from(["sgd", "adam", "adamw", "mlp"]),
    st.sampled_from(["lr", "schedule", "warmup", "momentum", "weight_decay", "clip_norm"]),
    texts | values.map(json.dumps) | texts.map("step:{}".format),
)


@given(texts | scalars)
@example("1/0")
@example("0^-1")
@example("9^999")
def test_any_multiplier(text: Any) -> None:
    found = value_of(lambda: parse_multiplier(text))
    assert found is None or 0 < found < math.inf


positive = st.floats(0, exclude_min=True, allow_infinity=False)


@given(
    positive, st.integers(1, 1000), st.sampled_from([1, 2]), *[st.tuples(positive, positive)] * 2
)
@example(0.1, 2, 2, (1.0, 1.0), (1e-160, 1.0))
@example(0.1, 2, 2, (1e300, 1.0), (1.0, 1.0))
@example(5e-324, 2, 2, (1.0, 1.0), (16.0, 1.0))
def test_a_rate_carried_as_far_as_you_like(
    lr: float, depth: int, power: int, at: tuple[float, float], to: tuple[float, float]
) -> None:
    rule = LrRule(name="homogeneous", depth=depth)
    found = value_of(lambda: scaled_rate(lr, rule, power, at=at, to=to))
    assert found is None or 0 < found < math.inf


@given(texts)
def test_any_budget(text: str) -> None:
    found = value_of(lambda: parse_seconds(text))
    assert found is None or 0 < found < math.inf


@given(options, st.none() | st.floats())
@example("sgd,schedule=step:" + "9" * 5000, None)
@example("sgd,schedule=linear,warmup=" + "9" * 5000, None)
@example("sgd,x=" + "[" * 100_000, None)
@example("sgd,x=" + "9" * 5000, None)
def test_any_optimizer_and_any_name_with_arguments(text: str, lr: float | None) -> None:
    value_of(lambda: parse_named("--model", text))
    value_of(lambda: parse_optimizer(text, lr))


# --- through the real command ---------------------------------------------------------------

through_the_command = settings(
    FEW, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)
QUICK = ["--no-store", "--max-epochs", "1", "--max-seeds", "3", "--budget", "1s", "-q"]


def ends_well(cli: Cli, folder: Path, *arguments: object, made: str | None = None) -> None:
    """Done, or refused with one paragraph; what was asked for appears whole or not at all."""
    before = {path.name for path in folder.iterdir()}
    ended = cli(*arguments)
    after = {path.name for path in folder.iterdir()}
    assert ended.code in (0, 2, 3), ended.err
    assert "Traceback" not in ended.err
    assert "Internal error" not in ended.err
    assert after - before <= {made}
    if ended.code == 0:
        assert made is None or made in after
    else:
        assert after == before
        assert ended.err.startswith("error: ")
        assert "\n\n" not in ended.err
    if made in after:
        (folder / str(made)).unlink()


@through_the_command
@given(
    mutated_bytes(REAL_PT, REAL_SAFETENSORS)
    | st.builds(as_file, mutated_trees([REAL_HEADER]), st.just(REAL_TENSORS), kinds)
    | st.builds(as_file, mutated_trees([EMBEDDED_HEADER]), st.just(EMBEDDED_TENSORS), kinds)
)
def test_diagnose_any_model_file(cli: Cli, folder: Path, content: bytes) -> None:
    (folder / "m.pt").write_bytes(content)
    page = folder / "page.html"
    ends_well(cli, folder, "diagnose", folder / "m.pt", "--html", page, *QUICK, made="page.html")


@through_the_command
@given(other_tokens(SUITES) | mutated_trees(SUITE_TREES).map(as_suite))
def test_validate_any_suite(cli: Cli, folder: Path, text: str) -> None:
    (folder / "s.toml").write_text(text, errors="replace")
    ends_well(cli, folder, "suites", "validate", folder / "s.toml")
    ends_well(cli, folder, "suites", "show", folder / "s.toml")


@through_the_command
@given(mutated_bytes(*REPORTS) | mutated_trees(REPORT_TREES).map(as_bytes))
def test_show_any_report(cli: Cli, folder: Path, content: bytes) -> None:
    (folder / "r.json").write_bytes(content)
    page = folder / "page.html"
    ends_well(cli, folder, "report", folder / "r.json", "--html", page, made="page.html")


def stored_command(folder: Path) -> list[str]:
    given = ["diagnose", str(folder / "whole.pt"), "--store", str(folder / "store")]
    return [*given, *["--max-epochs", "1", "--max-seeds", "3", "--budget", "1s", "-q"]]


@pytest.fixture(scope="module")
def stored(folder: Path) -> tuple[Path, bytes]:
    """The store that a diagnosis leaves behind, and what is in it."""
    (folder / "whole.pt").write_bytes(as_file(EMBEDDED_HEADER, EMBEDDED_TENSORS, "pt"))
    with pytest.raises(SystemExit):
        main(stored_command(folder))
    (path,) = (folder / "store").glob("*.jsonl")
    return path, path.read_bytes()


@through_the_command
@given(st.data(), st.binary(max_size=50) | mutated_trees(ENGINES).map(as_bytes))
def test_diagnose_with_any_store(
    cli: Cli, folder: Path, stored: tuple[Path, bytes], data: st.DataObject, engine: bytes
) -> None:
    path, whole = stored
    trees = [json.loads(line) for line in whole.splitlines()]
    some = st.lists(mutated_trees(trees).map(as_bytes), min_size=1, max_size=5)
    path.write_bytes(data.draw(mutated_bytes(whole) | some.map(b"\n".join)))
    path.with_suffix(".engine.json").write_bytes(engine)
    ends_well(cli, folder, *stored_command(folder))


@through_the_command
@given(
    st.sampled_from(["--optimizer", "--output-multiplier", "--init-scale", "--lr", "--loss"]),
    options,
)
@example("--optimizer", "x\n\ny")
def test_train_with_any_option(cli: Cli, folder: Path, option: str, text: str) -> None:
    text = text.replace("\0", "").encode("utf-8", "replace").decode()
    line = f"train -o {folder / 'new.pt'} --n-train 20 --width 3 --max-epochs 1".split()
    ends_well(cli, folder, *line, f"{option}={text}", made="new.pt")
