"""Small steps against the flow that they approximate."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import torch
from scipy.integrate import solve_ivp
from torch import Tensor

from fls_bench import theory
from fls_bench.training.flow import GRADIENT_SHARE, Flow, gradient_flow, replica_step

NEVER = 1e-12
STEP = 0.05
ALPHAS = (2.0**-5, 0.25, 1.0, 2.0)


def problem(
    num_sets: int = 2, n: int = 6, d: int = 9, h: int = 7, seed: int = 3
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Two Gaussian classes and balanced nets."""
    generator = torch.Generator().manual_seed(seed)
    positive = (torch.arange(n) % 2 == 1).expand(num_sets, n)
    x = 0.5 * torch.randn((num_sets, n, d), generator=generator, dtype=torch.float64)
    x[..., 0] += 2 * positive.double() - 1
    hidden = (
        torch.randn((num_sets, h, d), generator=generator, dtype=torch.float64) / (d * h) ** 0.5
    )
    signs = torch.tensor([1.0, -1.0]).repeat(h)[:h].double()
    return x, positive, hidden, signs * hidden.norm(dim=-1)


def follow(alphas: tuple[float, ...] = ALPHAS, **others: Any) -> Flow:
    sizes = others.pop("sizes", {})
    return gradient_flow(
        *problem(**sizes),
        alphas,
        **{"step": STEP, "target_loss": 0.1, "max_steps": 20_000, **others},
    )


def exact(alpha: float, time: float, sizes: dict[str, int]) -> tuple[Tensor, Tensor]:
    """One replica by an adaptive solver, in all d dimensions and written out neuron by neuron."""
    x, positive, hidden, readout = (one[0].numpy() for one in problem(**sizes))
    y, (h, d) = 2.0 * positive - 1, hidden.shape

    def slope(_: float, state: np.ndarray) -> np.ndarray:
        w, v = state[: h * d].reshape(h, d), state[h * d :]
        f = sum(v[j] * np.maximum(x @ w[j], 0) for j in range(h))
        pull = y / (1 + np.exp(y * f)) / len(y)
        dw = [v[j] * ((pull * (x @ w[j] > 0)) @ x) for j in range(h)]
        dv = [pull @ np.maximum(x @ w[j], 0) for j in range(h)]
        return np.concatenate([np.ravel(dw), dv])

    start = np.concatenate([alpha * hidden.ravel(), alpha * readout])
    end = solve_ivp(slope, (0, time), start, rtol=1e-9, atol=1e-11, max_step=0.05).y[:, -1]
    return torch.from_numpy(end[: h * d].reshape(h, d)), torch.from_numpy(end[h * d :])


# Data on which no neuron slides along a kink: there an adaptive solver needs ever smaller steps.
@pytest.mark.parametrize("sizes", [{"n": 6, "d": 9, "seed": 5}, {"n": 8, "d": 3}])
def test_trajectories_approach_those_of_an_adaptive_solver_to_first_order(
    sizes: dict[str, int],
) -> None:
    alpha, time = 0.5, 4.0
    w, v = exact(alpha, time, sizes)
    errors = []
    for step in (0.02, 0.01, 0.005):
        flow = follow(
            (alpha,), step=step, target_loss=NEVER, max_steps=round(time / step), sizes=sizes
        )
        apart = torch.cat([(flow.hidden[0] - w).ravel(), flow.readout[0] - v])
        errors.append(float(apart.abs().max()))
    assert errors[-1] < 0.01 * float(w.abs().max())
    for coarse, fine in pairwise(errors):
        assert 1.7 < coarse / fine < 2.3


def test_balance_drifts_linearly_in_the_step() -> None:
    drifts = []
    for step in (0.02, 0.01, 0.005):
        flow = follow(step=step, target_loss=NEVER, max_steps=round(4 / step))
        balance = flow.hidden.square().sum(dim=-1) - flow.readout.square()
        drifts.append(float(balance.abs().max()))
    for coarse, fine in pairwise(drifts):
        assert 1.8 < coarse / fine < 2.2


