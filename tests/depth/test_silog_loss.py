"""Against values that are computed by hand."""

import math

import pytest
import torch

pytest.importorskip('mmseg')

from mmsapa.depth import SILogLoss  # noqa: E402


def maps(*images):
    """Depth maps of one row each."""
    return torch.tensor(images)[:, None, None]


def test_it_is_over_the_pixels_of_all_images_together():
    # Logarithms of the ratios: 1, 2 of one image, 0 of the other.
    target = maps([1.0, 2.0, 4.0], [3.0, 0.0, 0.1])
    pred = maps([math.e, 2 * math.e**2, 4.0], [3.0, 7.0, 9.0])
    pred[0, 0, 0, 2] = 4 * math.e**3
    # The last two pixels have no depth, or none above 0.1 m.
    mean, mean_of_squares = (1 + 2 + 3 + 0) / 4, (1 + 4 + 9 + 0) / 4
    expected = 10 * math.sqrt(mean_of_squares - 0.85 * mean**2)
    assert SILogLoss()(pred, target).item() == pytest.approx(expected)


def test_of_a_wrong_scale_a_part_counts():
    target = torch.rand(2, 1, 5, 7) + 1
    loss = SILogLoss(variance_focus=0.75, loss_weight=2.0)(2 * target, target)
    assert loss.item() == pytest.approx(2 * 0.5 * math.log(2))


def gradient(pred, target):
    pred.requires_grad_()
    loss = SILogLoss()(pred, target)
    loss.backward()
    return loss.item(), pred.grad


def test_an_exact_fit_has_neither_loss_nor_gradient():
    target = torch.rand(2, 1, 5, 7) + 1
    loss, grad = gradient(target.clone(), target)
    assert loss == 0 and grad.eq(0).all()


def test_a_batch_without_a_depth_has_neither_loss_nor_gradient():
    loss, grad = gradient(torch.rand(2, 1, 5, 7), torch.zeros(2, 1, 5, 7))
    assert loss == 0 and grad.eq(0).all()


def test_a_predicted_zero_has_a_finite_gradient():
    loss, grad = gradient(maps([0.0, 1.0, 0.0]), maps([2.0, 1.0, 0.0]))
    assert math.isfinite(loss) and grad.isfinite().all()
    assert grad[0, 0, 0, 1] != 0
    assert grad[0, 0, 0, 2] == 0  # no true depth


def test_gradients_are_those_of_the_formula():
    torch.manual_seed(0)
    pred, target = torch.rand(2, 2, 1, 3, 4, dtype=torch.float64) + 0.5
    pred.requires_grad_()
    d = pred.log() - target.log()
    formula = 10 * (d.square().mean() - 0.85 * d.mean().square()).sqrt()
    (expected,) = torch.autograd.grad(formula, pred)
    loss = SILogLoss()(pred, target)
    torch.testing.assert_close(loss, formula)
    torch.testing.assert_close(torch.autograd.grad(loss, pred)[0], expected)


def test_half_precision_is_summed_in_float32():
    pred, target = torch.rand(2, 2, 1, 64, 64) + 0.5
    expected = SILogLoss()(pred.half().float(), target)
    loss = SILogLoss()(pred.half(), target)
    assert loss.dtype == torch.float32
    torch.testing.assert_close(loss, expected)


def test_mistakes_are_explained():
    with pytest.raises(ValueError, match='from 0 to 1, got 1.5'):
        SILogLoss(variance_focus=1.5)
    with pytest.raises(ValueError, match='of one size'):
        SILogLoss()(torch.rand(1, 1, 32, 32), torch.rand(1, 1, 31, 32))
