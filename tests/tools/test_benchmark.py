"""The benchmark at sizes that take a moment; no time is asserted."""

import json
import os
import re
import sys
from pathlib import Path

import pytest
import torch

from mmsapa.ops import sapa_upsample

sys.path.append(str(Path(__file__).parents[2] / 'tools' / 'analysis_tools'))

import benchmark_upsamplers as benchmark  # noqa: E402

from mmsapa.engine import timing  # noqa: E402

TINY = '1x8x4x5x6'


@pytest.fixture
def run(tmp_path, capsys, scope, monkeypatch):
    """Run the program and return what it printed, and its JSON."""
    monkeypatch.setattr(timing, 'SHORTEST', 1e-4)

    def run_benchmark(subcommand, *arguments):
        arguments = map(str, arguments)
        benchmark.main(
            [subcommand, *arguments, '--device=cpu', f'--out={tmp_path}']
            + ['--rounds=2']
        )
        assert (tmp_path / f'{subcommand}-cpu.png').stat().st_size > 1000
        text = (tmp_path / f'{subcommand}-cpu.json').read_text()
        return capsys.readouterr().out, json.loads(text)

    yield run_benchmark
    torch.set_num_threads(1)


def by_contestant(result, passes='forward'):
    return {
        row['contestant']: row
        for row in result['rows']
        if row['passes'] == passes
    }


def test_operators(run):
    contestants = [x for x in benchmark.OPERATORS if 'compiled' not in x]
    text, result = run(
        'operator',
        '--no-memory',
        *('--shapes', TINY, '--threads', 1, 2),
        *('--contestants', *contestants),
    )
    assert {row['threads'] for row in result['rows']} == {1, 2}
    assert len(result['rows']) == 2 * 2 * len(contestants)
    for row in result['rows']:
        if row['contestant'] == 'carafe':
            assert 'cpu not found' in row['reason']
        else:
            assert len(row['seconds']) == 2
            assert row['pixels'] == 120
    for name in ('machine', 'torch', 'mmcv', 'mmsapa', 'date', 'command'):
        assert result['environment'][name]
    assert f'### {TINY}, float32, 2 threads, forward+backward' in text
    assert text.count('| shifts') == 4


@pytest.mark.slow
def test_the_compiled_form_is_timed_or_says_why_not(run):
    _, result = run(
        'operator',
        *('--no-memory', '--shapes', TINY, '--passes', 'forward'),
        *('--contestants', 'tiled-compiled'),
    )
    (row,) = result['rows']
    assert row.get('seconds') or row['reason']


def test_a_wrong_contestant_is_refused(run, monkeypatch):
    def wrong(query, key, value):
        return sapa_upsample(query, key, value) * 1.01

    monkeypatch.setitem(benchmark.OPERATORS, 'tiled', (wrong, True))
    text, result = run(
        'operator',
        *('--no-memory', '--shapes', TINY, '--contestants', 'sapa', 'tiled'),
    )
    rows = by_contestant(result)
    assert rows['sapa']['seconds']
    assert 'seconds' not in rows['tiled']
    assert 'refused: expected SAPA, got a result' in text


@pytest.mark.parametrize('dtype', benchmark.TOLERANCES)
def test_every_form_of_sapa_agrees(dtype):
    shape = benchmark.shape_of(TINY)
    for name in ('sapa', 'tiled', 'shifts', 'reference'):
        assert benchmark.fault_of(name, shape, dtype, 'cpu') is None


def test_layers(run):
    _, result = run('layer', '--no-memory', '--shapes', '1x16x4x5x6')
    rows = by_contestant(result, 'forward+backward')
    assert list(rows) == list(benchmark.LAYERS)
    assert [name for name in rows if 'reason' in rows[name]] == ['carafe']


def test_scaling(run):
    text, result = run('scaling', '--channels=4', '--max-side=8')
    assert len(result['rows']) == (1 + 4) * 4
    assert len({row['series'] for row in result['rows']}) == 2
    assert 'ns a pixel' in text


@pytest.mark.slow
@pytest.mark.parametrize('model', benchmark.MODEL_CONFIGS)
def test_models(run, model):
    text, result = run(
        'model',
        *('--models', model, '--size=64x64'),
        *('--contestants', 'sapa-g', 'nearest', 'bilinear'),
    )
    for row in result['rows']:
        assert 0 < sum(row['upsampling_seconds']) < sum(row['seconds'])
    assert 'upsampling ms' in text


@pytest.mark.skipif(
    not os.access(timing.CLEAR_REFS, os.W_OK),
    reason='the system does not tell the peak of memory',
)
def test_memory_is_what_a_pass_takes():
    """The interpolation's is nothing, the reference's its windows."""
    shape = benchmark.shape_of('1x32x4x64x64')
    for name, least, most in (('nearest', -0.3, 0.5), ('reference', 50, 300)):
        case = 'operator', name, shape, 'float32', False
        extra = timing.cpu_extra_bytes(benchmark.memory_runs, *case)
        assert least < extra / 1e6 < most


def test_a_table_is_printed_again(run, tmp_path, capsys):
    before, _ = run('scaling', '--channels=4', '--max-side=8')
    picture = tmp_path / 'scaling-cpu.png'
    picture.unlink()
    benchmark.main(['show', str(tmp_path / 'scaling-cpu.json')])
    assert before.startswith(capsys.readouterr().out)
    assert picture.is_file()


def test_the_operators_floor():
    shape = benchmark.SHAPES['segformer']
    pixels = benchmark.pixels_of(shape)
    forward = benchmark.floor_bytes(shape, 'float32', False)
    both = benchmark.floor_bytes(shape, 'float32', True)
    assert (forward / pixels, (both - forward) / pixels) == (1440, 1856)


@pytest.mark.parametrize(
    ('arguments', 'words'),
    [
        (['operator', '--shapes', '1x2x3'], 'NxCxExHxW.*got 1x2x3'),
        (['model', '--size', '512'], 'HxW.*got 512'),
    ],
)
def test_bad_arguments_are_named(arguments, words, capsys):
    with pytest.raises(SystemExit):
        benchmark.main(arguments)
    assert re.search(words, capsys.readouterr().err)
