"""The race as a user runs it, on scenes of 64 pixels."""

import json
import os
import re
import signal
import sys
from pathlib import Path
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.hooks import Hook

from mmsapa.datasets.demo_data import make_dataset

from ..helpers import CONFIGS, ROOT, SMALL, finish, start, wait_for_note
from ..pure_python import write_pure_python

pytest.importorskip('mmseg')
TOOL = ROOT / 'tools/analysis_tools/race.py'
sys.path.append(str(TOOL.parent))

import race  # noqa: E402
import race_run  # noqa: E402
import race_table  # noqa: E402

# With dropout, because a run that goes on must go on with that too.
REST = """
model['backbone'].update(drop_path_rate=0.2)
model['decode_head'].update(dropout_ratio=0.2)
train_dataloader = dict(batch_size=2, dataset=dict(data_root='{root}'))
test_dataloader = dict(dataset=dict(data_root='{root}'))
train_cfg = dict(max_iters=24)
default_hooks = dict(
    logger=dict(interval=4), checkpoint=dict(interval=4))
"""


NO_LABELS = dict(_delete_=True, img_path='images/validation')


@pytest.fixture(scope='module')
def config(tmp_path_factory):
    folder = tmp_path_factory.mktemp('race')
    make_dataset(str(folder), 'ade', 8, 3, size=64, nproc=1)
    root = str(folder / 'ade/ADEChallengeData2016')
    text = (SMALL['seg'] + REST).replace('{root}', root)
    path = folder / 'config.py'
    path.write_text(f'_base_ = {str(ROOT / CONFIGS["seg"])!r}{text}')
    return str(path)


def rows_of(out):
    return json.loads((out / 'race.json').read_text())['rows']


def figures(rows):
    """All that is in rows, but time and memory."""
    return [
        {
            **row,
            'seconds': None,
            'runs': [{**run, 'peak_bytes': None} for run in row['runs']],
        }
        for row in rows
    ]


@pytest.mark.slow
def test_a_race_is_the_same_twice_and_after_a_kill(
    config, tmp_path, capsys, monkeypatch
):
    monkeypatch.setattr(race, 'ROUNDS', 3)
    arguments = ['--config', config, '--upsamplers', 'bilinear', 'sapa-g']
    once, killed = tmp_path / 'once', tmp_path / 'killed'
    race.main([*arguments, '--out', str(once), '--jobs', '2'])
    printed = capsys.readouterr().out

    process = start(
        tmp_path,
        *(sys.executable, TOOL, *arguments, '--out', killed, '--jobs', '1'),
    )
    run = killed / 'runs/bilinear/seed-0'
    wait_for_note(process, run)
    os.killpg(process.pid, signal.SIGKILL)
    finish(process)
    assert not (run / 'result.json').exists()
    assert not (killed / 'runs/sapa-g/seed-0/result.json').exists()
    race.main([*arguments, '--out', str(killed), '--jobs', '2'])
    assert re.search(r'resumed epoch: 0, iter: \d', read(run / 'run.log'))

    rows = rows_of(once)
    assert figures(rows_of(killed)) == figures(rows)
    for name in ('bilinear', 'sapa-g'):
        theirs, ours = (
            torch.load(out / f'runs/{name}/seed-0/iter_24.pth')['state_dict']
            for out in (once, killed)
        )
        assert all(torch.equal(theirs[key], ours[key]) for key in ours)
    bilinear, sapa = (row['runs'][0] for row in rows)
    assert bilinear['start'] == sapa['start']
    assert bilinear['batches'] == sapa['batches']
    assert bilinear['mIoU'] > 0 and bilinear['mBIoU'] > 0
    assert rows[1]['params'] > rows[0]['params']
    assert rows[1]['flops'] > rows[0]['flops']

    # The table, and what is printed again without any work.
    assert re.search(r'bilinear +\| +\d+\.\d\d +\| +\d+\.\d\d +\|', printed)
    assert '| bilinear' in read(once / 'race.md')
    capsys.readouterr()
    race.main(['--out', str(once), '--show'])
    shown = capsys.readouterr().out
    # mmsegmentation's fork prints when it is imported.
    assert 'sapa-g' in shown and printed.endswith(shown)
    monkeypatch.setattr(race, 'start', None)
    race.main([*arguments, '--out', str(once)])
    assert rows_of(once) == rows

    # Runs that were made otherwise are not mixed in.
    options = '--cfg-options', 'optim_wrapper.optimizer.lr=0.1'
    with pytest.raises(SystemExit, match='lr .0.001 there, 0.1 now.*--redo'):
        race.main([*arguments, '--out', str(once), *options])

    monkeypatch.undo()
    monkeypatch.setattr(race, 'ROUNDS', 3)
    race.main([*arguments[:-1], '--out', str(once), *options, '--redo'])
    ((redone,), _) = rows_of(once), capsys.readouterr()
    assert redone['upsampler'] == 'bilinear'
    assert figures([redone]) != figures(rows[:1])

    # Images, truth and predictions side by side.
    sheet = cv2.imread(str(once / 'race.png'))
    assert sheet.shape[1] > 600 and sheet.std() > 20
    stored = cv2.imread(str(next(once.rglob('predictions/*.png'))), 0)
    assert stored.shape == (64, 64) and 1 <= stored.min() <= stored.max() <= 8

    # One that cannot run spoils nothing for the others.
    if torch.cuda.is_available():
        return
    (once / 'race.png').unlink()
    arguments = [*arguments[:-1], 'carafe', '--out', str(once), *options]
    with pytest.raises(SystemExit, match='1 of 2 runs have no result'):
        race.main(arguments)
    assert rows_of(once) == [redone]
    assert 'runs/carafe/seed-0 has no result' in read(once / 'race.md')
    assert cv2.imread(str(once / 'race.png')).std() > 20


