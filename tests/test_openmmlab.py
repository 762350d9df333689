"""Layers need torch alone; OpenMMLab finds them by name all the same."""

import copy
import inspect
import os
import pickle
import subprocess
import sys

import pytest
import torch

pytest.importorskip('mmcv', reason='mmcv builds the registered layers')

from mmcv.cnn import build_upsample_layer  # noqa: E402
from mmengine.model import BaseModule, ModuleList  # noqa: E402

import mmsapa  # noqa: E402
from mmsapa import openmmlab, upsamplers  # noqa: E402
from mmsapa.anymodel import replace  # noqa: E402
from mmsapa.upsamplers import UpsampleSlot  # noqa: E402

from .upsamplers.helpers import assert_initialized  # noqa: E402

NAMES = dict(
    sapa='SAPA',
    fade='FADE',
    a2u='A2U',
    indexnet='IndexNet',
    dysample='DySample',
    max_unpool='MaxUnpool',
)
FIVES = dict(type='Constant', layer='Conv2d', val=0.5)
FOLDER = os.path.dirname(os.path.dirname(mmsapa.__file__))


def make(kind, **kwargs):
    """The registered layer, and the one that needs torch alone."""
    registered = build_upsample_layer(
        dict(type=kind, in_channels=8, **kwargs)
    ).eval()
    plain = getattr(upsamplers, NAMES[kind])(8).eval()
    return registered, plain


def maps(layer):
    x, guide = torch.randn(1, 8, 4, 5), torch.randn(1, 8, 8, 10)
    guided = 'guide' in inspect.signature(layer.forward).parameters
    return (x, guide) if guided else (x,)


@pytest.mark.parametrize('library', [None, 'mmseg', 'mmdet'])
@pytest.mark.parametrize('kind', NAMES)
def test_is_found_by_its_name(kind, library, scope):
    if library:
        pytest.importorskip(library)
        scope(library)
    for name in (kind, f'mmsapa.{kind}'):
        cfg = dict(type=name, in_channels=8, init_cfg=FIVES)
        layer = build_upsample_layer(cfg)
        assert isinstance(layer, getattr(upsamplers, NAMES[kind]))


@pytest.mark.parametrize('kind', NAMES)
def test_is_the_layer_that_needs_torch_alone(kind):
    registered, plain = make(kind)
    assert repr(registered) == repr(plain)
    assert [*registered.state_dict()] == [*plain.state_dict()]
    plain.load_state_dict(registered.state_dict())
    inputs = maps(plain)
    assert torch.equal(registered(*inputs), plain(*inputs))


@pytest.mark.parametrize(
    'again',
    [copy.deepcopy, lambda m: pickle.loads(pickle.dumps(m))],
    ids=['copy', 'pickle'],
)
@pytest.mark.parametrize('kind', NAMES)
def test_is_copied_and_pickled(kind, again):
    registered, plain = make(kind, init_cfg=FIVES)
    inputs, twin = maps(plain), again(registered)
    assert type(twin) is type(registered) and repr(twin) == repr(registered)
    assert torch.equal(registered(*inputs), twin(*inputs))


@pytest.mark.parametrize('kind', sorted(NAMES.keys() - {'max_unpool'}))
def test_obeys_its_init_cfg(kind):
    slot = UpsampleSlot(dict(type=kind, init_cfg=FIVES), 8)
    slot.init_weights()
    convs = [m for m in slot.modules() if isinstance(m, torch.nn.Conv2d)]
    assert convs and all(conv.weight.eq(0.5).all() for conv in convs)


@pytest.mark.parametrize('layer_type', [openmmlab.SAPA, upsamplers.SAPA])
def test_keeps_its_initialization_below_a_parent_with_init_cfg(layer_type):
    class Parent(BaseModule):
        def __init__(self):
            super().__init__(
                init_cfg=[
                    dict(type='Constant', layer=['Conv2d'], val=9, bias=9),
                    dict(type='Constant', layer=['LayerNorm'], val=9, bias=9),
                ]
            )
            self.layers = ModuleList([layer_type(256)])

    parent = Parent()
    parent.init_weights()
    assert_initialized(parent.layers[0])


