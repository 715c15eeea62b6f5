import pytest
import torch
from sklearn.metrics import (
    balanced_accuracy_score,
    brier_score_loss,
    log_loss,
    zero_one_loss,
)

from fls_bench.metrics.outputs import (
    brier_score,
    calibration_error,
    class_centered,
    class_probabilities,
    mean_error,
    point_errors,
    point_losses,
    tied_points,
)


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
    for alone in (tied_points, class_centered, class_probabilities):
        torch.testing.assert_close(alone(logits)[1, 2], alone(logits[1, 2]))


@pytest.mark.parametrize("width", [1, 4])
def test_brier_score_against_sklearn(width):
    logits, labels = 3 * draw(60, width), torch.arange(60) % max(2, width)
    p = class_probabilities(logits)
    expected = brier_score_loss(
        labels.numpy(), p.numpy(), scale_by_half=False, labels=list(range(p.shape[1]))
    )
    assert float(brier_score(logits, labels)) == pytest.approx(expected)
    assert float(brier_score(1e3 * draw(60, width).sign(), labels)) <= 2


def ece_by_loops(p, labels, bins):
    total = 0.0
    for b in range(bins):
        inside = [
            (max(row), row.index(max(row)) == y)
            for row, y in zip(p.tolist(), labels.tolist(), strict=True)
            if b / bins < max(row) <= (b + 1) / bins
        ]
        if inside:
            accuracy = sum(hit for _, hit in inside) / len(inside)
            confidence = sum(c for c, _ in inside) / len(inside)
            total += len(inside) / len(labels) * abs(accuracy - confidence)
    return total


@pytest.mark.parametrize("width", [1, 4])
@pytest.mark.parametrize("scale", [0.1, 1.0, 10.0])
def test_calibration_error_against_loops(width, scale):
    logits, labels = scale * draw(300, width), torch.arange(300) % max(2, width)
    for bins in (5, 15):
        expected = ece_by_loops(class_probabilities(logits), labels, bins)
        assert float(calibration_error(logits, labels, bins=bins)) == pytest.approx(expected)


def test_calibration_error_of_known_outputs():
    labels = torch.arange(1000) % 4
    assert float(calibration_error(torch.zeros(1000, 4), labels)) == pytest.approx(0)
    sure = 100 * torch.nn.functional.one_hot(labels, 4)
    assert float(calibration_error(sure, labels)) == pytest.approx(0)
    assert float(calibration_error(sure.roll(1, 1), labels)) == pytest.approx(1)
    # Labels drawn from the probabilities: within 5 deviations of what the docstring says.
    p = draw(20000, 4).softmax(1)
    drawn = torch.multinomial(p, 1, generator=torch.Generator().manual_seed(1))[:, 0]
    assert float(calibration_error(p.log(), drawn)) < (15 / 20000) ** 0.5 / 3
    assert float(calibration_error(3 * p.log(), drawn)) > 0.1


def test_calibration_error_of_more_classes_than_bins():
    logits, labels = 0.1 * draw(300, 40), torch.arange(300) % 40
    expected = ece_by_loops(class_probabilities(logits), labels, 15)
    assert float(calibration_error(logits, labels)) == pytest.approx(expected)


def test_balanced_error_against_sklearn_also_where_a_class_is_absent():
    logits, labels = draw(60, 4), torch.tensor([0] * 40 + [1] * 15 + [3] * 5)
    answers = logits[:, [0, 1, 3]].argmax(1)
    expected = 1 - balanced_accuracy_score(labels, torch.tensor([0, 1, 3])[answers])
    logits[:, 2] = -10  # what never occurs is never answered, as scikit-learn would warn of
    assert float(mean_error(logits, labels, balanced=True)) == pytest.approx(expected)
    plain = float((logits.argmax(1) != labels).double().mean())
    assert float(mean_error(logits, labels)) == pytest.approx(plain)
    assert plain != pytest.approx(expected)
