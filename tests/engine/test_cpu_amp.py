"""Mixed precision on a CPU."""

import torch
from mmengine.registry import OPTIM_WRAPPERS
from torch import nn

from mmsapa.upsamplers import SAPA


def test_forward_passes_are_in_bfloat16_and_the_rest_in_float32():
    torch.manual_seed(0)
    conv, sapa = nn.Conv2d(3, 8, 3, padding=1), SAPA(8, 8, variant='G')
    model = nn.ModuleList([conv, sapa])
    wrapper = OPTIM_WRAPPERS.build(
        dict(
            type='mmsapa.CPUAmpOptimWrapper',
            optimizer=torch.optim.SGD(model.parameters(), lr=0.1),
            clip_grad=dict(max_norm=1.0),
        )
    )
    before = conv.weight.clone()
    with wrapper.optim_context(model):
        guide = conv(torch.rand(1, 3, 8, 8))
        y = sapa(guide[..., ::2, ::2], guide)
    assert guide.dtype == y.dtype == torch.bfloat16
    assert conv(torch.rand(1, 3, 8, 8)).dtype == torch.float32
    wrapper.update_params(y.float().square().mean())
    assert conv.weight.dtype == torch.float32
    assert not torch.equal(conv.weight, before)
    assert wrapper.state_dict().keys() == {'state', 'param_groups'}
