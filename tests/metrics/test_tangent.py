import dataclasses

import pytest
import torch
from torch import nn

from fls_bench.metrics import NetState, Snapshot, TangentKernel, measure
from fls_bench.metrics.kernels import kernel_alignment, kernel_regression, linear_cka
from fls_bench.metrics.outputs import point_losses
from fls_bench.tangent import tangent_kernels


def draw(*shape, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=generator, dtype=torch.float64)


def seeded(build, seed=0):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return build().double().eval()


def mlp():
    return nn.Sequential(nn.Flatten(), nn.Linear(12, 7), nn.ReLU(), nn.Linear(7, 3))


def normalised_cnn():
    net = nn.Sequential(
        nn.Unflatten(1, (1, 4)), nn.Conv2d(1, 3, 3, padding=1), nn.BatchNorm2d(3), nn.ReLU(),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(3, 3),
    )  # fmt: skip
    net(torch.randn(20, 4, 3))  # running statistics that are not the initial ones
    return net


class Attention(nn.Module):
    def __init__(self):
        super().__init__()
        self.attend = nn.MultiheadAttention(4, 2, batch_first=True)
        self.norm = nn.LayerNorm(4)
        self.out = nn.Linear(4, 3)

    def forward(self, x):
        x = x.reshape(len(x), 3, 4)
        return self.out(self.norm(x + self.attend(x, x, x, need_weights=False)[0]).mean(1))


class ControlFlow(nn.Module):
    """What no vmap can see through: a branch on the data."""

    def __init__(self):
        super().__init__()
        self.first, self.second = nn.Linear(12, 3), nn.Linear(12, 3)

    def forward(self, x):
        x = x.flatten(1)
        return self.first(x) if float(x.detach().sum()) > 0 else self.second(x)


def deep_control_flow():
    return nn.Sequential(nn.Flatten(), nn.Linear(12, 12), nn.ReLU(), ControlFlow())


class Tied(nn.Module):
    def __init__(self):
        super().__init__()
        self.a = nn.Linear(12, 12, bias=False)
        self.b = self.a
        self.out = nn.Linear(12, 3)

    def forward(self, x):
        return self.out(self.b(self.a(x.flatten(1)).relu()))


def reference(net, state, x, y, num_outputs=None):
    """Autograd, one point, one output at a time; mean over the first outputs, all if None."""
    net.load_state_dict(state)
    parameters = [p for p in net.parameters() if p.requires_grad]

    def gradients(point):
        outputs = net(point[None])[0][:num_outputs]
        return torch.stack([
            torch.cat([
                torch.zeros(p.numel()).double() if g is None else g.flatten()
                for p, g in zip(
                    parameters,
                    torch.autograd.grad(o, parameters, retain_graph=True, allow_unused=True),
                    strict=True,
                )
            ])
            for o in outputs
        ])  # fmt: skip

    rows, columns = ([gradients(p) for p in points] for points in (x, y))
    return torch.stack([torch.stack([(a * b).sum() / len(a) for b in columns]) for a in rows])


@pytest.mark.parametrize("build", [mlp, normalised_cnn, Attention, ControlFlow, Tied])
def test_against_autograd_one_by_one(build):
    net = seeded(build)
    states = [seeded(build, seed).state_dict() for seed in (1, 2)]
    x, y = draw(9, 4, 3), draw(5, 4, 3, seed=1)
    before = {k: v.clone() for k, v in net.state_dict().items()}
    final, initial = tangent_kernels(net, states, x, y, min_points=5)
    assert all(torch.equal(v, before[k]) for k, v in net.state_dict().items())
    torch.testing.assert_close(final.train, reference(net, states[0], x, x))
    torch.testing.assert_close(final.test, reference(net, states[0], y, x))
    torch.testing.assert_close(initial.train, reference(net, states[1], x, x))
    assert initial.test is None


@pytest.mark.parametrize("num", [6, 60])  # one by one, and for many points at once
def test_gradients_are_had_where_torch_was_told_to_take_none(num):
    net = seeded(mlp)
    x = draw(num, 4, 3)
    (expected,) = tangent_kernels(net, [net.state_dict()], x, x, min_points=5)
    with torch.no_grad():
        (found,) = tangent_kernels(net, [net.state_dict()], x, x, min_points=5)
    torch.testing.assert_close(found.train, expected.train)


