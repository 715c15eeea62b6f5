"""Gradient flow of two-layer ReLU nets on mean logistic loss, by small full-batch steps.

All replicas, each of its own init scale and data, are one batch. Neurons move within the span of the
training inputs only, w_j(t) - w_j(0) = sum_i a_ij x_i, so the flow is followed in an orthonormal basis
of that span: the same numbers, min(n, d)/d of the work.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

import torch
from torch import Tensor
from torch.nn.functional import softplus

from fls_bench import theory
from fls_bench.training.runs import divergence_bound

MomentName = Literal["norm", "time", "gradient"]

GRADIENT_SHARE = 0.1
"""``gradient``: the first time that the slope of the loss at some point has moved by this share."""

_COMPACT_AT = 8
"""Stopped replicas leave the batch once they are one in so many: copying the rest costs a step."""


@dataclass(frozen=True)
class Moment:
    """The nets at the first step at which something held, each in its own time.

    Attributes:
        found: Whether it ever held before the stop, ``[R]``. Elsewhere the other fields are void.
        time: Flow time, ``[R]``; 0 where it held at init.
        hidden: Neurons, ``[R, h, d]``.
        readout: ``[R, h]``.
        in_cone_since: Flow time since which each neuron is active on all positive and on no negative
            training points, ``[R, h]``; infinity for a neuron that is not.
    """

    found: Tensor
    time: Tensor
    hidden: Tensor
    readout: Tensor
    in_cone_since: Tensor


@dataclass(frozen=True)
class Flow:
    """R replicas at their stop; replica a·S + s is the one of alpha a and data s.

    Attributes:
        reached: Whether the loss came down to the target, ``[R]``.
        diverged: Whether it grew beyond all bounds: the step is too long, ``[R]``.
        steps: Steps taken, ``[R]``.
        step: Length of a step, ``[R]``.
        loss: Mean logistic loss at the stop, ``[R]``.
        hidden: Neurons at the stop, ``[R, h, d]``.
        readout: ``[R, h]``.
        moments: ``norm``: the end of phase 1, the first time that some squared norm is beyond
            ``theory.phase1_norm_bound``. ``time``: the explicit ``theory.phase1_time``. ``gradient``:
            see ``GRADIENT_SHARE``.
    """

    reached: Tensor
    diverged: Tensor
    steps: Tensor
    step: Tensor
    loss: Tensor
    hidden: Tensor
    readout: Tensor
    moments: Mapping[MomentName, Moment]


def replica_step(step: float, alpha: float) -> float:
    """The step of one replica: shorter in proportion to alpha^-2 beyond alpha = 1.

    A step is stable below 2 / (largest eigenvalue of the Hessian), which grows like the squared norms of
    the layers. These are alpha^2 at init; nets that start smaller grow to order one before they stop.

    Args:
        step: The step for alpha <= 1.
        alpha: Init scale.

    Returns:
        The step.
    """
    return step * min(1.0, alpha**-2)


@dataclass
class _Batch:
    """The replicas that still train. Row k is replica ``index[k]``; shapes as there, r = min(n, d)."""

    index: Tensor
    x: Tensor  # [R, n, r]
    sign: Tensor  # [R, n], -1 or 1
    a: Tensor  # [R, h, r], neurons within the span
    v: Tensor  # [R, h]
    off: Tensor  # [R, h], squared norm of what lies outside of the span
    step: Tensor  # [R]
    bound: Tensor  # [R], of the training loss
    norm_bound: Tensor  # [R]
    explicit: Tensor  # [R]
    since: Tensor  # [R, h]
    found: dict[MomentName, Tensor]  # [R]
    done: Tensor  # [R]

    def keep(self, rows: Tensor) -> None:
        for name, value in vars(self).items():
            if isinstance(value, Tensor):
                setattr(self, name, value[rows])
        self.found = {name: value[rows] for name, value in self.found.items()}


@dataclass
class _States:
    """Copies of states within the span, filled as replicas come to them."""

    a: Tensor
    v: Tensor
    since: Tensor
    time: Tensor
    found: Tensor = field(init=False)

    def __post_init__(self) -> None:
        self.found = torch.zeros(len(self.time), dtype=torch.bool)

    def take(self, batch: _Batch, rows: Tensor, time: Tensor) -> None:
        to = batch.index[rows]
        self.a[to], self.v[to], self.since[to] = batch.a[rows], batch.v[rows], batch.since[rows]
        self.time[to], self.found[to] = time[rows], True


@torch.no_grad()
def gradient_flow(
    x: Tensor,
    positive: Tensor,
    hidden: Tensor,
    readout: Tensor,
    alphas: Sequence[float],
    *,
    step: float,
    target_loss: float,
    max_steps: int,
) -> Flow:
    """Follow the gradient flow of every alpha on every data set until the loss is low enough.

    Args:
        x: Training inputs ``[S, n, d]``, float64.
        positive: Their labels ``[S, n]``, bool.
        hidden: W, ``[S, h, d]``, float64; a replica starts at alpha·W.
        readout: v at alpha = 1, ``[S, h]``.
        alphas: Init scales, [A].
        step: Of replicas with alpha <= 1; see ``replica_step``.
        target_loss: A replica stops the first time that its mean logistic loss is <= this.
        max_steps: Most steps.

    Returns:
        R = A·S replicas at their stop, and at the moments on the way.

    Cost: a step takes 8·h·n·min(n, d) flops per replica.
    """
    num_sets, n, _ = x.shape
    width, sets = readout.shape[1], torch.arange(num_sets).repeat(len(alphas))
    scale = torch.tensor(alphas, dtype=torch.float64).repeat_interleave(num_sets)
    basis = torch.linalg.qr(x.mT).Q  # [S, d, r]
    within, w_max = hidden @ basis, torch.linalg.vector_norm(hidden, dim=-1).amax(dim=-1)
    outside = hidden - within @ basis.mT
    x_max = torch.linalg.vector_norm(x, dim=-1).amax(dim=-1)
    num = len(scale)
    explicit = theory.mean_loss_time(theory.phase1_time(scale, n, width, x_max[sets]), n)
    steps = torch.tensor([replica_step(step, alpha) for alpha in alphas], dtype=torch.float64)
    batch = _Batch(
        index=torch.arange(num),
        x=(x @ basis)[sets],
        sign=(2 * positive.double() - 1)[sets],
        a=scale[:, None, None] * within[sets],
        v=scale[:, None] * readout[sets],
        off=scale[:, None] ** 2 * outside.square().sum(dim=-1)[sets],
        step=steps.repeat_interleave(num_sets),
        bound=torch.full((num,), torch.inf, dtype=torch.float64),
        norm_bound=theory.phase1_norm_bound(scale, width, w_max[sets]),
        explicit=explicit,
        since=torch.full((num, width), torch.inf, dtype=torch.float64),
        found={name: torch.zeros(num, dtype=torch.bool) for name in ("norm", "time", "gradient")},
        done=torch.zeros(num, dtype=torch.bool),
    )

    def states() -> _States:
        return _States(
            batch.a.clone(), batch.v.clone(), batch.since.clone(), torch.zeros_like(scale)
        )

    end, moments = states(), {name: states() for name in batch.found}
    step_of = batch.step
    result = {
        "reached": torch.zeros(num, dtype=torch.bool),
        "diverged": torch.zeros(num, dtype=torch.bool),
        "steps": torch.zeros(num, dtype=torch.int64),
        "loss": torch.zeros_like(scale),
    }
    for count in range(max_steps + 1):
        time = batch.step * count
        before = batch.a @ batch.x.mT  # [R, h, n]
        active = before > 0
        gated = before.clamp_min(0)
        margin = batch.sign * (batch.v[:, None] @ gated)[:, 0]
        loss = softplus(-margin).mean(dim=-1)
        slope = torch.sigmoid(-margin)  # 1/2 at f = 0
        if count == 0:
            batch.bound = divergence_bound(loss)
        pending = ~torch.stack([*batch.found.values()]).all(dim=0) & ~batch.done
        if pending.any():
            _moments(batch, moments, time, active, slope)
        reached, diverged = loss <= target_loss, ~(loss <= batch.bound)
        stopped = (reached | diverged | (count == max_steps)) & ~batch.done
        if stopped.any():
            end.take(batch, stopped, time)
            to = batch.index[stopped]
            result["reached"][to] = (reached & ~diverged)[stopped]
            result["diverged"][to] = diverged[stopped]
            result["steps"][to] = count
            result["loss"][to] = loss[stopped]
            batch.done = batch.done | stopped
            if batch.done.all():
                break
        # d/dt w_j = v_j sum_i g_i [<w_j, x_i> > 0] x_i and d/dt v_j = sum_i g_i relu(<w_j, x_i>)
        weights = (batch.sign * slope / n)[:, None] * active
        pull = weights @ batch.x  # [R, h, r]
        grown = (batch.a * pull).sum(dim=-1)  # the same sum: relu(z) = [z > 0] z
        batch.a = batch.a + (batch.step[:, None] * batch.v)[..., None] * pull
        batch.v = batch.v + batch.step[:, None] * grown
        if _COMPACT_AT * int(batch.done.sum()) >= len(batch.done):
            batch.keep(~batch.done)

    def whole(state: _States) -> Tensor:
        full: Tensor = state.a @ basis[sets].mT + scale[:, None, None] * outside[sets]
        return full

    return Flow(
        **result, step=step_of, hidden=whole(end), readout=end.v,
        moments={
            name: Moment(state.found, state.time, whole(state), state.v, state.since)
            for name, state in moments.items()
        },
    )  # fmt: skip


def _moments(
    batch: _Batch,
    moments: Mapping[MomentName, _States],
    time: Tensor,
    active: Tensor,
    slope: Tensor,
) -> None:
    """Note which neurons are in the positive cone, and copy replicas that come to a moment."""
    inside = (active == (batch.sign > 0)[:, None]).all(dim=-1)
    entered = torch.where(batch.since.isinf(), time[:, None], batch.since)
    batch.since = torch.where(inside, entered, torch.inf)
    norms = batch.a.square().sum(dim=-1) + batch.off
    holds: dict[MomentName, Tensor] = {
        "norm": norms.amax(dim=-1) > batch.norm_bound,
        "time": time >= batch.explicit,
        "gradient": (2 * slope - 1).abs().amax(dim=-1) > GRADIENT_SHARE,
    }
    for name, now in holds.items():
        new = now & ~batch.found[name] & ~batch.done
        if new.any():
            moments[name].take(batch, new, time)
            batch.found[name] = batch.found[name] | new
