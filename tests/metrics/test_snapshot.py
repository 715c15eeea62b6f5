"""What snapshot_of hands to the metrics: the layer that counts as the last, and tangent kernels."""

import dataclasses

import pytest
import torch
from torch import nn

from fls_bench import make_task
from fls_bench.errors import InputError
from fls_bench.metrics import measure
from fls_bench.subject import snapshot_of, snapshots
from fls_bench.training_setup import TrainingSetup


def draw(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def task():
    train, validation, test = (
        (draw(n, 6, seed=seed).numpy(), (torch.arange(n) % 3).numpy())
        for n, seed in ((60, 0), (30, 1), (50, 2))
    )
    return make_task("made", train, test, validation)


def normalised(output_multiplier=1.0):
    layers = [
        nn.Linear(6, 9),
        nn.BatchNorm1d(9),
        nn.ReLU(),
        nn.Linear(9, 8),
        nn.ReLU(),
        nn.Linear(8, 3),
    ]
    return nn.Sequential(*layers)


def states(build=normalised):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        init = build()
        final = build()
        for net in (init, final):
            for name, value in net.state_dict().items():
                if "running" in name:  # not those of a fresh net: mean 0 and variance 1
                    value.copy_(0.3 + 0.1 * draw(*value.shape, seed=len(name)).abs())
    return final.state_dict(), init.state_dict()


def setup(**changes):
    return TrainingSetup(make_model=lambda: normalised(), task=task(), **changes)


def test_the_feature_layer_of_a_setup_is_the_last():
    final, init = states()
    chosen = snapshot_of(setup(feature_layer="0"), task(), final, init)
    assert chosen.layers == ("0",)
    (probe,) = measure(chosen, ["probe.neighbours"])
    assert probe.layer == "0"
    assert snapshot_of(setup(), task(), final, init).layers == ("0", "3")


def test_a_feature_layer_that_is_not_there_is_an_input_error():
    final, init = states()
    with pytest.raises(InputError, match=r"no layer 'fc'.*out of these.*0, 3"):
        snapshot_of(setup(feature_layer="fc"), task(), final, init)


def test_kernels_are_those_of_the_states_in_evaluation_mode():
    final, init = states()
    snap = snapshot_of(setup(), task(), final, init)
    net = normalised().eval()
    net.load_state_dict(final)
    x = torch.as_tensor(task().x_train)[:5]
    rows = [
        torch.cat([g.flatten() for g in torch.autograd.grad(net(p[None])[0, k], net.parameters())])
        for p in x
        for k in range(3)
    ]
    gram = torch.stack(rows).double()
    expected = (gram @ gram.T).view(5, 3, 5, 3).diagonal(dim1=1, dim2=3).mean(-1)
    torch.testing.assert_close(snap.final.kernel.train[:5, :5], expected, rtol=1e-4, atol=1e-4)
    assert snap.init.kernel.test is None
    moved = {m.metric: m for m in measure(snap, ["kernel.change", "kernel.regression_error"])}
    assert 0 < moved["kernel.change"].value < 1


def test_a_snapshot_without_init_has_the_final_kernel_alone():
    final, _ = states()
    snap = snapshot_of(setup(), task(), final, None)
    found = {m.metric: m for m in measure(snap)}
    assert found["kernel.label_alignment"].status == "ok"
    assert "initial weights" in found["kernel.change"].reason


def test_kernels_can_be_left_out():
    final, init = states()
    snap = snapshot_of(setup(), task(), final, init, with_kernel=False)
    (change,) = measure(snap, ["kernel.change"])
    assert change.reason == "The tangent kernel of this net was not computed."
    kept = snapshot_of(setup(), task(), final, init)
    for before, after in zip(measure(snap), measure(kept), strict=True):
        assert before == after or before.metric.startswith("kernel.")


def test_a_small_kernel_is_of_so_many_training_points_and_the_first_outputs(monkeypatch):
    monkeypatch.setattr(snapshots, "KERNEL_OUTPUTS", 2)
    final, init = states()
    snap = snapshot_of(setup(), task(), final, init, kernel_points=40)
    net = normalised().eval()
    net.load_state_dict(final)
    points = snap.final.kernel.train_points
    assert len(points) == 40 < task().n_train
    assert torch.equal(points, snap.init.kernel.train_points)
    some = torch.as_tensor(task().x_train)[points[-3:]]
    rows = [
        torch.cat([g.flatten() for g in torch.autograd.grad(net(p[None])[0, k], net.parameters())])
        for p in some
        for k in range(2)
    ]
    gram = torch.stack(rows).double()
    expected = (gram @ gram.T).view(3, 2, 3, 2).diagonal(dim1=1, dim2=3).mean(-1)
    torch.testing.assert_close(snap.final.kernel.train[-3:, -3:], expected, rtol=1e-4, atol=1e-4)
    found = {m.metric: m for m in measure(snap)}
    for name in ("kernel.change", "kernel.label_alignment", "kernel.label_alignment_at_init"):
        assert (found[name].status, found[name].n) == ("ok", 40)
    for name in ("regression_error", "regression_agreement", "function_agreement"):
        assert "computed without test points" in found[f"kernel.{name}"].reason


def test_a_net_whose_kernel_is_too_dear_says_so():
    final, init = states()
    small = dataclasses.replace(task(), x_train=task().x_train[:20], y_train=task().y_train[:20])
    snap = snapshot_of(setup(), small, final, init)
    (change,) = measure(snap, ["kernel.change"])
    assert change.reason == "It needs at least 30 train points, and there are 20." or (
        "30 training points, and there are 20" in change.reason
    )
