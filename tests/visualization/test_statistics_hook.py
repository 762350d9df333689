"""Statistics of SAPA layers during training."""

import json
import math

import pytest
import torch
import torch.nn.functional as F
from mmengine.model import BaseModel
from mmengine.runner import Runner
from torch.utils.data import DataLoader

from mmsapa.registry import HOOKS
from mmsapa.upsamplers import SAPA
from mmsapa.visualization.statistics_hook import measure

HOOK = dict(type='mmsapa.SAPAStatisticsHook', interval=2)
RATE = 0.02


class Tiny(BaseModel):
    """A stem, a layer and a frozen head."""

    def __init__(self, layer=True):
        super().__init__()
        self.stem = torch.nn.Conv2d(3, 4, 1)
        self.up = SAPA(4, 4, 'G', embed_dims=3, kernel_size=3)
        self.head = torch.nn.Conv2d(4, 1, 1).requires_grad_(False)
        if not layer:
            self.up = torch.nn.Upsample(scale_factor=2)

    def forward(self, image, mode):
        guide = self.stem(image)
        out = self.up(F.avg_pool2d(guide, 2), guide)
        return dict(loss=self.head(out).square().mean() * 50)


class Norms:
    """Sizes of gradients and parameters, measured another way."""

    def __init__(self, model):
        self.model = model

    def of(self, prefix, what):
        tensors = [
            what(parameter).flatten()
            for name, parameter in self.model.named_parameters()
            if name.startswith(prefix) and parameter.requires_grad
        ]
        return torch.cat(tensors).norm().item()


def train(folder, hooks, iterations=5, layer=True, clip=None, compiled=False):
    torch.manual_seed(0)
    images = torch.randn(5, 3, 8, 8)[:iterations]
    data = [dict(image=image) for image in images]
    model = Tiny(layer)
    runner = Runner(
        model,
        str(folder),
        train_dataloader=DataLoader(data, batch_size=1),
        train_cfg=dict(by_epoch=False, max_iters=iterations),
        optim_wrapper=dict(
            optimizer=dict(type='SGD', lr=RATE), clip_grad=clip
        ),
        custom_hooks=hooks,
        visualizer=dict(
            type='Visualizer',
            name=str(folder),
            vis_backends=[dict(type='LocalVisBackend')],
        ),
        experiment_name=str(folder).replace('/', '_'),
        randomness=dict(seed=0),
        log_level='ERROR',
        cfg=dict(compile=compiled),
    )
    runner.train()
    (path,) = folder.rglob('scalars.json')
    lines = map(json.loads, path.read_text().splitlines())
    return model, {x['step']: x for x in lines if 'sapa/model/update' in x}


def test_logs_gradients_and_steps_and_changes_nothing(tmp_path):
    before, _ = train(tmp_path / 'before', [], iterations=1)
    model, logged = train(tmp_path / 'with', [HOOK])
    plain, none = train(tmp_path / 'without', [])
    for key, tensor in plain.state_dict().items():
        assert torch.equal(tensor, model.state_dict()[key]), key
    assert (set(logged), set(none)) == ({2, 4}, set())
    # The second iteration once more, by hand.
    torch.manual_seed(0)
    before.zero_grad()
    before(torch.randn(5, 3, 8, 8)[1:2], 'loss')['loss'].backward()
    norms, scalars = Norms(before), logged[2]
    for name, prefix in (('up', 'up'), ('stem', 'stem'), ('model', '')):
        gradient = norms.of(prefix, lambda parameter: parameter.grad)
        size = norms.of(prefix, lambda parameter: parameter.detach())
        logged_gradient = scalars[f'sapa/{name}/grad_norm']
        assert logged_gradient == pytest.approx(gradient, rel=1e-4)
        step = RATE * gradient / size
        assert scalars[f'sapa/{name}/update'] == pytest.approx(step, rel=1e-3)
    assert 'sapa/head/grad_norm' not in scalars  # it is frozen
    assert {key for key in scalars if '/up/' in key} == {
        f'sapa/up/{key}'
        for key in (
            *('logit_std', 'logit_max', 'entropy', 'outside', 'gate'),
            *('query_norm', 'key_norm', 'x_rms', 'x_variation', 'guide_rms'),
            *('norm_guide_rms', 'norm_x_rms', 'grad_norm', 'update'),
        )
    }