def test_replicas_do_not_know_each_other() -> None:
    together = follow()
    assert len(set(together.steps.tolist())) > 4  # they stop one after the other
    x, positive, hidden, readout = problem()
    for a, alpha in enumerate(ALPHAS):
        for s in range(2):
            one = (part[s : s + 1] for part in (x, positive, hidden, readout))
            alone = gradient_flow(*one, (alpha,), step=STEP, target_loss=0.1, max_steps=20_000)
            row = 2 * a + s
            assert alone.steps[0] == together.steps[row]
            torch.testing.assert_close(alone.hidden[0], together.hidden[row], rtol=0, atol=1e-9)
            for name, moment in alone.moments.items():
                same = together.moments[name]
                assert moment.time[0] == same.time[row]
                torch.testing.assert_close(moment.hidden[0], same.hidden[row], rtol=0, atol=1e-9)
                assert torch.equal(moment.in_cone_since[0], same.in_cone_since[row])


def losses(hidden: Tensor, readout: Tensor, set_: int = 0) -> Tensor:
    """Loss of every training point."""
    x, positive, *_ = problem()
    f = (x[set_] @ hidden.T).clamp_min(0) @ readout
    return torch.nn.functional.softplus(-(2 * positive[set_].double() - 1) * f)


def test_a_replica_stops_the_first_time_that_its_loss_is_low_enough() -> None:
    flow = follow()
    assert flow.reached.all()
    for row in range(len(flow.steps)):
        loss = losses(flow.hidden[row], flow.readout[row], row % 2).mean()
        assert float(loss) == pytest.approx(float(flow.loss[row]), rel=1e-9)
        assert loss <= 0.1
    before = follow(max_steps=int(flow.steps.min()) - 1)
    assert not before.reached.any()
    assert not before.diverged.any()
    assert (before.loss > 0.1).all()
    assert (before.steps == int(flow.steps.min()) - 1).all()


def test_steps_are_shorter_where_alpha_is_large() -> None:
    assert [replica_step(0.1, a) for a in (0.01, 1.0, 2.0, 4.0)] == [0.1, 0.1, 0.025, 0.00625]
    assert follow().step.tolist() == [STEP] * 6 + [STEP / 4] * 2


def test_a_step_far_too_long_is_seen() -> None:
    flow = follow((4.0,), step=1e4, max_steps=200)
    assert flow.diverged.any()
    assert not (flow.diverged & flow.reached).any()


@pytest.mark.parametrize("name", ["norm", "gradient"])
def test_a_moment_is_the_first_step_at_which_it_holds(name: str) -> None:
    alpha = 2.0**-5
    hidden = problem()[2]
    moment = follow((alpha,)).moments[name]  # type: ignore[index]
    assert moment.found.all()
    bound = theory.phase1_norm_bound(alpha, 7, hidden.norm(dim=-1).amax(dim=-1))

    def holds(w: Tensor, v: Tensor, s: int) -> bool:
        if name == "norm":
            return bool(w.square().sum(dim=-1).max() > bound[s])
        slope = 1 - torch.exp(-losses(w, v, s))  # sigmoid(-m) = 1 - exp(-softplus(-m))
        return bool((2 * slope - 1).abs().max() > GRADIENT_SHARE)

    for s in range(2):
        count = round(float(moment.time[s]) / STEP)
        assert holds(moment.hidden[s], moment.readout[s], s)
        before = follow((alpha,), max_steps=count - 1)
        assert not holds(before.hidden[s], before.readout[s], s)


def test_the_cone_holds_neurons_active_on_all_positive_points_alone() -> None:
    x, positive, *_ = problem(num_sets=2)
    moment = follow((2.0**-8,)).moments["norm"]
    inside = 0
    for s in range(2):
        active = moment.hidden[s] @ x[s].T > 0  # [h, n]
        matches = (active == positive[s]).all(dim=-1)
        assert torch.equal(matches, moment.in_cone_since[s].isfinite())
        inside += int(matches.sum())
        assert (moment.in_cone_since[s][matches] <= moment.time[s]).all()
    assert inside > 0


def test_norms_stay_small_for_the_whole_explicit_time() -> None:
    """The lemma of Min, Mallada, Vidal, and with it the conversion of times to the mean loss."""
    x, _, hidden, _ = problem()
    alphas = tuple(2.0**k for k in range(-10, -4))
    x_max = float(x.norm(dim=-1).max())
    w_max = float(hidden.norm(dim=-1).max())
    assert max(alphas) <= 1 / (4 * 7**0.5 * x_max * w_max**2)  # its condition
    flow = follow(alphas)
    assert flow.moments["time"].found.all()
    assert (flow.moments["time"].time > 0).any()
    assert (flow.moments["norm"].time >= flow.moments["time"].time).all()