def test_parameters_that_are_not_trained_are_left_out():
    net = seeded(mlp)
    net[1].weight.requires_grad_(False)
    x = draw(6, 4, 3)
    (kernel,) = tangent_kernels(net, [net.state_dict()], x, x, min_points=5)
    torch.testing.assert_close(kernel.train, reference(net, net.state_dict(), x, x))


def test_the_kernel_of_c_f_is_c_squared_times_that_of_f():
    net = seeded(mlp)
    scaled = nn.Sequential(net, nn.Linear(3, 3, bias=False)).double()
    scaled[1].weight.requires_grad_(False).copy_(0.25 * torch.eye(3))
    x = draw(6, 4, 3)
    (one,) = tangent_kernels(net, [net.state_dict()], x, x, min_points=5)
    (other,) = tangent_kernels(scaled, [scaled.state_dict()], x, x, min_points=5)
    torch.testing.assert_close(other.train, 0.25**2 * one.train)


def test_float32_is_close_and_all_parts_are_joined():
    net = seeded(
        lambda: nn.Sequential(nn.Flatten(), nn.Linear(12, 900), nn.ReLU(), nn.Linear(900, 3))
    )
    x = draw(150, 4, 3)
    (exact,) = tangent_kernels(net, [net.state_dict()], x, x[:70])
    (kernel,) = tangent_kernels(net.float(), [net.state_dict()], x.float(), x[:70].float())
    assert kernel.train.dtype == torch.float64
    torch.testing.assert_close(kernel.train, exact.train, rtol=1e-4, atol=1e-3)
    torch.testing.assert_close(kernel.test, kernel.train[:70], rtol=1e-4, atol=1e-3)


def test_over_a_limit_there_are_fewer_points_and_below_the_fewest_none():
    net, x = seeded(mlp), draw(200, 4, 3)
    states = [net.state_dict()]
    (whole,) = tangent_kernels(net, states, x, x, max_work=1e12)
    assert whole.train_points.tolist() == list(range(200))
    (less,) = tangent_kernels(net, states, x, x, max_work=5e6)
    m = len(less.train_points)
    assert 30 <= m < 200
    assert less.train.shape == (m, m)
    rows, columns = less.test_points, less.train_points
    torch.testing.assert_close(less.train, whole.train[columns][:, columns])
    torch.testing.assert_close(less.test, whole.test[rows][:, columns])
    parameters = sum(p.numel() for p in net.parameters())
    for limit in ({"max_work": 1e4}, {"max_bytes": 1e4}):
        reason = tangent_kernels(net, states, x, x, **limit)
        assert f"3 outputs with respect to {parameters} parameters at 30 training points" in reason
    assert "30 training points, and there are 7" in tangent_kernels(net, states, x[:7], x)


@pytest.mark.parametrize("build", [mlp, deep_control_flow])
@pytest.mark.parametrize("most", [1, 2, 7])
def test_the_mean_can_be_over_the_first_outputs_alone(build, most):
    net, x, y = seeded(build), draw(7, 4, 3), draw(5, 4, 3, seed=1)
    state = net.state_dict()
    (kernel,) = tangent_kernels(net, [state], x, y, min_points=5, max_outputs=most)
    torch.testing.assert_close(kernel.train, reference(net, state, x, x, num_outputs=most))
    torch.testing.assert_close(kernel.test, reference(net, state, y, x, num_outputs=most))


def test_outputs_left_out_save_their_work():
    net, x = seeded(mlp), draw(200, 4, 3)
    sizes = [
        len(tangent_kernels(net, [net.state_dict()], x, x, max_work=5e6, max_outputs=most)[0].train)
        for most in (None, 3, 1)
    ]
    assert sizes[0] == sizes[1] < sizes[2]
    reason = tangent_kernels(net, [net.state_dict()], x, x, max_work=1e4, max_outputs=2)
    assert "Gradients of 2 outputs" in reason


def test_the_number_of_training_points_can_be_bounded():
    net, x, y = seeded(mlp), draw(40, 4, 3), draw(25, 4, 3, seed=1)
    states = [seeded(mlp, seed).state_dict() for seed in (1, 2)]
    whole = tangent_kernels(net, states, x, y)
    parts = tangent_kernels(net, states, x, y, max_points=33)
    assert len(whole[0].train) == 40
    rows = parts[0].train_points
    assert len(rows.unique()) == 33
    for part, all_points in zip(parts, whole, strict=True):
        assert torch.equal(part.train_points, rows)
        torch.testing.assert_close(part.train, all_points.train[rows][:, rows])
    test_points = parts[0].test_points
    torch.testing.assert_close(parts[0].test, whole[0].test[test_points][:, rows])
    again = tangent_kernels(net, states, x, y, max_points=33)
    assert torch.equal(again[0].train_points, rows)


