import pytest
import torch

pytest.importorskip('mmseg')

from mmseg.models.necks import Feature2Pyramid  # noqa: E402
from mmseg.registry import MODELS  # noqa: E402

from mmsapa.engine.config import read_config  # noqa: E402
from mmsapa.seg import UPerHead  # noqa: E402

BASE = 'mmseg::vit/vit_vit-b16_mln_upernet_8xb2-80k_ade20k-512x512.py'
LAYERS = ['sapa', 'fade', 'a2u', 'indexnet', 'dysample', 'deconv']
LAYERS += ['pixel_shuffle', 'nearest', 'bilinear']
HEAD = dict(
    in_channels=[8] * 4, channels=8, num_classes=5, norm_cfg=dict(type='BN')
)


@pytest.mark.parametrize('kind', LAYERS)
def test_a_vit_takes_images_of_any_size(kind, scope, tmp_path):
    """MMSegmentation's own ViT with UPerNet, and one line more.

    Its coarsest level is half of the tokens' map, rounded down.
    """
    scope('mmseg')
    config = tmp_path / 'config.py'
    config.write_text(f'_base_ = {BASE!r}')
    cfg = read_config(config).model
    cfg.pretrained = cfg.auxiliary_head = None
    cfg.backbone.update(embed_dims=8, num_layers=4, num_heads=2)
    cfg.backbone.update(out_indices=(0, 1, 2, 3), img_size=64)
    cfg.neck.update(in_channels=[8] * 4, out_channels=8)
    cfg.decode_head.update(**HEAD, type='mmsapa.UPerHead')
    cfg.decode_head.upsample_cfg = dict(type=kind)
    model = MODELS.build(cfg).eval()
    # 512x683 gives maps of [32, 43] and [16, 21]; these are 5x7 and 2x3.
    assert model(torch.randn(1, 3, 80, 105)).shape == (1, 5, 20, 28)


@pytest.mark.parametrize('kind', LAYERS)
def test_beits_pyramid_may_be_of_odd_sizes(kind):
    neck = Feature2Pyramid(
        8, rescales=[4, 2, 1, 0.5], norm_cfg=dict(type='BN')
    )
    maps = neck.eval()([torch.randn(2, 8, 5, 7) for _ in range(4)])
    assert maps[3].shape[2:] == (2, 3)
    head = UPerHead(
        **HEAD, in_index=[0, 1, 2, 3], upsample_cfg=dict(type=kind)
    )
    assert head.eval()(maps).shape == (2, 5, 20, 28)
