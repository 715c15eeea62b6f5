"""Nets for images: shapes, names, init, what is refused, and many replicas as one."""

from __future__ import annotations

import copy
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.func import functional_call, grad_and_value, stack_module_state, vmap
from torch.nn import functional

from fls_bench import models
from fls_bench.bundle import load_bundle, save_bundle
from fls_bench.errors import InputError
from fls_bench.homogeneity import measured_scaling
from fls_bench.schema import ArchitectureSpec
from fls_bench.tasks import make_task

GREY, COLOUR = (1, 8, 8), (3, 16, 12)
LARGER = (1, 17, 20)
"""For the net whose last convolutions would see one pixel of the others."""
PLAIN_VGG = {"width": 2, "norm": "none"}
IMAGE_NETS = [
    ("cnn", {"width": 4}),
    ("cnn", {"width": 3, "depth": 5, "norm": "batch", "bias": True}),
    ("resnet", {"width": 4}),
    ("resnet", {"width": 4, "blocks": 2, "norm": "none"}),
    ("resnet18", {"width": 2}),
    ("resnet18", {"width": 2, "stem": "imagenet"}),
    ("resnet34", {"width": 2}),
    ("resnet50", {"width": 2}),
    ("resnet50", {"width": 1, "stem": "imagenet"}),
    ("vgg19", {"width": 2}),
    ("vit", {"dim": 8, "depth": 2, "heads": 2}),
    ("vit", {"dim": 8, "depth": 1, "heads": 4, "pooling": "class", "mlp_ratio": 1, "patch": 2}),
]
EVERY_NET = pytest.mark.parametrize(
    ("name", "arguments"), IMAGE_NETS, ids=[f"{name}{k}" for k, (name, _) in enumerate(IMAGE_NETS)]
)
CLASSES = 3


