import json

import pytest
import torch
import torch.nn.functional as F

pytest.importorskip('mmseg')

from mmsapa.errors import UserError  # noqa: E402
from mmsapa.seg import BalancedCrossEntropyLoss  # noqa: E402

WEIGHTS = [0.5, 1.0, 3.0]


@pytest.fixture
def batch():
    torch.manual_seed(1)
    pred = torch.randn(2, 3, 5, 7, requires_grad=True)
    target = torch.randint(0, 3, (2, 5, 7))
    target[:, :2] = 255
    return pred, target


@pytest.mark.parametrize('weights', [None, WEIGHTS])
def test_is_the_sum_over_the_number_of_labeled_pixels(batch, weights):
    pred, target = batch
    total = 0
    for n, y, x in torch.cartesian_prod(*map(torch.arange, target.shape)):
        label = target[n, y, x].item()
        if label != 255:
            loss = -pred[n, :, y, x].log_softmax(0)[label]
            total += loss * (weights or [1.0] * 3)[label]
    expected = total / (2 * 3 * 7)
    loss = BalancedCrossEntropyLoss(weights, loss_weight=2.0)(pred, target)
    torch.testing.assert_close(loss, 2 * expected)
    if not weights:
        torch.testing.assert_close(
            loss, 2 * F.cross_entropy(pred, target, ignore_index=255)
        )


def test_weights_come_from_a_file(batch, tmp_path):
    path = tmp_path / 'class_weights.json'
    path.write_text(json.dumps(WEIGHTS))
    from_file, from_list = (
        BalancedCrossEntropyLoss(weights)(*batch)
        for weights in (str(path), WEIGHTS)
    )
    assert torch.equal(from_file, from_list)
    with pytest.raises(UserError, match='no.json, which cannot be read'):
        BalancedCrossEntropyLoss(str(tmp_path / 'no.json'))


def test_without_labels_loss_and_gradients_are_zero(batch):
    pred, target = batch
    loss = BalancedCrossEntropyLoss(WEIGHTS)(pred, target.fill_(255))
    loss.backward()
    assert loss == 0 and pred.grad.eq(0).all()


def test_a_samplers_weights_and_half_precision(batch):
    pred, target = batch
    loss = BalancedCrossEntropyLoss()
    chosen = torch.zeros(2, 5, 7)
    chosen[:, 2] = 1
    expected = F.cross_entropy(
        pred[:, :, 2], target[:, 2], reduction='sum'
    ) / (2 * 3 * 7)
    torch.testing.assert_close(loss(pred, target, chosen), expected)
    half = loss(pred.bfloat16(), target)
    assert half.dtype == torch.float32
    torch.testing.assert_close(half, loss(pred, target), rtol=0.02, atol=0)


def test_a_sampler_may_ask_for_the_loss_of_each_pixel(batch):
    pred, target = batch
    loss = BalancedCrossEntropyLoss(loss_weight=2.0)
    each = loss(pred, target, reduction_override='none')
    assert each.shape == target.shape
    mean = each.sum() / (target != 255).sum()
    torch.testing.assert_close(mean, loss(pred, target))


def test_logits_of_one_class_are_refused(batch):
    pred, target = batch
    with pytest.raises(ValueError, match='one alone, out_channels=1; leave'):
        BalancedCrossEntropyLoss()(pred[:, :1], target)


def test_weights_of_other_classes_are_refused(batch):
    with pytest.raises(ValueError, match='each of 3 classes, got 2'):
        BalancedCrossEntropyLoss([1.0, 2.0])(*batch)
