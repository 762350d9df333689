"""Errors of the library, and the sentences that tools make of them."""

import signal

import pytest
from mmengine.config import Config
from torch import distributed
from torch.utils.data import DataLoader, Dataset

from mmsapa.engine import UserError
from mmsapa.engine.checkpoint import CheckpointError
from mmsapa.engine.cli import command_line, interruptible
from mmsapa.engine.config import ConfigError
from mmsapa.engine.runner import check_checkpoint, check_data, load_config


@interruptible('Stopped. To resume: again')
def main(error):
    raise error


@pytest.fixture
def ctrl_c():
    """Let it have an effect again."""
    before = signal.getsignal(signal.SIGINT)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.parametrize('kind', [UserError, ConfigError, CheckpointError])
def test_a_user_error_ends_a_tool_with_its_message(kind, monkeypatch):
    monkeypatch.delenv('RANK', raising=False)
    with pytest.raises(SystemExit) as caught:
        main(kind('expected this, got that'))
    assert caught.value.code == 'expected this, got that'


def test_only_the_first_process_prints(monkeypatch, capsys, ctrl_c):
    monkeypatch.setenv('RANK', '3')
    monkeypatch.setenv('LOCAL_RANK', '1')
    for error, code in (UserError('got that'), 1), (KeyboardInterrupt(), 130):
        with pytest.raises(SystemExit) as caught:
            main(error)
        assert caught.value.code == code
    assert capsys.readouterr().err == ''


def test_a_process_says_why_its_data_stop_it(monkeypatch, tmp_path):
    monkeypatch.setenv('LOCAL_RANK', '1')
    distributed.init_process_group(
        'gloo', f'file://{tmp_path}/store', rank=0, world_size=1
    )
    with pytest.raises(SystemExit) as caught:
        main(ConfigError('got that'))
    distributed.destroy_process_group()
    assert caught.value.code == 'Process 0: got that'


class Broken(Dataset):
    """Has nothing but an error."""

    def __len__(self):
        """Count one item."""
        return 1

    def __getitem__(self, i):
        """Refuse it."""
        raise ConfigError('a.png: expected this, got that')


def test_an_error_of_a_worker_is_one_sentence():
    with pytest.raises(SystemExit) as caught, interruptible('Stopped.'):
        list(DataLoader(Broken(), num_workers=1))
    assert caught.value.code == 'a.png: expected this, got that'


def test_ctrl_c_ends_a_tool_with_its_advice(monkeypatch, capsys, ctrl_c):
    monkeypatch.delenv('RANK', raising=False)
    with pytest.raises(SystemExit) as caught:
        main(KeyboardInterrupt())
    assert caught.value.code == 130
    assert capsys.readouterr().err == '\nStopped. To resume: again\n'


def test_a_tool_leaves_its_process_group(tmp_path):
    with interruptible('Stopped.'):
        distributed.init_process_group(
            'gloo', f'file://{tmp_path}/store', rank=0, world_size=1
        )
    assert not distributed.is_initialized()


def test_other_errors_keep_their_traceback():
    with pytest.raises(ValueError, match='a bug'):
        main(ValueError('a bug'))


def test_a_command_is_spelled_as_a_shell_takes_it():
    words = command_line('tools/train.py', 'my config.py', '--resume')
    assert words == "python tools/train.py 'my config.py' --resume"


def test_the_library_raises(tmp_path):
    with pytest.raises(ConfigError, match='There is no config file no.py'):
        load_config('no.py')
    with pytest.raises(CheckpointError, match='There is no checkpoint no.pth'):
        check_checkpoint('no.pth')
    (tmp_path / 'text.pth').write_text('text')
    with pytest.raises(CheckpointError, match='expected a checkpoint of'):
        check_checkpoint(str(tmp_path / 'text.pth'))
    dataset = dict(data_root=str(tmp_path), ann_file='no.json')
    cfg = Config(
        dict(default_scope='mmdet', test_dataloader=dict(dataset=dataset))
    )
    with pytest.raises(ConfigError, match='test_dataloader needs .*no.json'):
        check_data(cfg, 'test_dataloader')