def read(path):
    return path.read_text()


class Record(Hook):
    """Weights at the start, and what was seen after it."""

    def before_train(self, runner):
        state = runner.model.state_dict()
        self.weights = {key: value.clone() for key, value in state.items()}
        self.seen, self.rng = [], []

    def before_train_iter(self, runner, batch_idx, data_batch=None):
        self.rng.append((torch.get_rng_state(), np.random.random()))
        self.seen += [
            (Path(sample.img_path).name, sample.flip, sample.flip_direction)
            for sample in data_batch['data_samples']
        ]


def recorded(config, upsampler, seed, folder):
    cfg = race.config_of_run(race.read_config(config), upsampler, seed)
    cfg.work_dir = str(folder / f'{upsampler}-{seed}')
    cfg.train_cfg.max_iters = 10
    cfg.train_dataloader.dataset.pipeline[-1].meta_keys = (
        'img_path',
        'flip',
        'flip_direction',
    )
    runner, hook = race_run.make_runner(cfg, lambda iteration: None)
    record = Record()
    runner.register_hook(record)
    runner.train()
    return record, hook.notes


@pytest.mark.slow
def test_upsamplers_of_one_seed_differ_in_nothing_else(
    config, tmp_path, scope, monkeypatch
):
    scope('mmseg')
    # Its layout takes longer than the training.
    monkeypatch.setattr(Config, 'pretty_text', 'not laid out')
    names = 'nearest', 'sapa-g', 'fade'
    records, notes = zip(
        *(recorded(config, name, 3, tmp_path) for name in names)
    )
    first = records[0]
    for record in records[1:]:
        assert record.seen == first.seen
        shared = [key for key in record.weights if 'upsamplers' not in key]
        assert shared == list(first.weights)
        for key in shared:
            assert torch.equal(record.weights[key], first.weights[key])
    # What is drawn in the first iteration, such as dropout, is the same.
    for record in records[1:]:
        assert torch.equal(record.rng[0][0], first.rng[0][0])
        assert [draw for _, draw in record.rng] == [d for _, d in first.rng]
    assert len({(note['start'], note['batches']) for note in notes}) == 1
    # The batches are not all alike, and those of another seed are others.
    assert len(set(first.seen)) > 8
    other, others_notes = recorded(config, 'nearest', 4, tmp_path)
    assert other.seen != first.seen
    for what in ('start', 'batches'):
        assert others_notes[what] != notes[0][what]


