"""What is written is what is read again, and nothing is written that could not be."""

import hashlib
import importlib
import os
import sys
from dataclasses import dataclass, replace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors import safe_open

from fls_bench import models, tasks
from fls_bench.bundle import load_bundle, save_bundle, write_bundle
from fls_bench.errors import FlsBenchError, InputError, UnsafeFileError
from fls_bench.schema import (
    ArchitectureSpec,
    BundleHeader,
    BundleOutcome,
    LrRule,
    Outcome,
    Recipe,
    Sgd,
    TargetAccuracy,
    TaskSpec,
    Tier,
)
from fls_bench.subject.files import evidence_tier

ARGUMENTS = {"input_dim": 13, "n_outputs": 3, "depth": 2, "width": 5}
MLP = ArchitectureSpec(name="mlp", arguments=ARGUMENTS)
BOTH = pytest.mark.parametrize("suffix", [".pt", ".safetensors"])


def net(seed: int = 0) -> torch.nn.Module:
    return models.build("mlp", ARGUMENTS, seed=seed)


@pytest.fixture(scope="module")
def wine() -> tasks.Task:
    return tasks.wine(0)


@pytest.fixture(scope="module")
def own_task() -> tasks.Task:
    rng = np.random.default_rng(0)

    def part(n: int):
        return rng.standard_normal((n, 13)), np.arange(n) % 3

    return tasks.make_task("mine", part(30), part(20), part(10))


@BOTH
def test_everything_that_is_saved_is_read_again(tmp_path, suffix, wine):
    trained, start = net(1), net(0)
    recipe = Recipe(
        optimizer=Sgd(lr=0.025, momentum=0.9),
        lr_rule=LrRule(name="homogeneous", depth=2),
        stop=TargetAccuracy(target_accuracy=0.9),
        seed=3,
    )
    outcome = BundleOutcome(status=Outcome.PLATEAU, epochs=4, steps=8, train_loss=None)
    path = save_bundle(
        tmp_path / f"m{suffix}",
        trained,
        initial_state=start.state_dict(),
        task=wine,
        recipe=recipe,
        outcome=outcome,
        output_multiplier=2.0**-9,
        init_scale=0.5,
        centered=True,
        multiplier_route="factory",
        architecture=MLP,
        builder_hint="my_net:build",
        feature_layer="layers.0",
    )
    bundle = load_bundle(path)
    header = bundle.header
    assert (header.output_multiplier, header.init_scale, header.centered) == (2.0**-9, 0.5, True)
    assert (header.recipe, header.outcome) == (recipe, outcome)
    assert header.architecture == MLP.model_copy(update={"hint": "my_net:build"})
    assert (header.multiplier_route, header.feature_layer) == ("factory", "layers.0")
    assert header.versions.keys() == {"fls_bench", "torch", "python"}
    for state, model in [(bundle.final, trained), (bundle.init, start)]:
        assert state.keys() == model.state_dict().keys()
        assert all(torch.equal(state[name], model.state_dict()[name]) for name in state)
    assert bundle.num_parameters == sum(p.numel() for p in trained.parameters())
    assert bundle.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
    assert bundle.path == path


def test_both_formats_are_what_other_readers_expect(tmp_path):
    save_bundle(tmp_path / "m.pt", net())
    content = torch.load(tmp_path / "m.pt", weights_only=True)
    assert content.keys() == {"fls_bench", "tensors"}
    assert BundleHeader.model_validate_json(content["fls_bench"]).output_multiplier == 1
    save_bundle(tmp_path / "m.safetensors", net())
    with safe_open(tmp_path / "m.safetensors", "pt") as file:
        assert set(file.keys()) == set(content["tensors"])
        assert "schema" in file.metadata()["fls_bench"]


@BOTH
def test_content_counts_and_not_the_suffix(tmp_path, suffix):
    path = save_bundle(tmp_path / f"m{suffix}", net())
    other = path.rename(tmp_path / ("m.pt" if suffix == ".safetensors" else "m.safetensors"))
    assert load_bundle(other).num_parameters == 80


@BOTH
def test_a_built_in_task_is_stored_by_name_and_loads_as_the_same_data(tmp_path, suffix, wine):
    bundle = load_bundle(save_bundle(tmp_path / f"m{suffix}", net(), task=wine))
    assert bundle.data == {}
    assert bundle.header.task.fingerprint == wine.fingerprint
    assert bundle.header.task.n_train == wine.n_train
    assert tasks.load_task(bundle.header.task).fingerprint == wine.fingerprint