# ---- what is imported, in processes of their own ----------------------------


def run(code, *paths):
    """Run code in a process that sees the package, and ``paths`` first."""
    path = [*map(str, paths), FOLDER, *filter(None, sys.path)]
    result = subprocess.run(
        [sys.executable, '-W', 'ignore', '-c', code],
        env=dict(os.environ, PYTHONPATH=os.pathsep.join(path)),
        capture_output=True,
        text=True,
        timeout=900,
    )
    assert result.returncode == 0, result.stderr


BUILD = """
from mmcv.cnn import build_upsample_layer
layer = build_upsample_layer(dict(type='sapa', in_channels=8))
assert type(layer).__name__ == 'SAPA'
"""
LAYERS = (
    'from mmsapa.upsamplers import A2U, FADE, SAPA, DySample, IndexNet\n'
    'from mmsapa.upsamplers import MaxUnpool\n'
)
WITHOUT = """
import sys
loaded = {name.partition('.')[0] for name in sys.modules}
assert not loaded & {'mmengine', 'mmcv', 'mmseg', 'mmdet'}, loaded
"""


def test_models_of_any_library_take_the_same_names():
    ours = {kind: getattr(upsamplers, name) for kind, name in NAMES.items()}
    assert {**ours, 'carafe': upsamplers.CARAFE} == replace.LAYERS


def test_operators_and_layers_import_nothing_of_openmmlab():
    """What registers them then, each in a fork of such a process."""
    lines = [
        # Where mmengine comes second, the adapter has to be named, unlike
        # below,
        'import mmsapa.openmmlab',
        # or something that is made for OpenMMLab.
        'from mmsapa.upsamplers import SlotMixin',
    ]
    run(f"""
import mmsapa.ops
{LAYERS}
{WITHOUT}
import os
for line in {lines!r}:
    child = os.fork()
    if not child:
        exec(line + {BUILD!r})
        os._exit(0)
    assert os.waitpid(child, 0)[1] == 0, line
""")


def test_custom_imports_of_the_package_register_the_layers(tmp_path):
    config = tmp_path / 'config.py'
    config.write_text("custom_imports = dict(imports=['mmsapa'])\n")
    read = 'from mmengine.config import Config; Config.fromfile'
    run(f'{read}({str(config)!r})\n{BUILD}')


def test_a_broken_mmcv_breaks_neither_operators_nor_layers(tmp_path):
    (tmp_path / 'mmcv').mkdir()
    (tmp_path / 'mmcv/__init__.py').write_text(
        "raise ImportError('_ext.so: undefined symbol')"
    )
    code = f"""
import mmengine
import mmsapa.ops
{LAYERS}
SAPA(8)
try:
    from mmsapa.upsamplers import UpsampleSlot
except ImportError as error:
    assert 'undefined symbol' in str(error)
else:
    raise AssertionError('the slot was imported')
"""
    run(code, tmp_path)


def test_a_name_that_is_taken_stays_with_its_package():
    run("""
import warnings
from mmengine.registry import MODELS
import torch

@MODELS.register_module('dysample')
class Theirs(torch.nn.Module):
    def __init__(self, in_channels):
        super().__init__()

with warnings.catch_warnings(record=True) as caught:
    warnings.simplefilter('always')
    from mmsapa.upsamplers import DySample, UpsampleSlot
(warning,) = [w for w in caught if 'dysample' in str(w.message)]
assert 'Theirs already and stays so' in str(warning.message)
slot = UpsampleSlot(dict(type='dysample'), 4)
assert type(slot.layer) is Theirs
slot = UpsampleSlot(dict(type='mmsapa.dysample'), 4)
assert isinstance(slot.layer, DySample)
""")
