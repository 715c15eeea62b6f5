"""What the two-layer theory says of a followed flow: errors, angles and bounds, in closed form."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from fls_bench import theory
from fls_bench.errors import InputError
from fls_bench.tasks import Task
from fls_bench.training.flow import Flow


@dataclass(frozen=True)
class Mixture:
    """The law of the data: x = kappa·y·s + sigma·z."""

    kappa: float
    sigma: float
    s: Tensor

    @classmethod
    def of(cls, task: Task) -> Mixture:
        """That of a task's data; refused where it is not ``mixture``."""
        if task.spec is None or task.spec.name != "mixture":
            raise InputError(
                f"The theory is about two Gaussian classes, not about {task.name!r}.",
                "Choose the task 'mixture'.",
            )
        arguments = task.spec.arguments
        kappa = float(arguments["kappa"])
        s = torch.zeros(task.input_dim, dtype=torch.float64)
        s[0] = math.copysign(1.0, kappa)  # the direction that points to the positive class
        return cls(abs(kappa), float(arguments["sigma"]), s)


def measure_flow(
    flow: Flow,
    x: Tensor,
    positive: Tensor,
    hidden: Tensor,
    alphas: Sequence[float],
    mixture: Mixture,
) -> dict[str, Tensor]:
    """What the theory says of replicas, in closed form.

    The neurons of the theory are those with v_j > 0 that are active on all positive and on no negative
    training points (the positive cone). ``phase1_neuron_angle`` is their mean angle to x_+ weighted by
    v_j^2, the weight of a balanced neuron in w_hat; ``psi_min`` the least of their cosines,
    ``psi_bound`` the bound for that neuron, with x_+ the class sum; ``psi_slack`` the least of
    psi_j - bound. Times are those of the flow on the mean loss.

    Args:
        flow: The replicas.
        x: Training inputs ``[S, n, d]``.
        positive: ``[S, n]``.
        hidden: W before alpha, ``[S, h, d]``.
        alphas: [A].
        mixture: The law of the data.

    Returns:
        Name -> ``[R]``, NaN where there is none: no phase 1, no such neuron, a vacuous bound.
    """
    count, (_, n, _), h = len(alphas), x.shape, hidden.shape[1]

    def repeated(values: Tensor) -> Tensor:
        return values.repeat(count, *[1] * (values.ndim - 1))

    alpha = torch.tensor(alphas, dtype=torch.float64).repeat_interleave(len(x))
    total = repeated(theory.positive_vector(x, positive, "sum"))
    x_max = repeated(torch.linalg.vector_norm(x, dim=-1).amax(dim=-1))
    w_max = repeated(torch.linalg.vector_norm(hidden, dim=-1).amax(dim=-1))
    norm: Tensor = torch.linalg.vector_norm(total, dim=-1)
    mean_norm = norm / repeated(positive.double().sum(dim=-1)).clamp_min(1)
    law = (mixture.kappa, mixture.sigma)
    parts = theory.decompose(
        theory.effective_predictor(flow.hidden, flow.readout), total, mixture.s, *law
    )
    linear = theory.linear_direction(flow.hidden, flow.readout)
    zeta_sum = theory.zeta(alpha, n, h, x_max, w_max, norm)
    values = {
        "bayes": theory.bayes_error(*law).expand(len(alpha)),
        "over_alignment": parts.over_alignment,
        "over_fitting": parts.over_fitting,
        "excess_effective": parts.excess,
        "excess_linear": theory.excess_error(linear, mixture.s, *law),
        "theta": parts.theta,
        "phi": parts.phi,
        "zeta_sum": zeta_sum,
        "zeta_mean": theory.zeta(alpha, n, h, x_max, w_max, mean_norm),
    }
    nan = torch.full_like(alpha, torch.nan)
    for name, label in (("norm", "phase1"), ("time", "time"), ("gradient", "gradient")):
        moment = flow.moments[name]  # type: ignore[index]
        # What held at init already has no phase before it.
        seen = moment.found & (moment.time > 0)
        predictor = theory.effective_predictor(moment.hidden, moment.readout)
        values[f"{label}_angle"] = torch.where(seen, theory.angle(predictor, total), nan)
        if name != "norm":
            continue
        values["phase1_time"] = torch.where(seen, moment.time, nan)
        upward = moment.readout > 0
        cone = moment.in_cone_since.isfinite() & upward & seen[:, None]
        angles = theory.angle(moment.hidden, total[:, None])
        weights = moment.readout.square() * cone
        values["phase1_neuron_angle"] = (weights * angles).sum(dim=-1) / weights.sum(dim=-1)
        largest = moment.readout.argmax(dim=-1, keepdim=True)
        values["phase1_largest_angle"] = torch.where(
            seen & upward.any(dim=-1), angles.gather(-1, largest)[:, 0], nan
        )
        values["phase1_cone_share"] = torch.where(
            seen, cone.double().sum(dim=-1) / upward.sum(dim=-1), nan
        )
        since = torch.where(cone, moment.in_cone_since, 0.0)
        elapsed = (moment.time[:, None] - since) / theory.mean_loss_time(1.0, n)
        bound = theory.alignment_bound(zeta_sum[:, None], norm[:, None], elapsed)
        psi = torch.where(cone, torch.cos(angles), torch.inf)
        least, where = psi.min(dim=-1, keepdim=True)
        says = cone.any(dim=-1) & (zeta_sum > 0)
        values["psi_min"] = torch.where(says, least[:, 0], nan)
        values["psi_bound"] = torch.where(says, bound.gather(-1, where)[:, 0], nan)
        values["psi_slack"] = torch.where(says, (psi - bound).amin(dim=-1), nan)
    return values
