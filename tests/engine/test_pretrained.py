"""The addresses that configs name lead to weights, or to a sentence."""

import functools
import socket
import sys
import threading
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import torch
from mmengine.config import Config
from mmengine.fileio import dump
from mmengine.registry import MODELS
from mmengine.runner import CheckpointLoader

from mmsapa.engine import pretrained
from mmsapa.engine.pretrained import (
    PretrainedError,
    find_weights,
    register_loaders,
)

register_loaders()

ROOT = Path(__file__).parents[2] / 'configs'
TORCHVISION = 'https://download.pytorch.org/models/'
OPENMMLAB = 'https://download.openmmlab.com/', 'https://mmassets.onedl.ai/'
# The backbone's first convolution, as models have it.
CONFIGS = {
    'faster_rcnn/faster-rcnn_r50_fpn-sapa-g_1x_coco.py': 'conv1',
    'mask_rcnn/mask-rcnn_r50_fpn-sapa-g_1x_coco.py': 'conv1',
    'upernet/upernet_r50_sapa-g_4xb4-160k_ade20k-512x512.py': 'stem.0',
    'segformer/segformer_mit-b1_sapa-g_1xb16-160k_ade20k-512x512.py': (
        'layers.0.0.projection'
    ),
    'maskformer/maskformer_swin-b-in22k-384x384-pre_sapa-g_8xb2-160k_ade20k-'
    '640x640.py': 'patch_embed.projection',
    'mask2former/mask2former_swin-b-in22k-384x384-pre_sapa-g_8xb2-160k_'
    'ade20k-640x640.py': 'patch_embed.projection',
}


def address_of(cfg):
    """Where the config's backbone has its weights from."""
    init_cfg = cfg.model.backbone.get('init_cfg') or {}
    return init_cfg.get('checkpoint') or cfg.model.get('pretrained')


@pytest.fixture
def hub(tmp_path, monkeypatch):
    """Torch's folder for weights, empty."""
    monkeypatch.setenv('TORCH_HOME', str(tmp_path / 'torch'))
    monkeypatch.setenv('MMENGINE_HOME', str(tmp_path / 'mmengine'))
    (tmp_path / 'mmengine').mkdir()
    folder = tmp_path / 'torch/hub/checkpoints'
    folder.mkdir(parents=True)
    return folder


@pytest.fixture
def served(tmp_path):
    """A folder, and the address that a server has it at."""

    class Quiet(SimpleHTTPRequestHandler):
        def log_message(self, *args):
            pass

    folder = tmp_path / 'served'
    folder.mkdir()
    handler = functools.partial(Quiet, directory=folder)
    with ThreadingHTTPServer(('127.0.0.1', 0), handler) as server:
        threading.Thread(target=server.serve_forever, args=[0.01]).start()
        yield folder, f'http://127.0.0.1:{server.server_port}'
        server.shutdown()


@pytest.fixture
def nowhere():
    """An address where nobody answers."""
    with socket.socket() as listener:
        listener.bind(('127.0.0.1', 0))  # and does not listen
        yield f'http://127.0.0.1:{listener.getsockname()[1]}'


@pytest.fixture
def move(hub, tmp_path, monkeypatch):
    """Let names lead to another host."""

    def move_to(host):
        torchvision = {
            name: f'{host}/{Path(url).name}'
            for name, url in pretrained.torchvision_models().items()
            if url
        }
        monkeypatch.setattr(
            pretrained, 'torchvision_models', lambda: torchvision
        )
        # mmengine's own way to say where its names lead.
        url = find_weights('open-mmlab://resnet50_v1c')
        dump(
            dict(resnet50_v1c=f'{host}/{Path(url).name}'),
            tmp_path / 'mmengine/open_mmlab.json',
        )

    return move_to


def load(config, scope):
    """The config with a backbone of the same kind, and little else."""
    cfg = Config.fromfile(ROOT / config)
    pytest.importorskip(cfg.default_scope)
    scope(cfg.default_scope)
    model = cfg.model
    if model.backbone.type == 'SwinTransformer':
        model.backbone.depths = [1, 1, 1, 1]
    if 'roi_head' in model:
        model.roi_head.bbox_head.fc_out_channels = 8
    decoder = model.get('decode_head', {}).get('transformer_decoder')
    if decoder:
        decoder.num_layers = 1
    return cfg


