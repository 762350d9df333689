import os
import pickle

import numpy as np
import pytest
import torch
from mmengine.config import ConfigDict
from mmengine.config.lazy import LazyObject
from mmengine.logging import HistoryBuffer
from mmengine.runner import CheckpointLoader

from mmsapa.engine.checkpoint import (
    CheckpointError,
    find_last_checkpoint,
    read_checkpoint,
)
from mmsapa.training_checkpoints import allow_training_checkpoints

with_the_safety_on = pytest.mark.skipif(
    torch.__version__ < (2, 6),
    reason='before torch 2.6 allow_training_checkpoints does nothing',
)


@with_the_safety_on
def test_history_and_numpy_scalars_load_with_the_safety_on(tmp_path):
    allow_training_checkpoints()
    path = tmp_path / 'iter_1.pth'
    content = dict(
        loss=HistoryBuffer(np.array([1.5, 0.5]), np.array([1, 2])),
        best=np.float64(0.3),
        values=[np.float32(1), np.int64(2), np.bool_(True)],
        array=np.arange(3, dtype=np.uint8),
    )
    torch.save(content, path)
    loaded = torch.load(path, weights_only=True)
    assert loaded['loss'].data[0].tolist() == [1.5, 0.5]
    assert loaded['loss'].statistics('mean', 2) == pytest.approx(2 / 3)
    assert loaded['best'] == 0.3
    assert loaded['array'].tolist() == [0, 1, 2]


@with_the_safety_on
def test_what_a_config_says_of_the_data_loads_at_any_depth(tmp_path):
    allow_training_checkpoints()
    path = tmp_path / 'iter_1.pth'
    meta = ConfigDict(classes=('a',), more=dict(deep=[dict(x=1)], y=None))
    meta['array'] = np.array(['a', 'b'])
    torch.save(dict(meta=meta), path)
    loaded = torch.load(path, weights_only=True)['meta']
    assert isinstance(loaded, ConfigDict)
    assert loaded.more == dict(deep=[dict(x=1)], y=None)
    assert loaded.array.tolist() == ['a', 'b']


@with_the_safety_on
@pytest.mark.parametrize('home', [b'numpy.core', b'numpy._core'])
def test_checkpoints_of_numpy_1_and_2_load(tmp_path, home):
    class Pickle:  # what torch.save needs of a pickle module
        Pickler = pickle.Pickler

    allow_training_checkpoints()
    path = tmp_path / 'iter_1.pth'
    torch.save(dict(history=np.arange(4.0)), path, pickle_module=Pickle)
    # The name's length is not written down in protocol 2.
    _replace_in_zip(path, b'numpy._core', b'numpy.core')
    _replace_in_zip(path, b'numpy.core', home)
    assert torch.load(path, weights_only=True)['history'].sum() == 6


def _replace_in_zip(path, old, new):
    import zipfile

    with zipfile.ZipFile(path) as file:
        parts = {name: file.read(name) for name in file.namelist()}
    with zipfile.ZipFile(path, 'w', zipfile.ZIP_STORED) as file:
        for name, content in parts.items():
            file.writestr(name, content.replace(old, new))


def test_other_objects_are_still_refused(tmp_path):
    allow_training_checkpoints()
    path = tmp_path / 'iter_1.pth'
    for sneaky in (
        os.getcwd,
        Reach(dict),
        Reach(HistoryBuffer),
        Reach(ConfigDict),
        ConfigDict(a=dict(b=os.getcwd)),
        LazyObject('os', 'getcwd'),
    ):
        torch.save(dict(sneaky=sneaky), path)
        with pytest.raises(pickle.UnpicklingError):
            torch.load(path, weights_only=True)
        if torch.__version__ < (2, 6):
            continue  # whose torch.load reads what it is not told of
        with pytest.raises(pickle.UnpicklingError):
            CheckpointLoader.load_checkpoint(str(path))
        with pytest.raises(CheckpointError, match='expected a checkpoint'):
            read_checkpoint(str(path))


class Reach:
    """Is read back as a private attribute of a class."""

    def __init__(self, owner):
        self.owner = owner

    def __reduce__(self):
        return getattr, (self.owner, '__init__')


def write(path, age, note=None):
    torch.save(dict(x=torch.zeros(8)), path)
    os.utime(path, (10_000 - age, 10_000 - age))
    return str(path)


def test_the_noted_checkpoint_is_the_last(tmp_path):
    write(tmp_path / 'iter_9.pth', age=1)
    noted = write(tmp_path / 'iter_5.pth', age=2)
    (tmp_path / 'last_checkpoint').write_text(noted)
    assert find_last_checkpoint(str(tmp_path)) == noted


def test_torn_and_deleted_ones_are_passed_over(tmp_path):
    whole = write(tmp_path / 'iter_10.pth', age=3)
    write(tmp_path / 'iter_5.pth', age=4)
    torn = tmp_path / 'iter_15.pth'
    torn.write_bytes(open(whole, 'rb').read()[:-20])
    for other in ('best_mIoU_iter_15', 'resnet_50'):
        write(tmp_path / f'{other}.pth', age=0)
    for note in (torn, tmp_path / 'iter_0.pth', ''):
        (tmp_path / 'last_checkpoint').write_text(str(note))
        assert find_last_checkpoint(str(tmp_path)) == whole


def test_a_moved_work_dir_is_followed(tmp_path):
    noted = write(tmp_path / 'iter_5.pth', age=2)
    write(tmp_path / 'iter_6.pth', age=1)
    (tmp_path / 'last_checkpoint').write_text('/gone/iter_5.pth')
    assert find_last_checkpoint(str(tmp_path)) == noted


def test_no_checkpoint_is_none(tmp_path):
    assert find_last_checkpoint(str(tmp_path)) is None
    assert find_last_checkpoint(str(tmp_path / 'absent')) is None