def test_runs_may_start_from_a_trained_model(config, tmp_path, scope):
    scope('mmseg')
    trained = race_run.start_of(
        race.config_of_run(race.read_config(config), 'bilinear', 7)
    )
    path = tmp_path / 'trained.pth'
    torch.save(dict(state_dict=trained), path)
    cfg = race.read_config(config, dict(load_from=str(path)))
    for upsampler, seed in (('nearest', 0), ('sapa-g', 1)):
        start = race_run.start_of(race.config_of_run(cfg, upsampler, seed))
        assert list(start) == list(trained)
        assert all(torch.equal(start[key], trained[key]) for key in start)
    # In its place lies one with other weights.
    made = race.surroundings_of(cfg)['start']
    key = next(iter(trained))
    del trained[key]
    torch.save(dict(state_dict=trained), path)
    assert race.surroundings_of(cfg)['start'] != made
    with pytest.raises(SystemExit, match=f'does not fit the raced.*{key}'):
        race.prepare(tmp_path / 'out', cfg, [('nearest', 0)], redo=False)
    with pytest.raises(SystemExit, match='There is no checkpoint no.pth'):
        race.read_config(config, dict(load_from='no.pth'))


@pytest.fixture(scope='module')
def pure(config, tmp_path_factory):
    """The config in pure Python, on wrapped data, without default hooks."""
    cfg = Config.fromfile(config)
    for name in ('train', 'test'):
        dataset = cfg[f'{name}_dataloader'].dataset.to_dict()
        cfg[f'{name}_dataloader'].dataset = dict(
            type='ConcatDataset',
            datasets=[dict(type='RepeatDataset', times=2, dataset=dataset)],
        )
    cfg.train_cfg.max_iters = 2
    cfg.pop('default_hooks')
    path = tmp_path_factory.mktemp('pure') / 'config.py'
    write_pure_python(cfg, 'mmseg', path)
    return path


def test_configs_in_pure_python_are_raced(pure, config, tmp_path, scope):
    scope('mmseg')
    starts = []
    for path in (config, pure):
        cfg = race.config_of_run(race.read_config(path), 'fade', 0)
        (slot,) = race_run.slots_of(cfg)
        assert slot['upsample_cfg'] == dict(type='fade')
        # As a run reads it.
        cfg.dump(tmp_path / 'config.py')
        cfg = Config.fromfile(tmp_path / 'config.py')
        assert len(race_run.slots_of(cfg)) == 1
        starts.append(race_run.start_of(cfg))
    text, classes = starts
    assert list(text) == list(classes)
    assert all(torch.equal(text[key], classes[key]) for key in text)


@pytest.mark.slow
def test_wrapped_data_is_raced_and_drawn(pure, tmp_path, monkeypatch):
    monkeypatch.setattr(race, 'ROUNDS', 3)
    sheets = []
    draw = race.draw_comparison
    monkeypatch.setattr(
        race,
        'draw_comparison',
        lambda *args: sheets.append(args) or draw(*args),
    )
    arguments = '--config', pure, '--upsamplers', 'sapa-g', '--out', tmp_path
    race.main([*map(str, arguments)])
    assert rows_of(tmp_path)[0]['runs'][0]['mBIoU'] > 0
    ((rows, _, classes),) = sheets
    # Each scene once, though it is tested twice.
    assert len({row.name for row in rows}) == len(rows) == 3
    assert all(row.truth is not None for row in rows)
    assert classes[-1] == 'spiral'


def test_images_that_share_a_name_are_not_drawn():
    """Their predictions lie in one file."""
    paths = ['a/x.png', 'a/y.png', 'a/x.png', 'b/y.png', 'b/z.png']
    assert race.to_draw(paths) == [0, 4]


@pytest.mark.parametrize(
    ('change', 'words'),
    [
        (dict(train_cfg=None), 'train_cfg.max_iters, got {}'),
        (dict(test_dataloader=None), 'expected a test_dataloader, got none'),
        (
            {'train_dataloader.dataset.data_prefix.seg_map_path': None},
            'train_dataloader cannot be read: TypeError, ',
        ),
        (
            {'test_dataloader.dataset.data_prefix': NO_LABELS},
            'label maps, to train and to test with',
        ),
        (
            {'test_dataloader.dataset.seg_map_suffix': '_none.png'},
            'needs all images and label maps: .*_none.png',
        ),
    ],
)
def test_what_a_race_needs_is_named(change, words, config):
    with pytest.raises(SystemExit, match=words):
        race.surroundings_of(race.read_config(config, change))


@pytest.mark.parametrize('content', ['{"rows": [', '[]', '{}'])
def test_what_is_no_result_is_named(content, tmp_path):
    (tmp_path / 'race.json').write_text(content)
    with pytest.raises(SystemExit, match='race.json is no result of a race'):
        race.main(['--show', '--out', str(tmp_path)])


