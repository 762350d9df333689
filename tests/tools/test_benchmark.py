"""The benchmark at sizes that take a moment; no time is asserted."""

import json
import os
import re
import runpy
import sys

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from mmsapa.engine import candidates, timing
from mmsapa.engine.candidates import SHAPES, Shape
from mmsapa.engine.config import read_config
from mmsapa.ops import sapa_upsample
from mmsapa.visualization.timing import markdown

from ..helpers import ROOT, write_config

TINY = '1x8x4x5x6'
PATH = str(ROOT / 'tools/analysis_tools/benchmark_upsamplers.py')
main = runpy.run_path(PATH)['main']


@pytest.fixture
def run(tmp_path, capsys, scope, monkeypatch):
    """Run the program and return what it printed, and its JSON."""

    def run_benchmark(subcommand, *arguments):
        arguments = [
            *(PATH, subcommand, *arguments, '--device', 'cpu'),
            *('--out', tmp_path, '--rounds', 2, '--min-seconds', 1e-4),
        ]
        monkeypatch.setattr(sys, 'argv', [str(word) for word in arguments])
        main()
        text = (tmp_path / f'{subcommand}-cpu.json').read_text()
        return capsys.readouterr().out, json.loads(text)

    return run_benchmark


def by_candidate(result, passes='forward'):
    return {
        row['candidate']: row
        for row in result['rows']
        if row['passes'] == passes
    }


def test_operators(run):
    names = [x for x in candidates.OPERATORS if 'compiled' not in x]
    arguments = ('--no-memory', '--shapes', TINY, '--candidates', *names)
    text, result = run('operator', *arguments)
    assert len(result['rows']) == 2 * len(names)
    for row in result['rows']:
        if row['candidate'] == 'mmcv-carafe':
            assert 'cpu not found' in row['reason']
        else:
            assert len(row['seconds']) == 2
            assert row['pixels'] == 120
    for name in ('machine', 'torch', 'mmcv', 'mmsapa', 'date', 'command'):
        assert result['environment'][name]
    assert f'### {TINY}, float32, 1 thread, forward+backward' in text


def test_a_wrong_candidate_is_not_timed(run, monkeypatch):
    def wrong(query, key, value):
        return sapa_upsample(query, key, value) * 1.01

    monkeypatch.setitem(candidates.OPERATORS, 'tiled', (wrong, True))
    text, result = run(
        'operator',
        *('--no-memory', '--shapes', TINY, '--candidates', 'sapa', 'tiled'),
    )
    rows = by_candidate(result)
    assert rows['sapa']['seconds']
    assert 'seconds' not in rows['tiled']
    assert "expected SAPA's result, got one that is off by" in text


@pytest.mark.parametrize('dtype', candidates.TOLERANCES)
def test_every_form_of_sapa_agrees(dtype):
    for name in ('sapa', 'tiled', 'shifts', 'unfold', 'reference'):
        candidates.check_result(name, Shape('', 1, 8, 4, 5, 6), dtype, 'cpu')


def test_the_tiled_form_compiles_as_one_graph():
    shape = Shape('', 1, 8, 4, 5, 6)
    tiled, inputs, _ = candidates.prepare(
        *('operator', 'tiled', shape, 'float32', 'cpu')
    )
    compiled = torch.compile(tiled, fullgraph=True, backend='aot_eager')
    torch.testing.assert_close(compiled(*inputs), tiled(*inputs))


def test_too_large_a_shape_is_refused():
    shape = Shape('', 1, 256, 32, 2**14, 2**14)
    with pytest.raises(MemoryError, match='GiB of free memory.*smaller'):
        candidates.check('operator', 'sapa', shape, 'float32', 'cpu')


def test_layers(run):
    _, result = run('layer', '--no-memory', '--shapes', '1x16x4x5x6')
    rows = by_candidate(result, 'forward+backward')
    assert len(rows) == 11
    assert [name for name in rows if 'reason' in rows[name]] == ['mmcv-carafe']