def numbers(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def built(
    name: str, arguments: dict[str, Any], shape: tuple[int, ...] = GREY, seed: int = 0
) -> nn.Module:
    sized = {**models.architecture(name).sized(shape, CLASSES), **arguments}
    return models.build(name, sized, seed=seed, dtype=torch.float64)


# --- what is built --------------------------------------------------------------------------


@EVERY_NET
def test_images_go_in_and_logits_come_out(name: str, arguments: dict[str, Any]) -> None:
    assert built(name, arguments, COLOUR)(numbers(5, *COLOUR)).shape == (5, CLASSES)
    net = built(name, arguments, GREY[1:]).eval()
    x = numbers(5, *GREY)
    output = net(x)
    assert output.shape == (5, CLASSES)
    assert torch.equal(net(x.squeeze(1)), output)
    assert torch.isfinite(output).all()
    # A VGG of new norms in evaluation mode sees a map of one pixel through one weight of nine.
    assert float(output.detach().std()) > (1e-5 if name == "vgg19" else 1e-3)
    # Points do not see each other in evaluation mode.
    torch.testing.assert_close(net(x[1:2]), output[1:2])


@EVERY_NET
def test_names_and_shapes_of_parameters_and_buffers_are_known_without_building(
    name: str, arguments: dict[str, Any]
) -> None:
    sized = {"input_shape": [1, 8, 8], "n_outputs": CLASSES, **arguments}
    state = models.build(name, sized, seed=0).state_dict()
    assert models.state_shapes(name, sized) == {k: tuple(v.shape) for k, v in state.items()}
    for key, value in state.items():
        whole = key.endswith("num_batches_tracked")
        assert value.dtype == (torch.int64 if whole else torch.float32)
        if "running_var" in key:
            assert torch.equal(value, torch.ones_like(value))
        elif whole or "running_mean" in key:
            assert not value.any()


@EVERY_NET
def test_a_seed_means_the_same_net_in_every_precision(name: str, arguments: dict[str, Any]) -> None:
    sized = {**models.architecture(name).sized(GREY, CLASSES), **arguments}
    state = torch.get_rng_state()
    single = models.build(name, sized, seed=7)
    double = models.build(name, sized, seed=7, dtype=torch.float64)
    other = models.build(name, sized, seed=8)
    assert torch.equal(state, torch.get_rng_state())
    for (key, a), b in zip(single.named_parameters(), double.parameters(), strict=True):
        assert torch.equal(a, b.float()), key
        constant = a.ndim == 1 and bool((a == a[0]).all())  # zero biases, ones of norms
        assert constant or not torch.equal(a, other.get_parameter(key)), key


@pytest.mark.parametrize("depth", [2, 3, 5])
def test_the_plain_cnn_is_homogeneous_of_one_more_than_its_depth(depth: int) -> None:
    net = built("cnn", {"width": 3, "depth": depth})
    assert len(models.weight_matrices(net)) == depth + 1
    found = measured_scaling(net, numbers(20, *GREY))
    assert found is not None
    assert (found.kind, found.depth) == ("homogeneous", depth + 1)
    assert set(found.exponents.values()) == {1.0}


def test_a_bias_of_the_cnn_counts_the_layers_up_to_it() -> None:
    net = built("cnn", {"width": 3, "depth": 2, "bias": True})
    found = measured_scaling(net, numbers(20, *GREY))
    assert found is not None
    assert (found.kind, found.depth) == ("homogeneous", 3)
    assert found.exponents == dict.fromkeys(found.exponents, 1.0) | {
        "convs.0.bias": 1.0, "convs.1.bias": 2.0, "readout.bias": 3.0,
    }  # fmt: skip


def test_vgg19_without_normalisation_is_homogeneous_and_its_biases_count_their_layers() -> None:
    net, x = built("vgg19", PLAIN_VGG, LARGER), numbers(40, *LARGER)
    found = measured_scaling(net, x)
    assert found is not None
    assert (found.kind, found.depth) == ("homogeneous", 17)
    assert float(net(x).detach().std(0).mean()) > 0.01  # what it sees matters from the start
    layers = models.weight_matrices(net)
    expected = {f"{layer}.weight": 1.0 for layer in layers}
    assert found.exponents == expected | {f"{k}.bias": n for n, k in enumerate(layers, 1)}


READOUT = {"readout.weight": 1.0}
LAST_NORM = {"norm.weight": 1.0, "norm.bias": 1.0, "readout.weight": 1.0, "readout.bias": 2.0}
LAST_OF_VGG = {
    "features.50.weight": 1.0, "features.50.bias": 1.0,
    "classifier.weight": 1.0, "classifier.bias": 2.0,
}  # fmt: skip
SHORTCUT = {
    **{f"layer3.0.{part}.{kind}": 1.0 for part in ("bn2", "downsample.1")
       for kind in ("weight", "bias")},
    "fc.weight": 1.0, "fc.bias": 2.0,
}  # fmt: skip


@pytest.mark.parametrize(
    ("name", "arguments", "depth", "exponents"),
    [
        (
            "cnn",
            {"width": 3, "depth": 2, "norm": "batch"},
            2,
            {"norms.1.weight": 1.0, "norms.1.bias": 1.0, **READOUT},
        ),
        # The scale of the last map is free as long as no normalisation with its epsilon follows.
        ("resnet", {"width": 2}, 2, SHORTCUT),
        ("resnet", {"width": 2, "blocks": 2}, 1, {"fc.weight": 1.0, "fc.bias": 1.0}),
        ("resnet18", {"width": 2}, 1, {"fc.weight": 1.0, "fc.bias": 1.0}),
        ("resnet34", {"width": 2}, 1, {"fc.weight": 1.0, "fc.bias": 1.0}),
        ("resnet50", {"width": 2}, 1, {"fc.weight": 1.0, "fc.bias": 1.0}),
        ("vgg19", {"width": 2}, 2, LAST_OF_VGG),
        ("vit", {"dim": 8, "depth": 1}, 2, LAST_NORM),
        ("vit", {"dim": 8, "depth": 1, "pooling": "class"}, 2, LAST_NORM),
    ],
    ids=[
        "cnn", "resnet", "two blocks", "resnet18", "resnet34", "resnet50", "vgg19", "vit",
        "class token",
    ],
)  # fmt: skip
def test_of_normalised_nets_what_comes_after_the_last_norm_scales(
    name: str, arguments: dict[str, Any], depth: int, exponents: dict[str, float]
) -> None:
    found = measured_scaling(built(name, arguments), numbers(40, *GREY))
    assert found is not None
    assert (found.kind, found.depth) == ("normalised", depth)
    assert {key: e for key, e in found.exponents.items() if e} == exponents


def test_a_residual_net_without_normalisation_has_no_exponents() -> None:
    net = built("resnet", {"width": 3, "norm": "none"})
    assert measured_scaling(net, numbers(20, *GREY)) is None


def test_the_cnn_is_the_convolutions_and_poolings_it_stands_for() -> None:
    net, x = built("cnn", {"width": 2, "depth": 3}, (1, 20, 20)), numbers(4, 1, 20, 20)
    w1, w2, w3, readout = (p.detach() for p in net.parameters())
    assert [tuple(w.shape) for w in (w1, w2, w3)] == [(2, 1, 3, 3), (2, 2, 3, 3), (4, 2, 3, 3)]
    hidden = x
    for weight, pooled in ((w1, True), (w2, False), (w3, True)):
        padded = functional.pad(hidden, (1, 1, 1, 1))
        patches = padded.unfold(2, 3, 1).unfold(3, 3, 1)
        hidden = torch.einsum("nchwij,ocij->nohw", patches, weight).clamp_min(0)
        if pooled:
            n, c, h, w = hidden.shape
            hidden = hidden.reshape(n, c, h // 2, 2, w // 2, 2).amax((3, 5))
    # 20 -> 10 -> 5 pixels a side; the grid of 4 x 4 cells averages pixels k..k+1.
    cells = hidden.unfold(2, 2, 1).unfold(3, 2, 1).mean((4, 5))
    torch.testing.assert_close(net(x), cells.flatten(1) @ readout.T)


def test_the_transformer_is_the_formula_it_stands_for() -> None:
    net, x = built("vit", {"dim": 6, "heads": 2, "depth": 1, "pooling": "class"}), numbers(2, *GREY)
    with torch.no_grad():
        for k, parameter in enumerate(net.parameters()):
            parameter.copy_(numbers(*parameter.shape, seed=k) / 2)
    p = {key: value.detach() for key, value in net.named_parameters()}

    def norm(tokens: Tensor, which: str) -> Tensor:
        centered = tokens - tokens.mean(-1, keepdim=True)
        scale = (centered.square().mean(-1, keepdim=True) + 1e-5).sqrt()
        return centered / scale * p[f"{which}.weight"] + p[f"{which}.bias"]

    def linear(tokens: Tensor, which: str) -> Tensor:
        return tokens @ p[f"{which}.weight"].T + p[f"{which}.bias"]

    for image, output in zip(x, net(x), strict=True):
        patches = [image[0, i : i + 4, j : j + 4].flatten() for i in (0, 4) for j in (0, 4)]
        tokens = torch.cat([p["class_token"][0], linear(torch.stack(patches), "embed")])
        tokens = tokens + p["positions"][0]
        qkv = linear(norm(tokens, "blocks.0.norm1"), "blocks.0.attention.qkv")
        mixed = []
        for head in (slice(0, 3), slice(3, 6)):
            query, key, value = (qkv[:, 6 * k : 6 * k + 6][:, head] for k in range(3))
            mixed.append(torch.softmax(query @ key.T / math.sqrt(3), -1) @ value)
        tokens = tokens + linear(torch.cat(mixed, -1), "blocks.0.attention.out")
        hidden = functional.gelu(linear(norm(tokens, "blocks.0.norm2"), "blocks.0.hidden"))
        tokens = norm(tokens + linear(hidden, "blocks.0.out"), "norm")
        torch.testing.assert_close(output, linear(tokens[0], "readout"))


@pytest.mark.parametrize("silent", [(), ("hidden", "out"), ("attention",), ("attention", "hidden")])
def test_dropout_acts_on_every_part_in_training_alone(silent: tuple[str, ...]) -> None:
    """What is left when parts of the block add nothing is dropped from still."""
    net, x = built("vit", {"dim": 8, "depth": 1, "dropout": 0.5}), numbers(3, *GREY)
    block = net.blocks[0]
    if silent:
        # The tokens would carry the dropout on the embedded patches into everything after it.
        net.dropout.p = 0.5 if silent == ("attention", "hidden") else 0.0
    with torch.no_grad():
        for part in silent:
            for parameter in block.get_submodule(part).parameters():
                parameter.zero_()
    with torch.random.fork_rng(devices=[]):
        assert not torch.equal(net(x), net(x))
        net.eval()
        assert torch.equal(net(x), net(x))


# --- init -----------------------------------------------------------------------------------


def near(weight: Tensor, variance: float) -> None:
    """Within five standard errors, as a variance of n normal draws has the relative error √(2/n)."""
    spread = float(weight.detach().square().mean())
    assert spread == pytest.approx(variance, rel=5 * math.sqrt(2 / weight.numel()))


def test_weights_have_the_variance_of_their_rule() -> None:
    for net in (built("cnn", {"width": 16}), built("resnet", {"width": 16})):
        for matrix in models.weight_matrices(net).values():
            near(matrix, 2 / matrix.shape[1])
    net = built("vit", {"dim": 64})
    for matrix in models.weight_matrices(net).values():
        near(matrix, 1 / matrix.shape[1])
    near(net.positions, 0.02**2)
    for net in (built("vgg19", {"width": 8}), built("vgg19", PLAIN_VGG, LARGER)):
        for matrix in models.weight_matrices(net).values():
            near(matrix, 2 / matrix.shape[1])
        assert not any(p.any() for key, p in net.named_parameters() if key.endswith("0.bias"))
        assert not net.classifier.bias.any()
    for name in ("resnet18", "resnet34", "resnet50"):
        net = built(name, {"width": 8})
        for module in net.modules():
            if isinstance(module, nn.Conv2d):
                near(module.weight, 2 / (module.out_channels * module.kernel_size[0] ** 2))
        readout = read_out_of(net)
        bound = 1 / math.sqrt(readout.in_features)
        for parameter in (readout.weight, readout.bias):
            assert 0 < parameter.detach().abs().max() <= bound
        near(readout.weight, bound**2 / 3)


def test_the_signal_stays_finite_through_many_blocks_without_normalisation() -> None:
    x = numbers(4, *GREY)
    for blocks in (1, 4, 16):
        net = built("resnet", {"blocks": blocks, "norm": "none", "width": 8})
        for name, matrix in models.weight_matrices(net).items():
            ends_branch = name.endswith("conv2")
            near(matrix, 2 / matrix.shape[1] / (3 * blocks if ends_branch else 1))
        assert 0.1 < float(net(x).detach().std()) < 30


# --- published nets -------------------------------------------------------------------------

BUFFERS = ("running_mean", "running_var", "num_batches_tracked")
SIXTEEN = {"layer1": 3, "layer2": 4, "layer3": 6, "layer4": 3}
STAGES = {"resnet18": dict.fromkeys(SIXTEEN, 2), "resnet34": SIXTEEN, "resnet50": SIXTEEN}


def add_norm(shapes: dict[str, tuple[int, ...]], name: str, num: int) -> None:
    shapes |= {f"{name}.{part}": (num,) for part in ("weight", "bias", *BUFFERS[:2])}
    shapes[f"{name}.num_batches_tracked"] = ()


def published_resnet(name: str, num_outputs: int) -> dict[str, tuple[int, ...]]:
    """Table 1 of arXiv 1512.03385 under torchvision's names, written down by hand."""
    shapes: dict[str, tuple[int, ...]] = {}

    def normed(conv: str, bn: str, num_out: int, num_in: int, size: int) -> None:
        shapes[f"{conv}.weight"] = (num_out, num_in, size, size)
        add_norm(shapes, bn, num_out)

    normed("conv1", "bn1", 64, 3, 7)
    num_in = 64
    for (stage, blocks), mid in zip(STAGES[name].items(), (64, 128, 256, 512), strict=True):
        num_out = 4 * mid if name == "resnet50" else mid
        convs = [(mid, 1), (mid, 3), (num_out, 1)] if name == "resnet50" else [(mid, 3), (mid, 3)]
        for block in (f"{stage}.{k}" for k in range(blocks)):
            num_before = num_in
            for k, (num, size) in enumerate(convs, 1):
                normed(f"{block}.conv{k}", f"{block}.bn{k}", num, num_before, size)
                num_before = num
            if num_in != num_out:
                normed(f"{block}.downsample.0", f"{block}.downsample.1", num_out, num_in, 1)
            num_in = num_out
    return {**shapes, "fc.weight": (num_outputs, num_in), "fc.bias": (num_outputs,)}


def num_parameters(shapes: dict[str, tuple[int, ...]]) -> int:
    return sum(math.prod(shape) for key, shape in shapes.items() if not key.endswith(BUFFERS))


IMAGENET = {"input_shape": (3, 224, 224), "n_outputs": 1000, "stem": "imagenet"}


@pytest.mark.parametrize(
    ("name", "num_tensors", "num_weights"),
    [
        ("resnet18", 122, 11_689_512),
        ("resnet34", 218, 21_797_672),
        ("resnet50", 320, 25_557_032),
    ],
)
def test_resnets_have_the_published_names_shapes_and_number_of_parameters(
    name: str, num_tensors: int, num_weights: int
) -> None:
    shapes = models.state_shapes(name, IMAGENET)
    assert list(shapes.items()) == list(published_resnet(name, 1000).items())
    assert len(shapes) == num_tensors
    assert num_parameters(shapes) == num_weights


@pytest.mark.parametrize("name", STAGES)
def test_the_small_stem_differs_in_its_kernel_alone(name: str) -> None:
    small = models.state_shapes(name, {**IMAGENET, "stem": "small"})
    expected = {**published_resnet(name, 1000), "conv1.weight": (64, 3, 3, 3)}
    assert list(small.items()) == list(expected.items())


@pytest.mark.parametrize("name", STAGES)
@pytest.mark.parametrize(
    ("stem", "sides"), [("imagenet", [16, 8, 4, 2]), ("small", [64, 32, 16, 8])]
)
def test_maps_of_resnets_shrink_as_published(name: str, stem: str, sides: list[int]) -> None:
    net, seen = built(name, {"width": 1, "stem": stem}, (3, 64, 64)), []
    for stage in range(1, 5):
        net.get_submodule(f"layer{stage}").register_forward_hook(
            lambda _, __, output: seen.append(output.shape[-1])
        )
    net(numbers(2, 3, 64, 64))
    assert seen == sides


def test_a_bottleneck_is_the_convolutions_it_stands_for() -> None:
    """With the stride in the middle, as torchvision has it, and the shortcut projected."""
    net = built("resnet50", {"width": 2}).eval()
    block, x = net.layer2[0], numbers(3, 8, 8, 8)
    p = dict(block.named_parameters())

    def conv(value: Tensor, name: str, stride: int = 1) -> Tensor:
        padding = p[f"{name}.weight"].shape[-1] // 2
        # A new norm in evaluation mode divides by the root of 1 plus its epsilon.
        return functional.conv2d(value, p[f"{name}.weight"], None, stride, padding) / 1.00001**0.5

    branch = conv(conv(x, "conv1").clamp_min(0), "conv2", 2).clamp_min(0)
    expected = (conv(branch, "conv3") + conv(x, "downsample.0", 2)).clamp_min(0)
    assert expected.shape == (3, 16, 4, 4)
    torch.testing.assert_close(block(x), expected)


CONFIGURATION_E = [64, 64, 0, 128, 128, 0, *[256] * 4, 0, *[512] * 4, 0, *[512] * 4, 0]
"""Channels of the convolutions in table 1 of arXiv 1409.1556; 0 is a max pooling."""


@pytest.mark.parametrize(
    ("norm", "last", "num_features"), [("none", 34, 20_024_384), ("batch", 49, 20_035_392)]
)
def test_vgg19_has_the_published_convolutions_and_one_read_out(
    norm: str, last: int, num_features: int
) -> None:
    shapes: dict[str, tuple[int, ...]] = {}
    place, num_in = 0, 3
    for num_out in CONFIGURATION_E:
        if num_out:
            shapes[f"features.{place}.weight"] = (num_out, num_in, 3, 3)
            shapes[f"features.{place}.bias"] = (num_out,)
            if norm == "batch":
                add_norm(shapes, f"features.{place + 1}", num_out)
            place, num_in = place + 2 + (norm == "batch"), num_out
        else:
            place += 1
    assert f"features.{last}.weight" in shapes
    assert num_parameters(shapes) == num_features
    shapes |= {"classifier.weight": (100, 512), "classifier.bias": (100,)}
    sized = {"input_shape": (3, 32, 32), "n_outputs": 100, "norm": norm}
    assert list(models.state_shapes("vgg19", sized).items()) == list(shapes.items())


@pytest.mark.parametrize(
    ("side", "sides"),
    [(64, [32, 16, 8, 4, 2]), (32, [16, 8, 4, 2, 1]), (28, [14, 7, 4, 2, 1]), (8, [4, 2, 1, 1, 1])],
)
def test_maps_of_vgg19_are_halved_five_times_and_odd_sides_rounded_up(
    side: int, sides: list[int]
) -> None:
    net, seen = built("vgg19", {"width": 1}, (1, side, side)), []
    for module in net.modules():
        if isinstance(module, nn.MaxPool2d):
            module.register_forward_hook(lambda _, __, output: seen.append(output.shape[-1]))
    net(numbers(2, 1, side, side))
    assert seen == sides


# --- what is refused ------------------------------------------------------------------------

SHAPE = {"input_shape": [1, 8, 8], "n_outputs": 3}


@pytest.mark.parametrize(
    ("name", "changes", "problem"),
    [
        ("cnn", {"input_shape": [1, 3, 8]}, "3 x 8 are too small for two poolings"),
        ("cnn", {"input_shape": [8, 8]}, "input_shape"),
        ("cnn", {"input_shape": 8}, "input_shape"),
        ("cnn", {"input_shape": [0, 8, 8]}, "input_shape"),
        ("cnn", {"input_shape": [1, 10**9, 8]}, "input_shape"),
        ("cnn", {"depth": 10**9}, "depth"),
        ("cnn", {"width": 10**12}, "width"),
        ("cnn", {"width": 4096, "depth": 64}, "weights; the limit is 50,000,000"),
        ("cnn", {"norm": "layer"}, "norm"),
        ("cnn", {"input_dim": 64}, "input_dim"),
        ("resnet", {"blocks": 10**6}, "blocks"),
        ("resnet", {"blocks": 32, "width": 4096}, "weights; the limit is"),
        ("resnet", {"blocks": 0}, "blocks"),
        ("resnet18", {"width": 4096}, "weights; the limit is"),
        ("resnet18", {"stem": "large"}, "stem"),
        ("resnet34", {"width": 4096}, "weights; the limit is"),
        ("resnet50", {"width": 10**12}, "width"),
        ("resnet50", {"n_outputs": 10**9}, "n_outputs"),
        ("vgg19", {"width": 4096}, "weights; the limit is"),
        ("vgg19", {"width": 0}, "width"),
        ("vgg19", {"norm": "layer"}, "norm"),
        ("vgg19", {"norm": "none"}, "8 x 8 are too small without normalisation"),
        ("vgg19", {"stem": "small"}, "stem"),
        ("vit", {"patch": 3}, "patch = 3 does not divide images of 8 x 8"),
        ("vit", {"patch": 16}, "patch = 16 does not divide images of 8 x 8"),
        ("vit", {"input_shape": [1, 4096, 4096], "patch": 1}, "16,777,216 tokens"),
        ("vit", {"dim": 48, "heads": 5}, "heads = 5 does not divide dim = 48"),
        ("vit", {"dim": 4096, "depth": 64}, "weights; the limit is"),
        ("vit", {"dropout": 1.0}, "dropout"),
        ("vit", {"dropout": float("nan")}, "dropout"),
    ],
)
def test_what_does_not_go_through_a_net_is_refused_before_anything_is_allocated(
    name: str, changes: dict[str, Any], problem: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(nn.Module, "to_empty", lambda *_, **__: pytest.fail("it was built"))
    for refuse in (models.check_arguments, models.state_shapes, models.build):
        with pytest.raises(InputError, match=problem) as caught:
            refuse(name, {**SHAPE, **changes})
        assert "\n" not in str(caught.value)
        assert "Value error" not in str(caught.value)


@pytest.mark.parametrize("name", ["cnn", "resnet", *STAGES, "vgg19", "vit"])
def test_data_that_are_no_images_are_refused(name: str) -> None:
    with pytest.raises(InputError, match=r"takes images, and one point of the data has .* \[64\]"):
        models.architecture(name).sized((64,), 3)


# --- many replicas as one -------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "arguments", "shape"),
    [*((*net, GREY) for net in IMAGE_NETS), ("vgg19", PLAIN_VGG, LARGER)],
)
def test_stacked_replicas_train_as_single_ones_do(
    name: str, arguments: dict[str, Any], shape: tuple[int, ...]
) -> None:
    """Outputs, gradients and the running statistics that training leaves behind."""
    nets = [built(name, arguments, shape, seed=seed).train() for seed in range(3)]
    x, y = numbers(3, 6, *shape), torch.arange(18).reshape(3, 6) % CLASSES
    parameters, buffers = stack_module_state(nets)
    parameters = {key: value.detach() for key, value in parameters.items()}
    skeleton = copy.deepcopy(nets[0]).to("meta")

    def loss(
        weights: dict[str, Tensor], state: dict[str, Tensor], inputs: Tensor, labels: Tensor
    ) -> Tensor:
        return functional.cross_entropy(functional_call(skeleton, (weights, state), inputs), labels)

    grads, losses = vmap(grad_and_value(loss))(parameters, buffers, x, y)
    for k, net in enumerate(nets):
        alone = functional.cross_entropy(net(x[k]), y[k])
        alone.backward()
        torch.testing.assert_close(losses[k], alone.detach(), rtol=1e-12, atol=1e-14)
        for key, parameter in net.named_parameters():
            scale = float(parameter.grad.abs().max())
            torch.testing.assert_close(
                grads[key][k], parameter.grad, rtol=1e-9, atol=1e-12 * max(scale, 1.0)
            )
        for key, value in net.named_buffers():
            torch.testing.assert_close(buffers[key][k], value, rtol=1e-12, atol=1e-14)
            assert key.endswith("num_batches_tracked") <= (int(value.sum()) == 1)


# --- features -------------------------------------------------------------------------------


def read_out_of(net: nn.Module) -> nn.Linear:
    (name,) = {"fc", "classifier", "readout"} & {key for key, _ in net.named_children()}
    return net.get_submodule(name)  # type: ignore[return-value]


def last_input(net: nn.Module, readout: nn.Linear, x: Tensor) -> Tensor:
    seen = []
    handle = readout.register_forward_pre_hook(lambda _, args: seen.append(args[0].detach()))
    with torch.no_grad():
        net(x)
    handle.remove()
    return seen[0]


@EVERY_NET
def test_the_last_feature_is_what_the_read_out_sees(name: str, arguments: dict[str, Any]) -> None:
    net, x = built(name, arguments).eval(), numbers(5, *GREY)
    features, output = models.named_features(net, x)
    readout = read_out_of(net)
    last = list(features)[-1]
    assert torch.equal(features[last], last_input(net, readout, x))
    torch.testing.assert_close(output, readout(features[last]).detach())
    assert all(len(value) == 5 and value.ndim == 2 for value in features.values())
    assert features.keys() < models.weight_matrices(net).keys()


def test_features_of_a_residual_net_have_the_names_of_the_branch() -> None:
    """The projection on the shortcut reads what the branch has read: it is no layer of its own."""
    net, x = built("resnet", {"width": 2}).eval(), numbers(5, *GREY)
    features, _ = models.named_features(net, x)
    branch = [f"layer{stage}.0.conv{k}" for stage in (1, 2, 3) for k in (1, 2)]
    assert list(features) == ["conv1", *branch]
    assert "layer2.0.downsample.0" in models.weight_matrices(net)
    with torch.no_grad():
        stem = torch.relu(net.bn1(net.conv1(x)))
        first = net.layer1(stem)
        second = net.layer2(first)
    torch.testing.assert_close(features["conv1"], stem.flatten(1))
    torch.testing.assert_close(features["layer1.0.conv2"], first.flatten(1))
    torch.testing.assert_close(features["layer2.0.conv2"], second.flatten(1))
    torch.testing.assert_close(features["layer3.0.conv2"], net.layer3(second).mean((2, 3)).detach())


def pooled_by_hand(value: Tensor, side: int) -> Tensor:
    """[n, c, h, w] -> [n, c·side²], sides that divide."""
    n, c, h, w = value.shape
    cells = value.reshape(n, c, side, h // side, side, w // side)
    return cells.mean((3, 5)).flatten(1)


@pytest.mark.parametrize(
    ("channels", "sides", "grid"),
    [(4, (16, 16), 16), (5, (28, 28), 14), (64, (8, 8), 4), (1025, (4, 4), 1), (600, (6, 6), 1)],
)
def test_large_maps_are_averaged_to_the_finest_grid_below_the_limit(
    channels: int, sides: tuple[int, int], grid: int
) -> None:
    net = nn.Sequential(
        nn.Conv2d(1, channels, 1), nn.ReLU(), nn.Conv2d(channels, 1, 1), nn.Flatten()
    )
    x = numbers(3, 1, *sides).float()
    features, _ = models.named_features(net, x)
    kept = torch.relu(net[0](x)).detach()
    torch.testing.assert_close(features["0"], pooled_by_hand(kept, grid))


def test_maps_of_one_and_three_dimensions_and_narrow_maps_are_averaged_too() -> None:
    line = nn.Sequential(nn.Conv1d(1, 4, 1), nn.Conv1d(4, 1, 1))
    x = numbers(2, 1, 512).float()
    kept = line[0](x).detach()
    torch.testing.assert_close(
        models.named_features(line, x)[0]["0"], kept.reshape(2, 4, 256, 2).mean(3).flatten(1)
    )
    solid = nn.Sequential(nn.Conv3d(1, 16, 1), nn.Conv3d(16, 1, 1))
    x = numbers(2, 1, 8, 8, 8).float()
    kept = solid[0](x).detach().reshape(2, 16, 4, 2, 4, 2, 4, 2).mean((3, 5, 7)).flatten(1)
    torch.testing.assert_close(models.named_features(solid, x)[0]["0"], kept)
    narrow = nn.Sequential(nn.Conv2d(1, 16, 1), nn.Conv2d(16, 1, 1))
    x = numbers(2, 1, 2, 64).float()
    kept = narrow[0](x).detach().reshape(2, 16, 2, 8, 8).mean(4).flatten(1)
    torch.testing.assert_close(models.named_features(narrow, x)[0]["0"], kept)


@pytest.mark.parametrize("tokens", [8, 9])
def test_many_tokens_are_averaged_and_few_are_kept(tokens: int) -> None:
    net = nn.Sequential(nn.Linear(2, 128), nn.ReLU(), nn.Linear(128, 3))
    x = numbers(4, tokens, 2).float()
    kept = torch.relu(net[0](x)).detach()
    expected = kept.flatten(1) if tokens * 128 <= 1024 else kept.mean(1)
    torch.testing.assert_close(models.named_features(net, x)[0]["0"], expected)


def test_flat_features_are_kept_whatever_their_width() -> None:
    net = nn.Sequential(nn.Linear(6, 3000), nn.ReLU(inplace=True), nn.Linear(3000, 2))
    x = numbers(4, 6).float()
    features, _ = models.named_features(net, x)
    assert torch.equal(features["0"], torch.relu(net[0](x)).detach())


class Shared(nn.Module):
    """A layer that is used twice, with another between."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.shared = nn.Linear(6, 5), nn.Linear(5, 5)
        self.between, self.last = nn.Linear(5, 5), nn.Linear(5, 3)

    def forward(self, x: Tensor) -> Tensor:
        hidden = self.between(torch.relu(self.shared(self.first(x))))
        logits: Tensor = self.last(torch.relu(self.shared(hidden)))
        return logits


def test_a_layer_used_twice_counts_where_it_ran_last() -> None:
    net, x = Shared().double(), numbers(4, 6)
    features, output = models.named_features(net, x)
    assert list(features) == ["first", "between", "shared"]
    torch.testing.assert_close(output, net.last(features["shared"]).detach())


class InPlace(Shared):
    """Reads a tensor again after it was changed."""

    def forward(self, x: Tensor) -> Tensor:
        hidden = self.first(x)
        hidden.mul_(self.shared(hidden))
        logits: Tensor = self.last(hidden)
        return logits


def test_a_tensor_changed_in_place_is_a_new_feature() -> None:
    net, x = InPlace().double(), numbers(4, 6)
    features, output = models.named_features(net, x)
    assert list(features) == ["first", "shared"]
    torch.testing.assert_close(output, net.last(features["shared"]).detach())


# --- model files ----------------------------------------------------------------------------


NUM_BATCHNORMS = {
    "cnn": 4, "resnet": 9, "resnet18": 20, "resnet34": 36, "resnet50": 53, "vgg19": 16, "vit": 0,
}  # fmt: skip


@pytest.mark.parametrize("suffix", [".pt", ".safetensors"])
@pytest.mark.parametrize("name", ["cnn", "resnet", *STAGES, "vgg19", "vit"])
def test_a_model_file_holds_running_statistics_and_whole_numbers(
    tmp_path: Path, name: str, suffix: str
) -> None:
    arguments = models.architecture(name).sized((8, 8), CLASSES)
    arguments |= {"dim": 8, "heads": 2} if name == "vit" else {"width": 2}
    arguments |= {"norm": "batch"} if name in ("cnn", "resnet") else {}
    checked = models.check_arguments(name, arguments).model_dump(mode="json")
    start, trained = (models.build(name, checked, seed=seed) for seed in (0, 1))
    for _ in range(3):
        trained.train()(numbers(6, 8, 8).float())
    rng = np.random.default_rng(0)
    parts = [(rng.standard_normal((n, 8, 8)), np.arange(n) % CLASSES) for n in (20, 10, 10)]
    path = save_bundle(
        tmp_path / f"net{suffix}",
        trained,
        initial_state=start.state_dict(),
        task=make_task("mine", *parts),
        architecture=ArchitectureSpec(name=name, arguments=checked),
    )
    bundle = load_bundle(path)
    assert bundle.header.architecture.arguments == checked
    for read, net in ((bundle.final, trained), (bundle.init, start)):
        assert read is not None
        state = net.state_dict()
        assert read.keys() == state.keys()
        assert all(torch.equal(read[key], state[key]) for key in state)
        assert all(read[key].dtype == state[key].dtype for key in state)
    counters = [v for k, v in bundle.final.items() if k.endswith("num_batches_tracked")]
    assert [int(value) for value in counters] == [3] * NUM_BATCHNORMS[name]
    again = models.build(bundle.header.architecture.name, bundle.header.architecture.arguments)
    again.load_state_dict(bundle.final)
    x = numbers(4, 8, 8).float()
    assert torch.equal(again.eval()(x), trained.eval()(x))
