"""Symmetries of training: what may be exchanged, repeated, renamed or turned without a change."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor, nn

from fls_bench.invariants import structure
from fls_bench.invariants.claims import Draw, decided, void
from fls_bench.invariants.multiplier import function_amplification
from fls_bench.invariants.structure import Pair
from fls_bench.invariants.twins import Examined, Run, apart, deviation, roughened
from fls_bench.models import named_features
from fls_bench.schema import InvariantFinding, InvariantName, RunConfig, Sgd, TargetLoss
from fls_bench.tasks import Task
from fls_bench.training.engines import Engine, fusible
from fls_bench.training.replicas import train_batch
from fls_bench.training.runs import TrainedRun
from fls_bench.training.vmapped import problem_with_batching

DROPOUT = (
    "The net draws at random in training (dropout): masks belong to places, not to what is there."
)


def check_relu_rescaling(examined: Examined, draw: Draw) -> InvariantFinding:
    """Weights into a unit times lambda > 0 and out of it divided by lambda leave the function unchanged.

    Logits, margins, gates, the Jacobian of the logits by the inputs, and for each input weight of a
    unit the sum of its products with the unit's output weights stay as they were. (Tangent kernels,
    CKA, ranks, spectra and movement do *not*: compare these only between nets of one scale.)

    Void where no two layers in a row pass their units through a positively homogeneous activation:
    tanh, GELU, softmax, a normalisation or a residual sum between them.

    Source: Neyshabur, Salakhutdinov, Srebro, "Path-SGD" (arXiv 1506.02617), section 2.
    """
    name: InvariantName = "relu_rescaling"
    net = roughened(examined.net(draw, examined.own_c), draw.seed)
    x = torch.as_tensor(examined.data(draw).x_test)
    bound = 4 * examined.bound(draw, function_amplification(examined, net, x), 2)
    generator = torch.Generator().manual_seed(draw.seed)
    f = examined.logits(net, x, 1.0)
    found: list[float] = []
    passing: list[str] = []
    for pair in structure.pairs(net, x):
        octaves = 8 * torch.rand(structure.num_units(net, pair), generator=generator).double() - 4
        changed = structure.rescaled(net, pair, 2.0**octaves)
        if changed is None or not apart(f, examined.logits(changed, x, 1.0)) <= bound:
            continue
        passing.append(f"{pair.first} -> {pair.second}")
        found += _unchanged_by_rescaling(net, changed, pair, x)
    if not passing:
        text = (
            "No two layers in a row pass their units through a positively homogeneous activation "
            "alone, so a unit's scale can't be moved from one to the other."
        )
        return void(name, "not_positively_homogeneous", text)
    wrong = (
        "rescaling",
        "The logits are unchanged, but gates, input Jacobian or products are not.",
    )
    return decided(name, max(found), bound, wrong=wrong)


def _unchanged_by_rescaling(
    net: nn.Module, changed: nn.Module, pair: Pair, x: Tensor
) -> list[float]:
    """Relative deviations of margins, gates, input Jacobian and products of weights."""
    deviations = []
    (gates, f), (new_gates, g) = (named_features(one.eval(), x) for one in (net, changed))
    deviations.append(apart(_margins(f.detach()), _margins(g.detach())))
    if pair.first in gates:
        here, there = (one[pair.first].detach() > 0 for one in (gates, new_gates))
        deviations.append(float((here != there).double().mean()))
    deviations.append(apart(_input_jacobian(net, x[:3]), _input_jacobian(changed, x[:3])))
    deviations.append(apart(_weight_products(net, pair), _weight_products(changed, pair)))
    return deviations


def _margins(logits: Tensor) -> Tensor:
    if logits.shape[1] == 1:
        return logits
    top = logits.topk(2, dim=1).values
    return top[:, 0] - top[:, 1]


def _input_jacobian(net: nn.Module, x: Tensor) -> Tensor:
    inputs = x.clone().requires_grad_()
    with torch.enable_grad():
        f = net(inputs)
        rows = [
            torch.autograd.grad(one.sum(), inputs, retain_graph=True, materialize_grads=True)[0]
            for one in f.T
        ]
    return torch.stack(rows)


def _weight_products(net: nn.Module, pair: Pair) -> Tensor:
    """Weights out of a unit times those into it, summed over the units: [out·block, in]."""
    first, second = (net.get_submodule(name).weight for name in (pair.first, pair.second))
    assert isinstance(first, Tensor)
    assert isinstance(second, Tensor)
    num = len(first)
    out = second.detach().reshape(len(second), num, -1).transpose(0, 1).reshape(num, -1)
    return out.T @ first.detach().reshape(num, -1)


def check_permutation(examined: Examined, draw: Draw) -> InvariantFinding:
    """Hidden units in another order train to the same function, whatever the optimizer.

    Rows of one layer, columns of the next and what holds a number per unit between them are permuted
    before training.

    Void where no two layers in a row can exchange their units (a residual sum, attention heads), and
    with dropout, whose masks belong to places.

    Source: Hecht-Nielsen, "On the algebraic structure of feedforward network weight spaces" (1990).
    """
    name: InvariantName = "permutation"
    if examined.is_random:
        return void(name, "dropout", DROPOUT)
    run, amplified = examined.base(draw, full_batch=False)
    found = examined.obstacle(name, draw, run, amplified)
    if found is not None:
        return found
    net, x = (
        examined.net(draw, examined.own_c * draw.ratio),
        torch.as_tensor(examined.data(draw).x_test),
    )
    rough = roughened(net, draw.seed)
    bound = examined.bound(draw, function_amplification(examined, rough, x), 1)
    f = examined.logits(rough, x, 1.0)
    generator = torch.Generator().manual_seed(draw.seed)
    changed: nn.Module = net
    exchanged = []
    for pair in structure.pairs(net, x):
        order = _other_order(structure.num_units(net, pair), generator)
        # Whether units can be exchanged is seen with disturbed weights, where none are equal.
        tried, kept = (structure.permuted(one, pair, order) for one in (rough, changed))
        if tried is None or kept is None or len(order) < 2:
            continue
        if apart(f, examined.logits(tried, x, 1.0)) <= bound:
            changed = kept
            exchanged.append(pair)
    if not exchanged:
        text = "No two layers in a row pass on units that can be exchanged."
        return void(name, "no_exchangeable_units", text)
    other = _same_run(examined, draw, changed, examined.data(draw))
    wrong = ("permutation", "Units in another order train to another function.")
    bound = examined.bound(draw, amplified, draw.num_steps)
    return decided(name, deviation(run, other), bound, wrong=wrong)


def check_rotation(examined: Examined, draw: Draw) -> InvariantFinding:
    """Inputs and the first layer rotated together train to the same function, under SGD.

    x -> Q x with W -> W Q^T, for SGD, momentum, Nesterov, penalties and clipping by the norm, from any
    initial weights rotated in this way.

    Void for Adam and AdamW (a step in each coordinate), convolutions and whatever else reads the
    inputs other than through one linear map, and optimizers of the user's own.

    Source: Wadia et al., "Whitening and second order optimization" (arXiv 2008.07545), section 2.
    """
    name: InvariantName = "rotation"
    if examined.custom or not isinstance(examined.optimizer, Sgd):
        text = "Adam takes a step in each coordinate, so it sees the axes of the inputs."
        if examined.custom:
            text = "The optimizer is code of your own: it may see the axes of the inputs."
        return void(name, "sees_axes", text)
    run, amplified = examined.base(draw, full_batch=False)
    found = examined.obstacle(name, draw, run, amplified)
    if found is not None:
        return found
    net, task = examined.net(draw, examined.own_c * draw.ratio), examined.data(draw)
    dim = task.input_dim
    generator = torch.Generator().manual_seed(draw.seed)
    gaussian = torch.randn(dim, dim, generator=generator, dtype=torch.float64)
    rotation: Tensor = torch.linalg.qr(gaussian).Q

    def turned(x: np.ndarray) -> np.ndarray:
        flat = torch.as_tensor(x).flatten(1) @ rotation.T
        return flat.view(x.shape).numpy()

    rotated = replace(
        task, x_train=turned(task.x_train), x_val=turned(task.x_val), x_test=turned(task.x_test)
    )
    x, turned_x = (torch.as_tensor(one.x_test) for one in (task, rotated))
    layers = structure.input_layers(net, x)
    bound = examined.bound(draw, amplified, draw.num_steps)
    if layers:
        changed = structure.with_rotated_inputs(net, layers, rotation)
        # With disturbed weights: a branch may be closed at init.
        rough = roughened(net, draw.seed)
        turned_rough = structure.with_rotated_inputs(rough, layers, rotation)
        before, after = examined.logits(rough, x, 1.0), examined.logits(turned_rough, turned_x, 1.0)
    if not layers or not apart(before, after) <= bound:
        text = "The inputs are not read by linear layers alone (convolutions, patches, shortcuts)."
        return void(name, "inputs_not_linear", text)
    other = _same_run(examined, draw, changed, rotated)
    apart_at_end = deviation(run, other)
    if examined.is_random and not apart_at_end <= bound:
        return void(name, "dropout", DROPOUT)
    wrong = ("rotation", "Rotated inputs and first layer train to another function.")
    return decided(name, apart_at_end, bound, wrong=wrong)


def check_duplication(examined: Examined, draw: Draw) -> InvariantFinding:
    """Every training point twice changes nothing in full-batch training on a mean loss.

    Void with dropout (each copy has a mask of its own). With batch statistics it holds in training
    mode; running variances count the copies, by (2n - 1)/(2n) · n/(n - 1), so that evaluation differs.

    Source: linearity of the mean; used to tell n from the geometry of the data, as in YHL's scaling law.
    """
    name: InvariantName = "duplication"
    if examined.is_random:
        return void(name, "dropout", DROPOUT)
    task = examined.data(draw)
    doubled = replace(
        task,
        x_train=np.concatenate([task.x_train, task.x_train]),
        y_train=np.concatenate([task.y_train, task.y_train]),
    )
    wrong = (
        "duplication",
        "Every point twice trains to another function: the loss is no mean over points, or a point's "
        "output depends on its place in the batch.",
    )
    return _on_other_points(name, examined, draw, doubled, 2 * draw.num_points, wrong)


def check_sample_order(examined: Examined, draw: Draw) -> InvariantFinding:
    """The order of the training points changes nothing in full-batch training.

    Void with dropout, whose masks belong to places in the batch. (With minibatches the order matters
    for every net.)

    Source: commutativity of the sum over points.
    """
    name: InvariantName = "sample_order"
    if examined.is_random:
        return void(name, "dropout", DROPOUT)
    task = examined.data(draw)
    order = _other_order(draw.num_points, torch.Generator().manual_seed(draw.seed)).numpy()
    shuffled = replace(task, x_train=task.x_train[order], y_train=task.y_train[order])
    wrong = (
        "sample_order",
        "Points in another order train to another function: an output depends on a point's place in "
        "the batch.",
    )
    return _on_other_points(name, examined, draw, shuffled, draw.num_points, wrong, order=order)


def check_label_names(examined: Examined, draw: Draw) -> InvariantFinding:
    """Classes renamed, and the rows of the read-out with them, train to the same function.

    The logits are then those of before in the order of the new names.

    Void where the last layer is not linear with one unit per class, and for the logistic loss of one
    logit.

    Source: symmetry of the cross-entropy and of the squared error in the classes.
    """
    name: InvariantName = "label_names"
    task = examined.data(draw)
    net = examined.net(draw, examined.own_c * draw.ratio)
    x = torch.as_tensor(task.x_test)
    readout = structure.readout_layer(net, x, task.n_classes)
    if examined.setup.loss == "logistic" or readout is None:
        return void(name, "no_readout", "The last layer is not linear with one unit per class.")
    run, amplified = examined.base(draw, full_batch=False)
    found = examined.obstacle(name, draw, run, amplified)
    if found is not None:
        return found
    generator = torch.Generator().manual_seed(draw.seed)
    order = _other_order(task.n_classes, generator)
    changed = structure.with_renamed_outputs(net, readout, order)
    new_name = order.argsort().numpy()
    renamed = replace(
        task, y_train=new_name[task.y_train], y_val=new_name[task.y_val],
        y_test=new_name[task.y_test],
    )  # fmt: skip
    rough = roughened(net, draw.seed)
    after = examined.logits(structure.with_renamed_outputs(rough, readout, order), x, 1.0)
    before = examined.logits(rough, x, 1.0)
    if not apart(before[:, order], after) <= examined.bound(draw, amplified, 1):
        text = "Something behind the last linear layer tells the classes apart."
        return void(name, "no_readout", text)
    other = _same_run(examined, draw, changed, renamed)
    back = replace(
        other, outputs=other.outputs[:, new_name], in_training=other.in_training[:, new_name]
    )
    wrong = ("label_names", "Renamed classes train to another function.")
    bound = examined.bound(draw, amplified, draw.num_steps)
    return decided(name, deviation(run, back), bound, wrong=wrong)


def check_batching(examined: Examined, draw: Draw) -> InvariantFinding:
    """Nets trained as one batch of replicas are those trained one by one.

    The draw's net beside one of another seed and one at another multiplier.

    Void where nets are not trained as a batch: dropout (replicas would share masks), a multiplier that
    is wired inside, an optimizer of the user's own, operations that can't be batched. They are then
    trained one by one, and nothing is lost but time.

    Source: no replica's arithmetic looks at another's.
    """
    name: InvariantName = "batching"
    net = examined.net(draw, examined.own_c * draw.ratio)
    problem = problem_with_batching(net)
    if examined.setup.route == "factory":
        problem = "The multiplier is wired inside: nets of different c are different nets."
    elif examined.custom:
        problem = "The optimizer is code of your own."
    elif examined.is_random:
        problem = "It draws at random in training."
    if problem is not None:
        return void(name, "one_by_one", f"Trained one by one: {problem}")
    run, amplified = examined.base(draw, full_batch=False)
    found = examined.obstacle(name, draw, run, amplified)
    if found is not None:
        return found
    try:
        other = _in_a_batch(examined, draw, net)
    except Exception as error:  # torch refuses what it can't batch by many kinds of error
        text = " ".join(str(error).split())[:160].rstrip(".")
        return void(name, "one_by_one", f"Trained one by one: torch can't batch it ({text}).")
    wrong = ("batching", "As one of a batch of replicas the net trains to another function.")
    bound = examined.bound(draw, amplified, draw.num_steps)
    return decided(name, deviation(run, other), bound, wrong=wrong)


def _other_order(num: int, generator: torch.Generator) -> Tensor:
    """A permutation that is not the identity, where there is another one."""
    order = torch.randperm(num, generator=generator)
    return order.roll(1) if torch.equal(order, torch.arange(num)) else order


# --- runs -----------------------------------------------------------------------------------


def _same_run(
    examined: Examined, draw: Draw, net: nn.Module, task: Task, batch_size: int | None = None
) -> Run:
    """As the draw's base run, of another net or on other points."""
    return examined.train(
        net, task, draw, c=examined.own_c * draw.ratio, lr=examined.rate(draw.ratio),
        rule=examined.rule, batch_size=batch_size,
    )  # fmt: skip