@BOTH
def test_any_other_task_is_stored_with_its_arrays(tmp_path, suffix, own_task):
    bundle = load_bundle(save_bundle(tmp_path / f"m{suffix}", net(), task=own_task))
    spec = bundle.header.task
    assert (spec.name, spec.embedded, spec.n_train) == ("mine", True, 30)
    assert spec.fingerprint == own_task.fingerprint
    for name, value in bundle.data.items():
        np.testing.assert_array_equal(value.numpy(), getattr(own_task, name))
    assert len(bundle.data) == 6


def test_a_task_from_a_file_is_embedded_and_its_path_is_not_stored(tmp_path, own_task):
    for spec in (TaskSpec(name="/home/me/data.npz"), TaskSpec(name="mine", embedded=True)):
        task = replace(own_task, spec=spec)
        path = save_bundle(tmp_path / "m.pt", net(), task=task, force=True)
        assert b"/home/me" not in path.read_bytes()
        assert len(load_bundle(path).data) == 6


def test_views_tied_weights_and_counters_survive(tmp_path):
    class Tied(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.a = torch.nn.Linear(4, 4, bias=False)
            self.b = torch.nn.Linear(4, 4, bias=False)
            self.b.weight = self.a.weight
            self.norm = torch.nn.BatchNorm1d(4)
            self.register_buffer("view", torch.arange(9.0).reshape(3, 3).T[:2].expand(5, 2, 3))
            self.register_buffer("mask", torch.tensor([True, False]))

    for suffix in (".pt", ".safetensors"):
        model = Tied()
        bundle = load_bundle(save_bundle(tmp_path / f"m{suffix}", model))
        for name, value in model.state_dict().items():
            assert torch.equal(bundle.final[name], value)
            assert bundle.final[name].dtype == value.dtype


@pytest.mark.parametrize(
    ("builder", "task", "initial", "recipe", "given", "tier", "word"),
    [
        (False, True, True, True, False, Tier.T0, "--model"),
        (True, False, True, True, False, Tier.T0, "task"),
        (True, True, False, True, False, Tier.T1, "initial weights"),
        (True, True, True, False, False, Tier.T2, "recipe"),
        (True, True, True, True, False, Tier.T3, "c can be swept"),
        (False, True, True, True, True, Tier.T3, "c can be swept"),
    ],
)
def test_evidence_tier_is_the_best_one_and_says_what_is_missing(
    tmp_path, own_task, builder, task, initial, recipe, given, tier, word
):
    bundle = load_bundle(
        save_bundle(
            tmp_path / "m.pt",
            net(),
            architecture=MLP if builder else None,
            builder_hint="my_net:build",
            task=own_task if task else None,
            initial_state=net().state_dict() if initial else None,
            recipe=Recipe() if recipe else None,
        )
    )
    found, sentence = evidence_tier(bundle, builder_given=given)
    assert found is tier
    assert word in sentence
    assert sentence.endswith(".")
    if "--model" in sentence:
        assert "my_net:build" in sentence


def test_a_builder_hint_is_kept_and_never_imported(tmp_path, monkeypatch):
    (tmp_path / "trap_module.py").write_text("raise SystemExit('imported')")
    monkeypatch.syspath_prepend(tmp_path)
    importlib.invalidate_caches()
    bundle = load_bundle(save_bundle(tmp_path / "m.pt", net(), builder_hint="trap_module:build"))
    evidence_tier(bundle)
    assert bundle.header.architecture.hint == "trap_module:build"
    assert "trap_module" not in sys.modules


def test_an_existing_file_is_kept_without_force(tmp_path):
    path = save_bundle(tmp_path / "m.pt", net(0))
    before = path.read_bytes()
    with pytest.raises(InputError, match="--force"):
        save_bundle(path, net(1))
    assert path.read_bytes() == before
    save_bundle(path, net(1), force=True)
    assert path.read_bytes() != before
    assert os.listdir(tmp_path) == ["m.pt"]


def test_paths_that_cannot_be_written(tmp_path):
    for path, word in [
        (tmp_path / "no" / "m.pt", "does not exist"),
        (tmp_path, "is a directory"),
        (tmp_path / ("x" * 300), "can't be written: File name too long"),
        (tmp_path / "a\0b", "can't be written"),
        ("a\0b/m.pt", "does not exist"),
    ]:
        with pytest.raises(InputError, match=word):
            save_bundle(path, net(), force=True)
    assert os.listdir(tmp_path) == []


@BOTH
@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), KeyboardInterrupt()])
def test_a_write_that_breaks_off_leaves_the_old_file_and_nothing_else(
    tmp_path, monkeypatch, suffix, error
):
    path = save_bundle(tmp_path / f"m{suffix}", net(0))
    before = path.read_bytes()

    def fail(descriptor: int) -> None:
        raise error

    monkeypatch.setattr(os, "fsync", fail)
    expected = InputError if isinstance(error, OSError) else KeyboardInterrupt
    with pytest.raises(expected):
        save_bundle(path, net(1), force=True)
    assert path.read_bytes() == before
    assert os.listdir(tmp_path) == [path.name]


