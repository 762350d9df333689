"""From what a pipeline gives to mattes."""

import numpy as np
import pytest
import torch

from mmsapa import memory
from mmsapa.matting import ImageTooLarge, MattingDataPreprocessor, Mattor

from .helpers import make_data, make_mattor

MEAN = np.array([123.675, 116.28, 103.53])
STD = np.array([58.395, 57.12, 57.375])


def prepared(image, trimap, bgr=True):
    """The fourfold input of an image by itself, in NumPy."""
    pixels = image.numpy().transpose(1, 2, 0).astype(float)
    if bgr:
        pixels = pixels[..., ::-1]
    x = np.concatenate(
        [(pixels - MEAN) / STD, trimap.numpy()[0][..., None] / 255], 2
    )
    below, right = (-side % 16 for side in x.shape[:2])
    x = np.pad(x, ((0, below), (0, right), (0, 0)), 'reflect')
    return torch.from_numpy(x.transpose(2, 0, 1)).float()


@pytest.mark.parametrize(
    'size', [(32, 48), (37, 45), (5, 50), (1, 17), (2, 3), (1, 1), (16, 9)]
)
@pytest.mark.parametrize('dtype', [torch.uint8, torch.float32])
def test_inputs_are_normalized_and_padded_by_reflection(size, dtype):
    data = make_data(size, dtype=dtype)
    trimap = data['data_samples'][0].trimap.data
    found = MattingDataPreprocessor()(data)['inputs']
    expected = prepared(data['inputs'][0], trimap)[None]
    torch.testing.assert_close(found, expected)
    assert found.dtype == torch.float32
    found = MattingDataPreprocessor(bgr_to_rgb=False)(data)['inputs']
    expected = prepared(data['inputs'][0], trimap, bgr=False)[None]
    torch.testing.assert_close(found, expected)


def test_the_trimap_goes_in_as_the_file_has_it():
    data = make_data((16, 16), unknown=127)
    x = MattingDataPreprocessor()(data)['inputs'][0, 3]
    assert set(x.unique().tolist()) == {0.0, np.float32(127 / 255), 1.0}


def test_what_does_not_fit_is_named():
    preprocess = MattingDataPreprocessor()
    data = make_data((16, 16), (16, 32))
    with pytest.raises(ValueError, match='batch of one size, got .*32'):
        preprocess(data, True)
    data['data_samples'].reverse()
    with pytest.raises(ValueError, match='of shape .1, 16, 16., .* got'):
        preprocess(data)
    del data['data_samples'][0].trimap
    with pytest.raises(ValueError, match='with a trimap, got'):
        preprocess(data)
    with pytest.raises(ValueError, match='got None'):
        preprocess(dict(inputs=data['inputs']))


@pytest.fixture
def mattor():
    return make_mattor(depth=18)


def raw(mattor, data):
    """The network's output for the only image."""
    x = mattor.data_preprocessor(data)['inputs']
    return mattor(x).detach()


@pytest.mark.parametrize('unknown', [128, 127, 1])
@pytest.mark.parametrize('size', [(32, 48), (37, 45), (5, 18)])
def test_mattes_are_cut_and_keep_what_the_trimap_knows(mattor, size, unknown):
    data = make_data(size, unknown=unknown, dtype=torch.uint8)
    trimap = data['data_samples'][0].trimap.data
    # Both ends are cut off.
    expected = raw(mattor, data)[0, :, : size[0], : size[1]].clamp(0, 1)
    with torch.no_grad():
        (sample,) = mattor.test_step(data)
    found = sample.pred_alpha.data
    assert found.shape == (1, *size) and found.dtype == torch.float32
    known = trimap != unknown
    assert torch.equal(found[known], trimap[known] / 255)
    torch.testing.assert_close(found[~known], expected[~known])
    assert sample.img_path == 'a.png'


def test_mattes_are_between_0_and_1(mattor):
    mattor.decode_head.conv_alpha[1].weight.data.fill_(100)
    data = make_data((32, 48))
    out = raw(mattor, data)
    mattor.decode_head.conv_alpha[1].weight.data /= -1
    assert out.max() > 1 and raw(mattor, data).min() < 0
    with torch.no_grad():
        (sample,) = mattor.test_step(data)
    alpha = sample.pred_alpha.data
    assert alpha.min() == 0 and alpha.max() == 1


def test_a_batch_of_different_sizes_is_predicted_one_by_one(mattor):
    sizes = (37, 45), (16, 32), (37, 45)
    data = make_data(*sizes)
    with torch.no_grad():
        alone = [
            mattor.test_step({k: v[i : i + 1] for k, v in data.items()})[
                0
            ].pred_alpha.data.clone()
            for i in range(3)
        ]
        together = mattor.test_step(data)
    assert not torch.equal(alone[0], alone[2])
    for sample, expected in zip(together, alone, strict=True):
        assert torch.equal(sample.pred_alpha.data, expected)


