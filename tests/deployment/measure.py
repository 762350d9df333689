"""How near layers and models outside of Python come to PyTorch.

``python -m tests.deployment.measure`` prints the table of
docs/deployment.md, a row as soon as it is there; names of layers or models
choose rows, and ``--steps`` columns. Differences are the largest over the
largest number, times those of ONNX Runtime over PyTorch's; what fails shows
its error.
"""

import argparse
import logging
import statistics
import tempfile
import time
import warnings
from pathlib import Path

import torch

from mmsapa.deployment import export_onnx
from mmsapa.engine.export import largest_difference

from .subjects import (
    LAYERS,
    MODELS,
    REFUSED,
    make_layer,
    make_model,
    maps_for,
)

# (N, low, high): the example, then what a graph with open sizes takes too.
MAPS = [
    (2, (6, 7), (11, 13)),
    (1, (5, 9), (10, 18)),
    (2, (8, 4), (17, 8)),
    (3, (9, 3), (19, 7)),
]
IMAGES = [(2, 64, 96), (1, 96, 64), (3, 128, 160)]
# The example for open sizes: at stride 32 more than four cells a side.
LARGE = (2, 160, 192)
# What is timed, and how often: a layer's channels and maps, a model's image.
CHANNELS, TIMED_MAPS, TIMED_SIDE, ROUNDS = 64, (1, (32, 32), (64, 64)), 128, 15


def run_onnx(model, inputs, **options):
    import onnxruntime

    graph = export_onnx(model, inputs[0], **options).model_proto
    assert {opset.domain for opset in graph.opset_import} == {''}
    assert not REFUSED & {node.op_type for node in graph.graph.node}
    one = onnxruntime.SessionOptions()
    one.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(graph.SerializeToString(), one)
    names = [each.name for each in session.get_inputs()]

    def run(*args):
        feed = {n: a.numpy() for n, a in zip(names, args, strict=True)}
        return [torch.from_numpy(out) for out in session.run(None, feed)]

    return run


def fixed(model, inputs):
    return run_onnx(model, inputs[:1], dynamic_shapes={}), inputs[:1]


def dynamic(model, inputs):
    return run_onnx(model, inputs), inputs


def time_onnx(model, args):
    """ONNX Runtime's CPU time over PyTorch's."""
    with torch.no_grad():
        run = run_onnx(model, [args], dynamic_shapes={})
        seconds = {run: [], model: []}
        for _ in range(ROUNDS):
            for function, lasted in seconds.items():
                start = time.process_time()
                function(*args)
                lasted.append(time.process_time() - start)
    theirs, ours = map(statistics.median, seconds.values())
    return f'{theirs / ours:.2f}'


def exported(model, inputs):
    return _program(model, inputs[0]).module(), inputs[:1]


def traced(model, inputs):
    return torch.jit.trace(model, inputs[0], check_trace=False), inputs


def aot(model, inputs):
    with tempfile.TemporaryDirectory() as folder:
        path = torch._inductor.aoti_compile_and_package(
            _program(model, inputs[0]),
            package_path=str(Path(folder, 'model.pt2')),
        )
        return torch._inductor.aoti_load_package(path), inputs[:1]


def _program(model, args):
    return torch.export.export(model, args, strict=False)


STEPS = dict(
    onnx=fixed, dynamic=dynamic, export=exported, trace=traced, aoti=aot
)


def measure(step, model, inputs):
    """One figure of the table."""
    start = time.process_time()
    try:
        with torch.no_grad():
            run, inputs = STEPS[step](model, inputs)
            made = time.process_time() - start
            differences = []
            for args in inputs:
                results = (
                    [x] if torch.is_tensor(x) else [*x]
                    for x in (run(*args), model(*args))
                )
                differences.append(largest_difference(*results))
            # Python's max() passes over NaN.
            worst = torch.tensor(differences).max()
    except Exception as error:
        return f'{type(error).__name__}: {str(error)[:300]!r}'
    return f'{worst:.1e} ({made:.0f} s)'


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('names', nargs='*', default=[*LAYERS, *MODELS])
    steps = [*STEPS, 'time']
    parser.add_argument('--steps', nargs='*', choices=steps, default=steps)
    args = parser.parse_args()
    torch.set_num_threads(1)
    warnings.simplefilter('ignore')
    logging.disable(logging.WARNING)
    print('| |', ' | '.join(args.steps), '|')
    print('|---' * (len(args.steps) + 1) + '|')
    for name in args.names:
        if name in LAYERS:
            model, timed = make_layer(name), make_layer(name, CHANNELS)
            inputs = [maps_for(model, *sizes) for sizes in MAPS]
            example = maps_for(timed, *TIMED_MAPS, CHANNELS)
        else:
            model, channels = make_model(name), MODELS[name][2]
            timed = model
            example = (torch.randn(1, channels, TIMED_SIDE, TIMED_SIDE),)
            large, *inputs = [
                (torch.randn(n, channels, h, w),)
                for n, h, w in (LARGE, *IMAGES)
            ]
        figures = []
        for step in args.steps:
            if step == 'time':
                figures.append(time_onnx(timed, example))
                continue
            first = [large] if step == 'dynamic' and name in MODELS else []
            figures.append(measure(step, model, [*first, *inputs]))
        print(f'| {name} |', ' | '.join(figures), '|', flush=True)


if __name__ == '__main__':
    main()