def test_models(run):
    text, result = run(
        'model',
        *('--models', 'segformer', '--size', '64x64'),
        *('--candidates', 'sapa-g'),
    )
    (row,) = result['rows']
    assert 0 < sum(row['upsampling_seconds']) < sum(row['seconds'])
    assert 'upsampling ms' in text


def test_detectors_are_run_too(tmp_path):
    config = write_config(tmp_path / 'config.py', 'det', tmp_path)
    weights = {}
    whole, upsampling = candidates.model_runs(
        read_config(config), (64, 64), 'float32', 'cpu', weights
    )
    with FlopCounterMode(display=False) as counter:
        upsampling()
    part = counter.get_total_flops()
    with counter:
        whole()
    assert 0 < part < counter.get_total_flops()
    # The next one has the same weights.
    before = {name: x.clone() for name, x in weights.items()}
    again = read_config(config), (64, 64), 'float32', 'cpu', weights
    candidates.model_runs(*again)
    assert before and all(
        torch.equal(x, weights[k]) for k, x in before.items()
    )


@pytest.mark.skipif(
    not os.access(timing.CLEAR_REFS, os.W_OK),
    reason='the system does not tell the peak of memory',
)
def test_memory_is_what_a_pass_takes():
    """That of interpolation is nothing, that of unfold mostly its windows."""
    shape = Shape('', 1, 32, 4, 64, 64)
    windows = 4 * 25 * 32 * 64 * 64 / 1e6
    for name, least, most in (
        ('nearest', -0.3, 0.5),
        ('unfold', windows, 3 * windows),
    ):
        case = 'operator', name, shape, 'float32', False
        extra = timing.cpu_extra_bytes(candidates.memory_runs, *case)
        assert least < extra / 1e6 < most


def test_scaling_is_shown_again(run, tmp_path, capsys, monkeypatch):
    text, result = run('scaling', '--channels', 4, '--max-side', 8)
    assert len(result['rows']) == (1 + 4) * 4
    assert len({row['series'] for row in result['rows']}) == 2
    assert 'ns a pixel' in text
    picture = tmp_path / 'scaling-cpu.png'
    before = picture.read_bytes()
    picture.unlink()
    path = str(tmp_path / 'scaling-cpu.json')
    monkeypatch.setattr(sys, 'argv', [PATH, 'show', path])
    main()
    assert capsys.readouterr().out == text
    assert picture.read_bytes() == before


@pytest.mark.parametrize('name', ['operator', 'layer', 'scaling', 'model'])
def test_the_pages_in_docs_are_those_of_the_measurements(name):
    path = ROOT / f'docs/benchmark/{name}-cpu.json'
    text = markdown(json.loads(path.read_text()))
    assert path.with_suffix('.md').read_text() == f'{text}\n'


def test_the_operators_floor():
    shape = SHAPES['segformer']
    forward = shape.floor_bytes('float32', False)
    both = shape.floor_bytes('float32', True)
    assert forward / shape.pixels == 1440
    assert (both - forward) / shape.pixels == 1856


@pytest.mark.parametrize(
    ('arguments', 'words'),
    [
        (('operator', '--shapes', '1x2x3'), 'NxCxExHxW .*, got 1x2x3'),
        (('model', '--size', '512'), 'HxW .*, got 512'),
    ],
)
def test_bad_arguments_are_named(arguments, words, run, capsys):
    with pytest.raises(SystemExit):
        run(*arguments)
    assert re.search(words, capsys.readouterr().err)


def test_a_place_that_cannot_be_is_named_before_anything_is_timed(
    tmp_path, monkeypatch
):
    file = tmp_path / 'file'
    file.touch()
    for command in ('operator', 'model'):
        words = PATH, command, '--device', 'cpu', '--out', str(file)
        monkeypatch.setattr(sys, 'argv', [*words])
        with pytest.raises(SystemExit, match='file: expected a folder, got'):
            main()


def test_without_git_there_is_no_commit(monkeypatch):
    assert timing.environment('cpu')['commit']
    monkeypatch.setenv('PATH', '')
    assert timing.environment('cpu')['commit'] is None
