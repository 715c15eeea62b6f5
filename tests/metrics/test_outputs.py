import pytest
import torch
from sklearn.metrics import log_loss, zero_one_loss

from fls_bench.metrics.outputs import class_centered, point_errors, point_losses, tied_points


def draw(*shape, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=generator, dtype=torch.float64)


def test_several_logits_against_sklearn():
    logits, labels = 3 * draw(50, 4), torch.arange(50) % 4
    error = zero_one_loss(labels.numpy(), logits.argmax(1).numpy())
    assert float(point_errors(logits, labels).mean()) == pytest.approx(error)
    loss = log_loss(labels.numpy(), logits.softmax(1).numpy())
    assert float(point_losses(logits, labels).mean()) == pytest.approx(loss)
    assert not tied_points(logits).any()


@pytest.mark.parametrize("dtype", [torch.int64, torch.uint8])
def test_one_logit_is_the_sign_and_the_logistic_loss(dtype):
    f, labels = 3 * draw(50, 1), (torch.arange(50) % 2).to(dtype)
    two = torch.cat([torch.zeros_like(f), f], dim=1)
    torch.testing.assert_close(point_errors(f, labels), point_errors(two, labels))
    torch.testing.assert_close(point_losses(f, labels), point_losses(two, labels))


def test_ties_are_broken_at_random():
    one = torch.tensor([[0.0], [0.0], [1.0], [-1.0]])
    labels = torch.tensor([0, 1, 1, 1])
    assert point_errors(one, labels).tolist() == [0.5, 0.5, 0, 1]
    assert tied_points(one).tolist() == [1, 1, 0, 0]
    three = torch.tensor([[2.0, 2, 1], [0, 0, 0], [1, 1, 2], [3, 1, 1]])
    errors = point_errors(three, torch.tensor([0, 2, 2, 1])).tolist()
    assert errors == pytest.approx([0.5, 2 / 3, 0, 1])
    assert point_errors(three[:1], torch.tensor([2])).item() == 1  # not among the tied
    assert tied_points(three).tolist() == [1, 1, 0, 0]


@pytest.mark.parametrize("bad", [torch.nan, torch.inf, -torch.inf])
@pytest.mark.parametrize("width", [1, 3])
def test_what_is_not_finite_is_neither_right_nor_wrong(bad, width):
    logits = torch.zeros(2, width)
    logits[0, 0] = bad
    errors, ties = point_errors(logits, torch.tensor([0, 0])), tied_points(logits)
    assert errors.isnan().tolist() == ties.isnan().tolist() == [True, False]


def test_class_centering_keeps_softmax_and_one_logit():
    logits = draw(20, 4)
    centered = class_centered(logits)
    torch.testing.assert_close(centered.softmax(-1), logits.softmax(-1))
    torch.testing.assert_close(centered.sum(-1), torch.zeros(20, dtype=torch.float64))
    torch.testing.assert_close(class_centered(logits[:, :1]), logits[:, :1])


@pytest.mark.parametrize("width", [1, 4])
def test_leading_dimensions_are_replicas(width):
    logits, labels = draw(2, 3, 20, width), torch.randint(2, (2, 3, 20))
    for function in (point_errors, point_losses):
        result = function(logits, labels)
        assert result.shape == (2, 3, 20)
        torch.testing.assert_close(result[1, 2], function(logits[1, 2], labels[1, 2]))