def test_training_crops_need_not_be_multiples_of_16(mattor):
    data = make_data((40, 36), (40, 36))
    losses = mattor(**mattor.data_preprocessor(data, True), mode='loss')
    assert all(loss.isfinite() for loss in losses.values())


def test_a_batch_without_truth_is_named(mattor):
    data = mattor.data_preprocessor(make_data((16, 16), (16, 16)), True)
    del data['data_samples'][1].gt_alpha
    with pytest.raises(ValueError, match='samples with gt_alpha, got'):
        mattor(**data, mode='loss')
    with pytest.raises(RuntimeError, match="got 'no'"):
        mattor(**data, mode='no')


# ---- large images -----------------------------------------------------------


def both_ways(data, overlap, upsample_cfg=None, size=320):
    """Mattes of a whole image, and of the same in tiles."""
    mattor = make_mattor(4, upsample_cfg, 34)
    mattor.init_weights()
    # Nothing is cut off: the network's own numbers are compared.
    x = mattor.double().data_preprocessor(data)['inputs'].double()
    with torch.no_grad():
        whole = mattor._predict(x)
        mattor.tile_size, mattor.overlap = size, overlap
        return whole, mattor._predict(x)


@pytest.mark.parametrize('kind', ['bilinear', 'sapa'])
def test_tiles_make_what_the_whole_image_makes(kind):
    data = make_data((20, 630))
    whole, tiles = both_ways(data, 208, dict(type=kind))
    assert whole.std() > 0.1
    torch.testing.assert_close(tiles, whole, rtol=1e-9, atol=1e-9)


def test_tiles_tell_when_the_overlap_is_too_small():
    """So that the default overlap is no larger than it must be."""
    whole, tiles = both_ways(make_data((20, 630)), 192)
    assert (tiles - whole).abs().max() > 1e-9


def test_tiles_go_down_and_across():
    whole, tiles = both_ways(make_data((180, 170)), 208, size=96)
    torch.testing.assert_close(tiles, whole, rtol=1e-9, atol=1e-9)


def test_tiles_are_an_option():
    mattor = make_mattor(test_cfg=dict(tile_size=64, overlap=32))
    calls = []
    mattor.backbone.register_forward_hook(
        lambda module, inputs, out: calls.append(inputs[0].shape[2:])
    )
    with torch.no_grad():
        mattor.test_step(make_data((64, 128), (60, 50)))
    # Two tiles, twice, and an image that is no larger than one.
    assert calls == [(64, 96)] * 4 + [(64, 64)]
    with pytest.raises(ValueError, match='multiples of 16, got 100 and 208'):
        make_mattor(test_cfg=dict(tile_size=100))
    with pytest.raises(TypeError, match='tiles'):
        make_mattor(test_cfg=dict(tiles=64))


def test_a_lack_of_memory_names_the_option(mattor, monkeypatch, tmp_path):
    data = make_data((32, 48))
    for name, text in dict(
        max='1000000', current='990000', stat='anon 5\ninactive_file 7\n'
    ).items():
        (tmp_path / f'memory.{name}').write_text(text)
    monkeypatch.setattr(memory, 'CGROUP', tmp_path)
    assert memory.free_bytes() == 10_007
    with pytest.raises(ImageTooLarge, match='48 x 32 pixels may need .* GiB'):
        mattor.test_step(data)
    (tmp_path / 'memory.max').write_text('max')
    assert memory.free_bytes() > 1e6
    mattor.test_step(data)


def test_a_refused_allocation_names_the_option(mattor):
    def allocate(*args):
        return torch.empty(1 << 60)

    mattor.backbone.register_forward_hook(allocate)
    with pytest.raises(ImageTooLarge, match='model.test_cfg.tile_size=1024'):
        mattor.test_step(make_data((32, 48)))


def test_other_errors_stay_as_they_are(mattor):
    mattor.decode_head.laterals[0][0].stride = 2
    with pytest.raises(RuntimeError, match='size of tensor'):
        mattor.test_step(make_data((32, 48)))


def test_parts_are_found_without_a_scope():
    assert isinstance(make_mattor(), Mattor)


def test_the_default_loss_is_found_in_any_scope(scope):
    scope('mmseg')
    model = Mattor(
        dict(type='mmsapa.MattingResNet', base_channels=8),
        dict(type='mmsapa.A2UHead', channels=8),
    )
    assert type(model.criterion).__name__ == 'MattingLoss'


def test_a_batch_norm_does_not_train_on_one_number():
    model = make_mattor().train()
    with pytest.raises(ValueError, match='two or more images .*batch_size=2'):
        model(torch.randn(1, 4, 32, 32))
    model(torch.randn(2, 4, 32, 32))
    model.eval()(torch.randn(1, 4, 32, 32))