def _diverged() -> torch.nn.Module:
    model = net()
    with torch.no_grad():
        model.layers[0].weight[0, 0] = float("nan")
    return model


@pytest.mark.parametrize(
    ("arguments", "error", "words"),
    [
        ({"model": _diverged()}, InputError, ["'final/layers.0.weight'", "NaN", "diverged"]),
        ({"model": 3}, InputError, ["int", "state_dict()"]),
        ({"model": {"epoch": 3}}, InputError, ["'epoch'", "not a tensor"]),
        ({"model": {}}, InputError, ["no trained weights"]),
        ({"model": torch.nn.LazyLinear(3)}, InputError, ["lazy"]),
        ({"model": torch.nn.Linear(2, 2, device="meta")}, InputError, ["meta"]),
        ({"model": {"w": torch.ones(0, 2)}}, InputError, ["is empty", "(0, 2)"]),
        ({"model": {"w": torch.eye(2).to_sparse()}}, InputError, ["sparse"]),
        ({"model": {"w": torch.ones(2, dtype=torch.cfloat)}}, InputError, ["complex64"]),
        ({"model": {"w\n": torch.ones(2)}}, InputError, ["unprintable"]),
        ({"initial_state": {"w": torch.ones(2)}}, InputError, ["initial weights", "missing"]),
        ({"architecture": MLP, "model": torch.nn.Linear(2, 2)}, InputError, ["unexpected"]),
        ({"architecture": ArchitectureSpec(name="os:system")}, UnsafeFileError, ["os:system"]),
        (
            {"architecture": ArchitectureSpec(name="mlp", arguments={"width": object()})},
            InputError,
            ["not plain data"],
        ),
        ({"output_multiplier": 0.0}, InputError, ["output_multiplier", "greater than 0"]),
        ({"output_multiplier": float("nan")}, InputError, ["output_multiplier"]),
        ({"centered": True}, InputError, ["centered", "initial_state="]),
        ({"feature_layer": "\x1b[2J"}, InputError, ["unprintable"]),
    ],
)
def test_what_could_not_be_read_again_is_not_written(tmp_path, arguments, error, words):
    with pytest.raises(FlsBenchError) as caught:
        save_bundle(tmp_path / "m.pt", **({"model": net()} | arguments))
    assert type(caught.value) is error
    for word in words:
        assert word in str(caught.value)
    assert os.listdir(tmp_path) == []


def test_a_task_without_numbers_is_refused(tmp_path):
    @dataclass(frozen=True)
    class Words:
        name = "words"
        n_classes = 2
        fingerprint = "0"
        spec = None
        x_train = np.array([["a"]])

    with pytest.raises(InputError, match="not numbers"):
        save_bundle(tmp_path / "m.pt", net(), task=Words())


_SHAPES = st.lists(st.integers(1, 4), max_size=3)
_DTYPES = st.sampled_from(
    [torch.float16, torch.bfloat16, torch.float32, torch.float64, torch.int64]
)
_NAMES = st.text(st.characters(categories=["L", "N", "P"]), min_size=1, max_size=8)


@given(
    st.dictionaries(_NAMES, st.tuples(_SHAPES, _DTYPES), min_size=1, max_size=4),
    st.sampled_from([".pt", ".safetensors"]),
    st.floats(1e-30, 1e30),
)
def test_round_trip_is_exact(tmp_path_factory, described, suffix, multiplier):
    path = tmp_path_factory.mktemp("round") / f"m{suffix}"
    tensors = {
        name: (torch.randn(shape) * 100).to(dtype) for name, (shape, dtype) in described.items()
    }
    header = BundleHeader(architecture=ArchitectureSpec(), output_multiplier=multiplier)
    write_bundle(path, header, final=tensors, init=tensors)
    bundle = load_bundle(path)
    assert bundle.header == header
    assert bundle.final.keys() == bundle.init.keys() == tensors.keys()
    for name, value in tensors.items():
        assert bundle.final[name].dtype == value.dtype
        assert torch.equal(bundle.final[name], value)
