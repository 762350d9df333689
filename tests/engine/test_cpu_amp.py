"""Mixed precision on a CPU."""

import pytest
import torch
from mmengine.registry import OPTIM_WRAPPERS
from torch import nn

from mmsapa.engine import cpu_amp
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


@pytest.mark.parametrize(
    ('flags', 'warned'),
    [
        ('avx2 avx512f', True),
        ('avx512f amx_bf16', False),
        ('asimd bf16', False),
    ],
)
def test_a_cpu_that_is_slow_in_bfloat16_is_warned_of(
    flags, warned, tmp_path, monkeypatch
):
    path, said = tmp_path / 'cpuinfo', []
    path.write_text(f'flags : fpu {flags}')
    monkeypatch.setattr(cpu_amp, 'CPU', path)
    monkeypatch.setattr(
        cpu_amp, 'print_log', lambda *words: said.append(words)
    )
    cpu_amp.CPUAmpOptimWrapper(
        optimizer=torch.optim.SGD(nn.Linear(1, 1).parameters(), lr=0.1)
    )
    assert bool(said) == warned