@pytest.mark.parametrize("build", [mlp, ControlFlow])
def test_test_points_can_be_left_out(build):
    net, x = seeded(build), draw(40, 4, 3)
    states = [seeded(build, seed).state_dict() for seed in (1, 2)]
    whole = tangent_kernels(net, states, x, x)
    alone = tangent_kernels(net, states, x, x, with_test=False)
    assert whole[0].test is not None
    for kernel, other in zip(alone, whole, strict=True):
        assert kernel.test is None
        assert not len(kernel.test_points)
        torch.testing.assert_close(kernel.train, other.train)


def test_test_points_left_out_save_their_work():
    net, x = seeded(mlp), draw(200, 4, 3)
    sizes = [
        len(tangent_kernels(net, [net.state_dict()], x, x, max_work=5e6, with_test=test)[0].train)
        for test in (True, False)
    ]
    assert sizes[0] < sizes[1] < 200


def test_gradients_one_by_one_are_fewer():
    net, x = seeded(ControlFlow), draw(1500, 4, 3)
    (kernel,) = tangent_kernels(net, [net.state_dict()], x[:20], x[:10], min_points=5)
    assert kernel.test.shape == (10, 20)
    (kernel,) = tangent_kernels(net, [net.state_dict()] * 1, x, x)
    assert 3 * (len(kernel.train) + len(kernel.test)) <= 6000


def test_reasons_of_nets_that_have_no_kernel():
    class NoGradient(nn.Module):
        def __init__(self):
            super().__init__()
            self.w = nn.Parameter(torch.ones(3, dtype=torch.float64))

        def forward(self, x):
            return torch.from_numpy(x.flatten(1)[:, :3].numpy() * self.w.detach().numpy())

    class Raises(nn.Module):
        def __init__(self):
            super().__init__()
            self.w = nn.Parameter(torch.ones(1))

        def forward(self, x):
            raise ValueError("wants two points")

    x = draw(40, 4, 3)
    for net, fragment in (
        (NoGradient(), "gradients can't be taken"),
        (Raises(), "can't be run on a single point: ValueError: wants two points."),
        (nn.Flatten(), "no parameter that is trained"),
        (nn.Linear(3, 2).double(), "has shape [1, 4, 2], not [1, K]"),
    ):
        reason = tangent_kernels(net, [net.state_dict()], x, x)
        assert fragment in reason
        assert reason.endswith(".")


# --- what is read from kernels ------------------------------------------------------------------


def test_alignment_of_linear_kernels_is_linear_cka():
    x, y = draw(20, 5), draw(20, 4, seed=1)
    expected = float(linear_cka(x, y))
    assert float(kernel_alignment(x @ x.T, y @ y.T)) == pytest.approx(expected)
    assert float(kernel_alignment(3 * x @ x.T, x @ x.T)) == pytest.approx(1)
    assert kernel_alignment(torch.ones(20, 20), x @ x.T).isnan()


def test_regression_against_ridge_on_features():
    features, new, targets = draw(20, 30), draw(6, 30, seed=1), draw(20, 3, seed=2)
    kernel = features @ features.T
    ridge = 0.1 * float(kernel.diagonal().mean())
    weights = torch.linalg.solve(
        features.T @ features + ridge * torch.eye(30, dtype=torch.float64), features.T @ targets
    )
    found = kernel_regression(kernel, new @ features.T, targets, 0.1)
    torch.testing.assert_close(found, new @ weights)
    assert kernel_regression(0 * kernel, new @ features.T, targets, 0.1).isnan().all()