def test_gradients_are_those_before_clipping(tmp_path):
    hooks = [dict(HOOK, interval=1)]
    limit = 1e-3
    free, clipped = (
        train(tmp_path / name, hooks, iterations=1, clip=clip)[1][1]
        for name, clip in (('free', None), ('clip', dict(max_norm=limit)))
    )
    gradient = free['sapa/model/grad_norm']
    assert clipped['sapa/model/grad_norm'] == gradient > 10 * limit
    assert clipped['sapa/model/update'] == pytest.approx(
        free['sapa/model/update'] * limit / gradient, rel=1e-2
    )


def test_measures_what_it_says():
    torch.manual_seed(1)
    layer = SAPA(4, 6, 'B', embed_dims=3, kernel_size=3)
    for module in (layer.query, layer.key):
        torch.nn.init.normal_(module.weight)
    x, guide = torch.randn(2, 4, 3, 4), torch.randn(2, 6, 6, 8)
    with torch.no_grad():
        query = layer.query(layer.norm_guide(guide))
        key = layer.key(layer.norm_x(x))
    windows = F.unfold(key, 3, padding=1).view(2, 3 * 9, 3, 4)
    windows = F.interpolate(windows, scale_factor=2).view(2, 3, 9, 6, 8)
    logits = (query[:, :, None] * windows).sum(1)
    kernels = logits.softmax(1)
    inside = F.unfold(torch.ones(1, 1, 3, 4), 3, padding=1).view(1, 9, 3, 4)
    inside = F.interpolate(inside, scale_factor=2)
    entropy = -(kernels * kernels.log()).sum(1).mean() / math.log(9)
    expected = dict(
        logit_std=logits.std(1, correction=0).mean(),
        logit_max=(logits.amax(1) - logits.amin(1)).max(),
        entropy=entropy,
        outside=(kernels * (1 - inside)).sum(1).mean(),
        query_norm=query.norm(dim=1).mean(),
        key_norm=key.norm(dim=1).mean(),
    )
    measured = measure(layer, x, guide)
    for name, value in expected.items():
        assert float(measured[name]) == pytest.approx(float(value), 1e-4), name


def test_measures_what_is_known_of_special_cases():
    layer = SAPA(4, variant='G', kernel_size=3, prior='nearest')
    torch.nn.init.ones_(layer.query.bias)
    x = torch.randn(1, 4, 1, 1).expand(1, 4, 3, 4)
    guide = torch.full((1, 4, 6, 8), 2.0)
    with_prior = measure(layer, x, guide)
    assert float(with_prior['outside']) == pytest.approx(0, abs=1e-6)
    assert float(with_prior['entropy']) < 0.01
    assert float(with_prior['x_variation']) == pytest.approx(0, abs=1e-6)
    assert float(with_prior['guide_rms']) == 2
    torch.nn.init.constant_(layer.gate.bias, math.log(3))
    torch.nn.init.zeros_(layer.gate.weight)
    assert float(measure(layer, x, guide)['gate']) == pytest.approx(0.75)
    even = SAPA(4, variant='B', kernel_size=3)
    torch.nn.init.zeros_(even.query.weight)
    scalars = measure(even, x, guide)
    assert float(scalars['entropy']) == pytest.approx(1)
    assert float(scalars['logit_std']) == pytest.approx(0, abs=1e-6)
    # Of 9 places, 6 at the ends of an axis: 7/9 of 3 rows, 10/12 of 4.
    assert float(scalars['outside']) == pytest.approx(1 - 7 / 9 * 10 / 12)


def test_mistakes_stop_before_any_work(tmp_path):
    with pytest.raises(ValueError, match='interval >= 1, got 0'):
        HOOKS.build(dict(HOOK, interval=0))
    with pytest.raises(ValueError, match='a model with SAPA layers, got one'):
        train(tmp_path / 'none', [HOOK], layer=False)
    with pytest.raises(ValueError, match='got compile=True'):
        train(tmp_path / 'compiled', [HOOK], compiled=True)