def random_weights(model):
    """What a file of weights of the model's backbone holds, other numbers."""
    weights = model.backbone.state_dict()
    return {
        key: torch.randn_like(x) if x.is_floating_point() else x.clone()
        for key, x in weights.items()
    }


def assert_loaded(model, config, weights):
    convolution = model.backbone.get_submodule(CONFIGS[config])
    expected = weights[f'{CONFIGS[config]}.weight']
    assert torch.equal(convolution.weight, expected)
    # And all else that the file holds.
    for key, x in model.backbone.state_dict().items():
        assert torch.equal(x, weights[key]), key


@pytest.mark.parametrize('config', CONFIGS)
def test_a_shipped_config_starts_from_a_file_in_torch_home(config, scope, hub):
    """Which is what a machine without a network is told to do."""
    cfg = load(config, scope)
    model = MODELS.build(cfg.model)
    weights = random_weights(model)
    torch.save(weights, hub / Path(find_weights(address_of(cfg))).name)
    model.init_weights()
    assert_loaded(model, config, weights)


@pytest.mark.parametrize('config', CONFIGS)
def test_a_shipped_config_starts_from_a_download(
    config, scope, served, move, hub, capfd
):
    cfg = load(config, scope)
    folder, host = served
    move(host)
    if address_of(cfg).startswith('https://'):
        # No name that leads elsewhere.
        name = Path(address_of(cfg)).name
        cfg.model.backbone.init_cfg.checkpoint = f'{host}/{name}'
    model = MODELS.build(cfg.model)
    weights = random_weights(model)
    name = Path(find_weights(address_of(cfg))).name
    torch.save(weights, folder / name)
    model.init_weights()
    assert_loaded(model, config, weights)
    assert (hub / name).stat().st_size == (folder / name).stat().st_size
    if address_of(cfg).startswith('torchvision://'):
        assert '100%' in capfd.readouterr().err


def test_every_shipped_config_names_weights_that_exist():
    found = set()
    for path in ROOT.glob('*/*sapa-g*.py'):  # the others inherit them
        address = address_of(Config.fromfile(path))
        if path.parent.name == 'demo':
            assert address is None  # trained from scratch
        else:
            found.add(find_weights(address))
    assert all(url.startswith((TORCHVISION, *OPENMMLAB)) for url in found)
    assert len({Path(url).name for url in found}) == 8


@pytest.mark.parametrize(
    'file',
    [
        'resnet18-f37072fd.pth',
        'resnet34-b627a593.pth',
        'resnet50-0676ba61.pth',
        'resnet101-63fe2227.pth',
        'resnet152-394f9c45.pth',
        'vgg16-397923af.pth',
        'vgg16_bn-6c64b313.pth',
        'mobilenet_v2-b0353104.pth',
    ],
)
def test_names_of_torchvision_need_no_torchvision(file, hub, monkeypatch):
    monkeypatch.setitem(sys.modules, 'torchvision', None)
    weights = dict(weight=torch.randn(3))
    torch.save(weights, hub / file)
    name = file.partition('-')[0]
    for scheme in ('torchvision', 'modelzoo'):
        address = f'{scheme}://{name}'
        assert find_weights(address) == TORCHVISION + file
        loaded = CheckpointLoader.load_checkpoint(address, 'cpu')
        assert torch.equal(loaded['weight'], weights['weight'])


@pytest.mark.parametrize('line', ['raise RuntimeError("nms")', 'import gone'])
def test_a_broken_torchvision_does_no_harm(line, tmp_path, monkeypatch):
    """Such as one that was built for another torch."""
    monkeypatch.delitem(sys.modules, 'torchvision', raising=False)
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / 'torchvision.py').write_text(line)
    url = f'{TORCHVISION}resnet50-0676ba61.pth'
    assert find_weights('torchvision://resnet50') == url


def test_a_torchvision_that_is_there_says_where_its_weights_are(
    tmp_path, monkeypatch
):
    for name in ('torchvision', 'torchvision.models'):
        monkeypatch.delitem(sys.modules, name, raising=False)
    monkeypatch.syspath_prepend(tmp_path)
    models = tmp_path / 'torchvision/models'
    models.mkdir(parents=True)
    (tmp_path / 'torchvision/__init__.py').write_text(
        "__version__ = '0.12.0'\nfrom . import models\n"
    )
    (models / '__init__.py').touch()
    (models / 'new.py').write_text("model_urls = dict(new='https://a/b')")
    assert find_weights('torchvision://new') == 'https://a/b'
    for name in [x for x in sys.modules if x.startswith('torchvision')]:
        del sys.modules[name]


