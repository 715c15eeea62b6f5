"""A net's weights are found under any wrapping, and never under a wrong one."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from fls_bench.bundle import Checkpoint, Match, NetShape, match_weights
from fls_bench.bundle.pickles import StoredTensor
from fls_bench.errors import InputError

WORDS = st.sampled_from(["model", "module", "net", "state_dict", "backbone", "a", "0", "weight"])
NAMES = st.lists(WORDS, min_size=1, max_size=3).map(".".join)


def stored(key: str, shape: tuple[int, ...] = (2, 3)) -> StoredTensor:
    numel = torch.Size(shape).numel()
    stride = torch.empty(shape, device="meta").stride()
    return StoredTensor(torch.float32, key, numel, 0, shape, tuple(stride))


def checkpoint(tensors: dict[str, StoredTensor], homes: dict[str, str] | None = None) -> Checkpoint:
    return Checkpoint(
        path=Path("m.pt"), kind="state dict", tensors=tensors,
        homes=homes or dict.fromkeys(tensors, ""), claims={}, header=None, passed_over=(),
        allowed=frozenset(),
    )  # fmt: skip


def shape_of(
    names: dict[str, tuple[int, ...]], tied: dict[str, tuple[str, ...]] | None = None
) -> NetShape:
    return NetShape(shapes=names, floating=frozenset(names), tied=tied or {})


def matched(file: Checkpoint, net: NetShape, wanted: str | None = None) -> Match | str:
    try:
        return match_weights(file, net, wanted=wanted)
    except InputError as error:
        return error.problem


@st.composite
def wrapped(draw: st.DrawFn) -> tuple[dict[str, tuple[int, ...]], str, Checkpoint]:
    """A net's names and shapes, a wrapping, and the file that it makes."""
    own = draw(
        st.dictionaries(NAMES, st.sampled_from([(2, 3), (4,), (1, 5)]), min_size=1, max_size=6)
    )
    home = draw(st.sampled_from(["", "state_dict", "model", "a.state_dict"]))
    inner = draw(st.sampled_from(["", "module.", "model.", "net.module.", "backbone."]))
    compiled = draw(st.booleans())
    prefix = f"{home}.{inner}" if home else inner
    tensors, homes = {}, {}
    for index, (name, shape) in enumerate(own.items()):
        first, _, rest = name.partition(".")
        written = f"{first}._orig_mod.{rest}" if compiled and rest else name
        tensors[prefix + written] = stored(str(index), shape)
        homes[prefix + written] = home
    return own, prefix.rstrip("."), checkpoint(tensors, homes)


@given(wrapped())
def test_what_is_found_is_always_the_whole_net_with_every_tensor_its_own(
    case: tuple[dict[str, tuple[int, ...]], str, Checkpoint],
) -> None:
    own, prefix, file = case
    found = matched(file, shape_of(own), prefix)
    assert not isinstance(found, str), found
    assert found.tensors.keys() == own.keys()
    for index, name in enumerate(own):
        assert found.tensors[name].shape == own[name]
        if found.prefix == prefix:
            assert found.tensors[name].key == str(index)


@given(wrapped(), st.data())
def test_a_net_that_lacks_a_tensor_never_passes_as_whole(
    case: tuple[dict[str, tuple[int, ...]], str, Checkpoint], data: st.DataObject
) -> None:
    own, prefix, file = case
    gone = data.draw(st.sampled_from(sorted(file.tensors)))
    rest = {name: tensor for name, tensor in file.tensors.items() if name != gone}
    found = matched(checkpoint(rest, {k: file.homes[k] for k in rest}), shape_of(own), prefix)
    if not isinstance(found, str):
        assert len({tensor.key for tensor in found.tensors.values()}) == len(own)
        raise AssertionError(f"{own} was found without {gone}")
    assert "do not fit" in found or "holds no weights" in found


def test_plain_weights_win_over_averages_and_over_the_init() -> None:
    net = shape_of({"w": (2, 3)})
    tensors = {
        f"{home}.w": stored(home)
        for home in ("ema", "initial_state", "model", "state_dict_ema", "swa_model")
    }
    file = checkpoint(tensors, {name: name.removesuffix(".w") for name in tensors})
    found = match_weights(file, net)
    assert found.prefix == "model"
    assert not found.averaged
    assert set(found.others) == {"ema", "initial_state", "state_dict_ema", "swa_model"}
    chosen = match_weights(file, net, wanted="state_dict_ema")
    assert chosen.averaged
    assert chosen.tensors["w"].key == "state_dict_ema"


def test_two_trained_nets_need_a_word_unless_they_are_one() -> None:
    net = shape_of({"w": (2, 3)})
    homes = {"best.w": "best", "last.w": "last"}
    two = checkpoint({"best.w": stored("1"), "last.w": stored("2")}, homes)
    with pytest.raises(InputError, match=r"more than once: under 'best', 'last'"):
        match_weights(two, net)
    one = checkpoint({"best.w": stored("1"), "last.w": stored("1")}, homes)
    assert match_weights(one, net).tensors["w"].key == "1"
    assert match_weights(two, net, wanted="last").tensors["w"].key == "2"


def test_counters_that_old_torch_did_not_store_are_not_missed() -> None:
    names = {"bn.weight": (2, 3), "bn.num_batches_tracked": ()}
    found = match_weights(checkpoint({"bn.weight": stored("1")}), shape_of(names))
    assert found.counters == ("bn.num_batches_tracked",)
    assert found.tensors.keys() == {"bn.weight"}


def test_compiled_and_plain_copies_of_one_name_are_not_mixed() -> None:
    tensors = {"w": stored("plain"), "_orig_mod.w": stored("compiled")}
    found = matched(checkpoint(tensors), shape_of({"w": (2, 3)}))
    assert isinstance(found, str)
    assert "both called 'w'" in found


def test_words_that_only_contain_the_name_of_an_average_are_none() -> None:
    net = shape_of({"w": (2, 3)})
    for home in ("schema_net", "semantic", "swap", "remainder"):
        assert not match_weights(checkpoint({f"{home}.w": stored("1")}), net).averaged
    for home in ("ema", "model_ema", "state_dict_ema", "ema_model", "swa", "averaged_net"):
        assert match_weights(checkpoint({f"{home}.w": stored("1")}), net).averaged
    # Who teaches whom is not ours to know.
    homes = {"student.w": "student", "teacher.w": "teacher"}
    found = matched(checkpoint({"student.w": stored("1"), "teacher.w": stored("2")}, homes), net)
    assert "more than once" in str(found)


def test_a_dict_nested_by_layer_is_matched_strictly() -> None:
    names = {"model.0.weight": "model.0", "model.2.weight": "model.2", "model.6.weight": "model.6"}
    file = checkpoint({name: stored(name) for name in names}, names)
    found = matched(file, shape_of({"0.weight": (2, 3), "2.weight": (2, 3)}))
    assert "unexpected '6.weight'" in str(found)


def test_any_name_of_a_tied_weight_will_do() -> None:
    shape = NetShape(
        shapes=dict.fromkeys("abc", (2, 3)), floating=frozenset("abc"),
        tied={"a": ("b", "c"), "b": ("a", "c"), "c": ("a", "b")},
    )  # fmt: skip
    for name in "abc":
        found = match_weights(checkpoint({name: stored("1")}), shape)
        assert {tensor.key for tensor in found.tensors.values()} == {"1"}
        assert found.tensors.keys() == set("abc")