def lazy_snapshot(c, outputs, centered, scale=1.0):
    """A net that is linear in its parameters, moved to labels at a margin of 3: lazy by itself."""
    n, t, d = 40, 60, 50
    classes = max(outputs, 2)
    y_train, y_test = torch.arange(n) % classes, torch.arange(t) % classes
    centers = draw(classes, d)
    x_train = centers[y_train] + draw(n, d, seed=1)
    x_test = centers[y_test] + draw(t, d, seed=2)
    w_0 = scale * draw(outputs, d, seed=3)
    if outputs == 1:
        labels = 3.0 * (2 * y_train - 1).double()[:, None]
    else:
        labels = 3.0 * (torch.nn.functional.one_hot(y_train, classes).double() - 1 / classes)
    start = 0 if centered else c * (x_train @ w_0.T)
    step = torch.linalg.lstsq(x_train, (labels - start) / c).solution.T
    kernel = TangentKernel(
        torch.arange(n), x_train @ x_train.T, torch.arange(t), x_test @ x_train.T
    )

    def state(w):
        sizes = {"train": x_train, "val": x_test, "test": x_test}
        outputs = {f"{k}_outputs": x @ w.T for k, x in sizes.items()}
        return NetState({"fc": w}, {}, {}, {}, **outputs, kernel=kernel)

    return Snapshot(
        final=state(w_0 + step), init=state(w_0), c=c, centered=centered, n_classes=classes,
        x_train=x_train, y_train=y_train, x_val=x_test, y_val=y_test, x_test=x_test, y_test=y_test,
    )  # fmt: skip


@pytest.mark.parametrize("c", [0.1, 20.0])
@pytest.mark.parametrize("outputs", [1, 4])
@pytest.mark.parametrize("centered", [False, True])
def test_in_the_lazy_limit_the_regression_is_the_net(c, outputs, centered):
    snap = lazy_snapshot(c, outputs, centered)
    names = [
        "kernel.regression_agreement",
        "kernel.regression_error",
        "error.test",
        "kernel.change",
    ]
    found = {m.metric: m.value for m in measure(snap, names)}
    assert found["kernel.regression_agreement"] == 1
    assert found["kernel.regression_error"] == found["error.test"]
    assert found["kernel.change"] == pytest.approx(0, abs=1e-12)


def test_the_initial_function_is_in_the_regression():
    # Were it left out, the regression could not follow a net that c f_0 decides off the data.
    snap = lazy_snapshot(20.0, 4, False)
    forgotten = dataclasses.replace(
        snap, init=dataclasses.replace(
            snap.init, train_outputs=0 * snap.init.train_outputs, test_outputs=0 * snap.init.test_outputs
        )
    )  # fmt: skip
    (found,) = measure(forgotten, ["kernel.regression_agreement"])
    assert found.value < 0.9


def test_labels_have_the_scale_of_the_training_loss():
    from fls_bench.metrics.families.kernel import _targets

    for outputs in (1, 4):
        snap = lazy_snapshot(2.0, outputs, False)
        targets = _targets(snap)
        loss = point_losses(targets, snap.y_train).mean()
        assert float(loss) == pytest.approx(
            float(point_losses(snap.logits("train"), snap.y_train).mean())
        )


def test_regression_needs_all_training_points_and_a_net_better_than_chance():
    snap = lazy_snapshot(2.0, 4, False)
    k = snap.final.kernel
    part = TangentKernel(k.train_points[:35], k.train[:35, :35], k.test_points, k.test[:, :35])
    less = dataclasses.replace(
        snap, final=dataclasses.replace(snap.final, kernel=part),
        init=dataclasses.replace(snap.init, kernel=part),
    )  # fmt: skip
    found = {m.metric: m for m in measure(less, ["kernel.regression_error", "kernel.change"])}
    assert (
        "all 40 training points, and the kernel is of 35" in found["kernel.regression_error"].reason
    )
    assert found["kernel.change"].status == "ok"
    wrong = dataclasses.replace(snap, y_train=(snap.y_train + 1) % 4)
    error, same = measure(wrong, ["kernel.regression_error", "kernel.function_agreement"])
    assert "labels have no scale" in error.reason
    assert same.value == 1  # whatever the labels are


def test_label_alignment_is_1_for_a_kernel_of_the_labels():
    snap = lazy_snapshot(2.0, 4, False)
    hot = torch.nn.functional.one_hot(snap.y_train, 4).double()
    kernel = dataclasses.replace(snap.final.kernel, train=5 * hot @ hot.T + 2)
    ideal = dataclasses.replace(snap, final=dataclasses.replace(snap.final, kernel=kernel))
    names = ["kernel.label_alignment", "kernel.label_alignment_at_init"]
    after, before = measure(ideal, names)
    assert after.value == pytest.approx(1)
    assert before.value < 0.9