def test_a_race_brings_its_own_metrics(config):
    cfg = race.read_config(config)
    cfg.test_evaluator = dict(type='mmseg.IoUMetric', iou_metrics=['mDice'])
    ours = race.config_of_run(cfg, 'nearest', 0).test_evaluator
    assert [metric['type'] for metric in ours] == [
        'mmseg.IoUMetric',
        'mmsapa.BoundaryIoU',
    ]
    assert ours[0]['iou_metrics'] == ['mIoU']


def test_the_peak_of_memory_is_that_of_any_iteration(monkeypatch):
    """On a GPU the logger resets it."""
    peaks = iter([3, 100, 7])
    monkeypatch.setattr(race_run, 'peak_bytes', peaks.__next__)
    hook = race_run.SameForAll({}, 0, lambda iteration: None)
    for iteration in range(3):
        hook.after_train_iter(SimpleNamespace(iter=iteration), iteration)
    assert hook.notes['peak_bytes'] == 100


def test_an_unfair_race_has_no_table():
    results = dict(
        nearest={0: dict(start='a', batches='b')},
        fade={0: dict(start='a', batches='c')},
    )
    with pytest.raises(SystemExit, match='seed 0 .* same batches'):
        race.compare_notes(results)


def test_the_spread_is_that_over_seeds():
    assert race_table.spread_of([30, 31, 35], 1) == '32.0 ± 2.6'
    assert race_table.spread_of([30], 2) == '30.00'


@pytest.mark.parametrize('name', ['from-scratch', 'fine-tuned'])
def test_the_readme_shows_what_was_measured(name):
    result = json.loads(read(ROOT / f'docs/race/{name}.json'))
    lines = read(ROOT / 'README.md').replace('*', '').splitlines()
    for row in result['rows']:
        runs = row['runs']
        cells = [
            *(
                race_table.spread_of([run[key] for run in runs], 2)
                for key in ('mIoU', 'mBIoU')
            ),
            f'{row["params"]:,}',
            f'{row["flops"] / 1e9:.3f}',
            f'{np.median(row["seconds"]) * 1e3:.1f}',
            f'{np.mean([run["peak_bytes"] for run in runs]) / 1e6:.0f} |',
        ]
        (line,) = (line for line in lines if line.endswith(' | '.join(cells)))
        assert line.lower().startswith(f'| {row["upsampler"]}')
    assert read(ROOT / f'docs/race/{name}.md') == (
        race_table.render(result, 'markdown') + '\n'
    )


def test_settings_are_compared_one_by_one():
    there = dict(a=[1, dict(b=2)], c=3)
    assert race.differences(there, there) == []
    assert race.differences(there, dict(a=[1, dict(b=4)])) == [
        'a.1.b (2 there, 4 now)',
        'c (3 there, None now)',
    ]


def test_a_run_that_fails_says_why(tmp_path, monkeypatch):
    """Its process ends with an error, for it finds no config."""
    folder = tmp_path / 'runs/fade/seed-0'
    folder.mkdir(parents=True)
    with race.lock(tmp_path) as keep:
        failed = race.train_all([folder], 4, race.places(1), keep)
    assert list(failed) == [folder]
    assert 'config.py' in failed[folder]


@pytest.mark.parametrize(
    ('arguments', 'words'),
    [
        (['--upsamplers', 'sapa'], "invalid choice: 'sapa'"),
        (['--jobs', '0'], 'from 1 on, got 0'),
    ],
)
def test_bad_arguments_are_named(arguments, words, capsys):
    with pytest.raises(SystemExit):
        race.main(arguments)
    assert re.search(words, capsys.readouterr().err)


def test_a_base_that_is_not_there_is_named(tmp_path):
    (tmp_path / 'config.py').write_text("_base_ = './no_base.py'")
    with pytest.raises(SystemExit, match='Cannot read .*no_base.py'):
        race.read_config(tmp_path / 'config.py')


@pytest.mark.parametrize(
    ('arguments', 'words'),
    [
        (['--config', 'no.py'], 'There is no config file no.py'),
        (['--config', ROOT / CONFIGS['det']], 'MMSegmentation with a slot'),
        (['--show', '--out', 'no'], 'no holds no finished race'),
        (['--out', TOOL], 'expected a folder, got'),
    ],
)
def test_what_is_not_there_is_named(arguments, words):
    with pytest.raises(SystemExit, match=words):
        race.main([*map(str, arguments)])
