"""The rank with a gradient: against numpy's singular values, its scale, and what must not break it."""

import numpy as np
import pytest
import torch

from fls_bench.metrics.kernels import effective_rank, log_rank
from fls_bench.schema import RankMeasure

MEASURES: tuple[RankMeasure, ...] = ("nuclear", "participation")


def features(*shape: int, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    scales = torch.logspace(0, -2, shape[-1], dtype=torch.float64)
    return torch.randn(shape, generator=generator, dtype=torch.float64) * scales + 3


@pytest.mark.parametrize("shape", [(25, 128), (25, 8), (4, 25, 25)])
def test_it_is_the_logarithm_of_the_rank_from_singular_values(shape: tuple[int, ...]) -> None:
    x = features(*shape)
    centred = x - x.mean(-2, keepdim=True)
    sigma = np.linalg.svd(centred.numpy(), compute_uv=False)
    nuclear = sigma.sum(-1) ** 2 / (sigma**2).sum(-1)
    # A millionth of the trace under up to 25 roots, whose sum is above 2.
    assert np.allclose(log_rank(x, "nuclear").exp(), nuclear, rtol=0.025)
    assert torch.allclose(log_rank(x, "participation").exp(), effective_rank(x), rtol=1e-12)
    floored = np.sqrt(sigma**2 + 1e-6 * (sigma**2).sum(-1, keepdims=True)).sum(-1)
    # Without the zeros that the smaller product has beyond the singular values: exactly.
    assert np.allclose(log_rank(x, "nuclear"), np.log(floored**2 / (sigma**2).sum(-1)), atol=1e-9)


@pytest.mark.parametrize("measure", MEASURES)
def test_its_gradient_is_right_although_centring_leaves_a_zero(measure: RankMeasure) -> None:
    x = features(2, 5, 4).requires_grad_()
    wide = features(2, 4, 6).requires_grad_()
    assert torch.autograd.gradcheck(lambda v: log_rank(v, measure), x)
    assert torch.autograd.gradcheck(lambda v: log_rank(v, measure), wide)


@pytest.mark.parametrize("measure", MEASURES)
@pytest.mark.parametrize("scale", [1e-12, 1e12])
def test_it_does_not_see_scale_also_in_single_precision(measure: RankMeasure, scale: float) -> None:
    x = features(25, 40).float()
    own = (x * scale).requires_grad_()
    value = log_rank(own, measure)
    (gradient,) = torch.autograd.grad(value, own)
    like = x.clone().requires_grad_()
    expected = log_rank(like, measure)
    (other,) = torch.autograd.grad(expected, like)
    assert value.item() == pytest.approx(expected.item(), abs=1e-4)
    assert torch.allclose(gradient * scale, other, rtol=2e-2, atol=1e-4 * float(other.abs().max()))


@pytest.mark.parametrize("measure", MEASURES)
def test_constant_and_broken_features_do_no_harm_to_others(measure: RankMeasure) -> None:
    x = features(3, 10, 6).float()
    alone = log_rank(x, measure)[2]
    x[0], x[1, 0, 0] = 1.0, float("nan")
    x.requires_grad_()
    values = log_rank(x, measure)
    assert torch.isfinite(values[0])
    assert values[2].item() == pytest.approx(alone.item(), abs=1e-6)
    (gradient,) = torch.autograd.grad(values[[0, 2]].sum(), x)
    assert torch.isfinite(gradient[[0, 2]]).all()
