"""Against the formula, pixel by pixel."""

import math

import pytest
import torch

from mmsapa.matting import MattingLoss, is_unknown

from .helpers import make_data, make_trimap


def stacked(data, name):
    return torch.stack([s.get(name).data for s in data['data_samples']])


@pytest.fixture
def batch():
    data = make_data((5, 12), (5, 12), unknown=127)
    alpha, fg, bg, trimap = (
        stacked(data, name).double()
        for name in ('gt_alpha', 'gt_fg', 'gt_bg', 'trimap')
    )
    trimap[1, :, 0] = 100  # more is unknown in the second image
    pred = torch.randn_like(alpha, requires_grad=True)
    return pred, alpha, is_unknown(trimap), fg, bg


def test_it_is_the_formula(batch):
    pred, alpha, unknown, fg, bg = batch
    losses = MattingLoss()(*batch)
    matte = composite = 0
    for n in range(2):
        a = c = count = 0
        for y in range(5):
            for x in range(12):
                m = float(unknown[n, 0, y, x])
                p, truth = pred[n, 0, y, x].item(), alpha[n, 0, y, x].item()
                count += m
                a += math.sqrt(((p - truth) * m) ** 2 + 1e-12)
                for f, b in zip(fg[n, :, y, x] / 255, bg[n, :, y, x] / 255):
                    made = p * f + (1 - p) * b
                    true = truth * f + (1 - truth) * b
                    c += math.sqrt(((made - true) * m) ** 2 + 1e-12)
        matte += 0.5 * a / (count + 1) / 2
        composite += 0.5 * c / (count + 1) / 2
    assert losses.keys() == {'loss_alpha', 'loss_composition'}
    assert losses['loss_alpha'].item() == pytest.approx(matte)
    assert losses['loss_composition'].item() == pytest.approx(composite)


def test_known_pixels_have_no_gradient(batch):
    sum(MattingLoss()(*batch).values()).backward()
    unknown, grad = batch[2], batch[0].grad
    assert grad[unknown].ne(0).all() and grad[~unknown].eq(0).all()


def test_nothing_unknown_and_an_exact_fit_have_no_gradient(batch):
    pred, alpha, unknown, fg, bg = batch
    for guess, counts in (
        (pred, torch.zeros_like(unknown)),
        (alpha.clone().requires_grad_(), unknown),
    ):
        loss = sum(MattingLoss()(guess, alpha, counts, fg, bg).values())
        (grad,) = torch.autograd.grad(loss, guess)
        assert loss < 1e-3 and grad.eq(0).all()


def test_the_composite_may_be_left_out(batch):
    loss = MattingLoss(1.0, composition_weight=0)
    losses = loss(*batch[:3])
    expected = 2 * MattingLoss()(*batch)['loss_alpha']
    assert losses.keys() == {'loss_alpha'}
    torch.testing.assert_close(losses['loss_alpha'], expected)


def test_half_precision_is_summed_in_float32(batch):
    parts = [x.detach() if x.dtype == torch.bool else x.half() for x in batch]
    pred, alpha, unknown, fg, bg = parts
    expected = MattingLoss()(
        *(pred.float(), alpha.float(), unknown, fg.float(), bg.float())
    )
    found = MattingLoss()(pred, alpha.float(), unknown, fg.float(), bg.float())
    for name, value in expected.items():
        assert found[name].dtype == torch.float32
        torch.testing.assert_close(found[name], value)


def test_mistakes_are_explained(batch):
    pred, alpha, unknown, fg, bg = batch
    with pytest.raises(ValueError, match='of one shape, got'):
        MattingLoss()(pred, alpha[..., :-1], unknown, fg, bg)
    with pytest.raises(ValueError, match='or set composition_weight=0'):
        MattingLoss()(pred, alpha, unknown)


def test_all_between_is_unknown():
    trimap = make_trimap(2, 8, 127)
    trimap[0, 0, 0] = 1
    expected = [[True] + [False] + 4 * [True] + 2 * [False]]
    expected.append([False] * 2 + 4 * [True] + 2 * [False])
    assert is_unknown(trimap)[0].tolist() == expected
