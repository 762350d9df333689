import pytest
import torch
import torch.nn.functional as F

pytest.importorskip('mmseg')

from mmseg.models.backbones import ResNet  # noqa: E402

from mmsapa.depth import StemResNet  # noqa: E402


@pytest.mark.parametrize('depth', [18, 50])
def test_returns_the_stem_and_what_its_parent_returns(depth):
    parent, child = (
        kind(depth=depth, base_channels=8) for kind in (ResNet, StemResNet)
    )
    parent.eval(), child.eval()
    child.load_state_dict(parent.state_dict())
    image = torch.randn(1, 3, 64, 96)
    stem, *maps = child(image)
    for ours, theirs in zip(maps, parent(image), strict=True):
        assert torch.equal(ours, theirs)
    expected = F.relu(parent.bn1(parent.conv1(image)))
    assert torch.equal(stem, expected)
    assert stem.shape == (1, 64, 32, 48)


@pytest.mark.parametrize(
    ('depth', 'channels'),
    [
        (18, [64, 64, 128, 256, 512]),
        (50, [64, 256, 512, 1024, 2048]),
    ],
)
def test_maps_halve_from_one_to_the_next(depth, channels):
    with torch.device('meta'):
        maps = StemResNet(depth)(torch.empty(2, 3, 64, 96))
    for i, (x, c) in enumerate(zip(maps, channels, strict=True)):
        assert x.shape == (2, c, 32 >> i, 48 >> i)


def test_freezes_what_bts_freezes():
    with torch.device('meta'):
        model = StemResNet(50)
    frozen = {
        name: p.numel()
        for name, p in model.named_parameters()
        if not p.requires_grad
    }
    assert sum(frozen.values()) == 54_848
    assert 'conv1.weight' in frozen and 'layer3.5.bn2.bias' in frozen
    for name, p in model.named_parameters():
        assert p.requires_grad == ('.conv' in name or 'downsample' in name), (
            name
        )


def test_frozen_norms_run_on_the_statistics_of_the_batch():
    model = StemResNet(18, base_channels=8)
    running = model.bn1.running_mean.clone()
    image = torch.randn(2, 3, 64, 64) + 3
    model(image)
    assert not torch.equal(model.bn1.running_mean, running)
    normed = model.norm1(model.conv1(image))
    torch.testing.assert_close(normed.mean(), torch.tensor(0.0))


def test_trains_as_a_whole_from_scratch():
    model = StemResNet(18, freeze=False)
    assert all(p.requires_grad for p in model.parameters())


def test_torchvisions_weights_load(tmp_path):
    trained = StemResNet(18).state_dict()
    classifier = {'fc.weight': torch.rand(1000, 512)}
    path = str(tmp_path / 'resnet18.pth')
    torch.save({**trained, **classifier}, path)
    model = StemResNet(18, init_cfg=dict(type='Pretrained', checkpoint=path))
    model.init_weights()
    for name, value in model.state_dict().items():
        assert torch.equal(value, trained[name]), name