def _on_other_points(
    name: InvariantName,
    examined: Examined,
    draw: Draw,
    task: Task,
    batch_size: int,
    wrong: tuple[str, str],
    order: np.ndarray | None = None,
) -> InvariantFinding:
    """The same net on other points, full batch, against the draw's own."""
    run, amplified = examined.base(draw, full_batch=True)
    found = examined.obstacle(name, draw, run, amplified)
    if found is not None:
        return found
    net = examined.net(draw, examined.own_c * draw.ratio)
    other = _same_run(examined, draw, net, task, batch_size)
    bound = examined.bound(draw, amplified, draw.num_steps)
    apart_at_end = deviation(run, other)
    if apart_at_end <= bound or not examined.mixes_points:
        return decided(name, apart_at_end, bound, wrong=wrong)
    rows = np.arange(draw.num_points) if order is None else order
    before = replace(run, in_training=run.in_training[rows])
    after = replace(other, in_training=other.in_training[: draw.num_points])
    rule = "in training mode: running variances count the copies, so that evaluation differs"
    return decided(name, deviation(before, after, in_training=True), bound, wrong=wrong, rule=rule)


def _in_a_batch(examined: Examined, draw: Draw, net: nn.Module) -> Run:
    """The draw's own net, trained between two others as one batch."""
    c, task = examined.own_c * draw.ratio, examined.data(draw)
    seeds: Mapping[int, nn.Module] = {
        draw.seed: net, draw.seed + 1: examined.net(replace(draw, seed=draw.seed + 1), c)
    }  # fmt: skip

    def make(seed: int) -> nn.Module:
        return copy.deepcopy(seeds[seed])

    setup = replace(
        examined.setup,
        make_model=make,
        multiplier_route="wrapper",
        task=task,
        batch_size=draw.batch_size,
        stop=TargetLoss(target_loss=1e-300, max_epochs=draw.epochs),
        init_scale=1.0,
        augmentation=(),
    )

    def config(seed: int, c: float, ratio: float) -> RunConfig:
        return RunConfig(
            setup_digest="batch", c=c, init_scale=1.0, lr=examined.rate(ratio), seed=seed,
            centered=setup.centered, max_epochs=draw.epochs,
        )  # fmt: skip

    own = config(draw.seed, c, draw.ratio)
    configs = [config(draw.seed + 1, c, draw.ratio), own, config(draw.seed, examined.own_c, 1.0)]
    ended: dict[str, TrainedRun] = {}

    def finish(run: TrainedRun) -> None:
        ended[run.config.digest] = run

    engine = Engine("fused" if fusible(setup, net) else "vmapped")
    replicas = engine.make(setup, examined.rule, configs, torch.float64)
    with warnings.catch_warnings():
        # torch says where batching is slow; here it is not done for speed.
        warnings.filterwarnings("ignore", message="There is a performance drop")
        train_batch(
            setup, dict.fromkeys(seeds, task), configs, replicas, finish, dtype=torch.float64
        )
    return examined.ended(net, task, draw, c, ended[own.digest])
