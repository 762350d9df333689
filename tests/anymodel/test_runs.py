"""Ways to run models of plain torch with layers in them."""

import functools
import threading

import pytest
import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

from tests.anymodel.models import (
    FPN,
    IMAGE,
    Shared,
    UNet,
    Wrapper,
    flat,
    put,
    stir,
)


def test_distributed_data_parallel_trains_the_layers(tmp_path):
    model = Shared()
    put(model)
    torch.distributed.init_process_group(
        'gloo', init_method=f'file://{tmp_path}/init', rank=0, world_size=1
    )
    try:
        replica = nn.parallel.DistributedDataParallel(model)
        for _ in range(2):
            replica(IMAGE).sum().backward()
    finally:
        torch.distributed.destroy_process_group()
    assert all(p.grad is not None for p in model.upsamplers.parameters())


@pytest.mark.parametrize('reentrant', [True, False])
def test_a_part_may_be_checkpointed(reentrant):
    model = UNet()
    put(model)
    stir(model)(IMAGE).sum().backward()
    expected = [p.grad for p in model.parameters()]
    model.zero_grad()
    for block in model.up:
        block.forward = functools.partial(
            checkpoint, block.forward, use_reentrant=reentrant
        )
    model(IMAGE).sum().backward()
    torch.testing.assert_close([p.grad for p in model.parameters()], expected)


def test_a_part_may_be_called():
    model = Wrapper()
    put(model)
    expected = stir(model)(IMAGE)
    torch.testing.assert_close(model.part(IMAGE), expected)


def test_threads_may_share_a_model():
    model = Shared()
    put(model)
    stir(model)
    images = [torch.randn(1, 3, 16, 16) for _ in range(4)]
    expected = [model(image) for image in images]
    out = [None] * 4

    def work(i):
        for _ in range(5):
            out[i] = model(images[i])

    threads = [threading.Thread(target=work, args=[i]) for i in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    torch.testing.assert_close(out, expected)


def test_autocast():
    model = UNet()
    put(model)
    stir(model)
    with torch.autocast('cpu', dtype=torch.bfloat16):
        model(IMAGE).float().sum().backward()
    assert all(p.grad.isfinite().all() for p in model.parameters())


@pytest.mark.skipif(
    torch.__version__ < (2, 8), reason='tested from torch 2.8 on'
)
def test_is_exported_and_traced():
    model = Shared().eval()
    put(model)
    larger = torch.randn(2, 3, 32, 24)
    expected = stir(model)(IMAGE), model(larger)
    traced = torch.jit.trace(model, IMAGE)
    torch.testing.assert_close(traced(IMAGE), expected[0])
    side = torch.export.Dim('side', min=2, max=16)
    sides = {2: 4 * side, 3: 4 * torch.export.Dim('other', min=2, max=16)}
    exported = torch.export.export(
        model, (IMAGE,), strict=False, dynamic_shapes=(sides,)
    ).module()
    for image, y in zip((IMAGE, larger), expected):
        torch.testing.assert_close(exported(image), y)


@pytest.mark.skipif(
    torch.__version__ < (2, 8), reason='tested from torch 2.8 on'
)
def test_is_compiled_as_a_whole():
    torch.compiler.reset()
    model = FPN()
    part = Wrapper()
    part.part = torch.compile(part.part, backend='eager')
    for each in (torch.compile(model, backend='eager'), part):
        with pytest.raises(TypeError, match='nothing is compiled'):
            put(each)
    put(model)
    expected = stir(model)(IMAGE)
    compiled = torch.compile(model, backend='eager', fullgraph=True)
    torch.testing.assert_close(compiled(IMAGE), expected)
    sum(x.sum() for x in flat(compiled(IMAGE))).backward()
    assert all(p.grad is not None for p in model.upsamplers.parameters())