@pytest.mark.parametrize(
    ('address', 'file'),
    [
        ('torchvision://resnet50', 'resnet50-0676ba61.pth'),
        ('open-mmlab://resnet50_v1c', 'resnet50_v1c-2cccc1ad.pth'),
        ('{}/deep/swin.pth?x=1', 'swin.pth'),
    ],
)
def test_without_a_network_a_sentence_says_what_to_fetch(
    address, file, nowhere, move, hub
):
    move(nowhere)
    address = address.format(nowhere)
    with pytest.raises(PretrainedError) as caught:
        CheckpointLoader.load_checkpoint(address)
    words = str(caught.value)
    assert words.startswith(f'{address} needs {file}, and {nowhere}/')
    assert 'Connection refused' in words
    assert words.endswith(f'put it into {hub}/.') and '\n' not in words
    # As it says.
    torch.save(dict(x=torch.ones(1)), hub / file)
    assert CheckpointLoader.load_checkpoint(address)['x'] == 1


def test_a_file_that_the_server_lacks_is_named(served, hub):
    url = f'{served[1]}/gone.pth'
    with pytest.raises(
        PretrainedError, match=f'{url} cannot be fetched .*404'
    ):
        CheckpointLoader.load_checkpoint(url)


@pytest.mark.parametrize('torn', ['', '<html>', None])
def test_a_file_that_is_torn_is_named(torn, hub, nowhere):
    url = f'{nowhere}/resnet50.pth'
    path = hub / 'resnet50.pth'
    if torn is None:
        torch.save(dict(x=torch.randn(999)), path)
        path.write_bytes(path.read_bytes()[:1000])
    else:
        path.write_text(torn)
    with pytest.raises(PretrainedError) as caught:
        CheckpointLoader.load_checkpoint(url)
    assert str(caught.value).startswith(f'{path} cannot be read (')
    assert str(caught.value).endswith(
        f'delete it, and {url} is fetched again.'
    )


@pytest.mark.parametrize(
    ('address', 'instead'),
    [
        ('torchvision://resnet5O', 'resnet50'),
        ('open-mmlab://resnet50_v1C', 'resnet50_v1c'),
        ('mmcls://mobilenetv2', 'mobilenet_v2'),
        ('torchvision://unheard-of', 'alexnet'),
        ('torchvision://shufflenetv2_x1.5', 'shufflenetv2_x1.0'),
    ],
)
def test_a_name_that_nothing_has_is_answered(address, instead):
    with pytest.raises(PretrainedError) as caught:
        CheckpointLoader.load_checkpoint(address)
    assert str(caught.value).startswith(f'{address}: expected ')
    assert instead in str(caught.value)


def test_old_names_of_open_mmlab_are_known():
    assert find_weights('open-mmlab://resnet50_caffe') == find_weights(
        'open-mmlab://detectron/resnet50_caffe'
    )


def test_a_file_in_place_of_an_address_is_taken(hub, tmp_path):
    """By which mmengine lets a site keep its weights in its home."""
    home = tmp_path / 'mmengine'
    dump(dict(mine='mine.pth'), home / 'open_mmlab.json')
    with pytest.raises(FileNotFoundError, match='mine.pth can not be found'):
        CheckpointLoader.load_checkpoint('open-mmlab://mine')
    torch.save(dict(x=torch.ones(1)), home / 'mine.pth')
    assert CheckpointLoader.load_checkpoint('open-mmlab://mine')['x'] == 1


def test_loaders_of_other_packages_stay(monkeypatch):
    """A company's mirror, say."""
    schemes = dict(CheckpointLoader._schemes)
    monkeypatch.setattr(CheckpointLoader, '_schemes', schemes)

    def load_from_mirror(address, map_location=None):
        return address

    CheckpointLoader.register_scheme('https://', load_from_mirror, force=True)
    pretrained.register_loaders()
    assert CheckpointLoader.load_checkpoint('https://a/b') == 'https://a/b'
