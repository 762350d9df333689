"""One run of a race: train and test one model in a process of its own.

race.py starts it, with the run's folder, and reads from its standard output
how many iterations are done; what else it prints goes to standard error.
"""

import copy
import hashlib
import json
import os
import random
import resource
import sys
import warnings
from pathlib import Path
from types import NoneType

import numpy as np
import torch
from mmengine.config import Config
from mmengine.device import get_device
from mmengine.hooks import Hook
from mmengine.registry import MODELS
from mmengine.runner import set_random_seed

from mmsapa.engine import timing
from mmsapa.engine.checkpoint import find_last_checkpoint, load_weights
from mmsapa.engine.config import library_of
from mmsapa.engine.evaluation_options import prepare_test
from mmsapa.engine.inference import build_model
from mmsapa.engine.runner import build_runner, interruptible
from mmsapa.upsamplers import SlotMixin

# What a run's folder holds, besides mmengine's logs and checkpoints.
CONFIG, RESULT, PREDICTIONS = 'config.py', 'result.json', 'predictions'


# ---- the same for all -------------------------------------------------------


def slots_of(cfg):
    """All parts of a config's model that take our ``upsample_cfg``."""
    return [
        part
        for part in parts_of(cfg.model)
        if 'upsample_cfg' in part
        and issubclass(class_of(part, library_of(cfg)), SlotMixin)
    ]


def parts_of(node):
    """All dicts in a model's config, itself last."""
    if isinstance(node, (list, tuple)):
        return [inner for part in node for inner in parts_of(part)]
    if not isinstance(node, dict):
        return []
    return [*parts_of(list(node.values())), node]


def class_of(part, library):
    """The class of a part: pure Python configs name it by itself."""
    kind = part.get('type')
    if isinstance(kind, str):
        with MODELS.switch_scope_and_registry(library) as registry:
            kind = registry.get(kind)
    return kind if isinstance(kind, type) else NoneType


def start_of(cfg):
    """Weights that all runs of a seed start from, but for upsamplers.

    Args:
        cfg (Config): A run's; ``start_from`` may name a checkpoint.

    Returns:
        dict[str, Tensor]: State of the model with empty slots.
    """
    cfg = copy.deepcopy(cfg)
    for slot in slots_of(cfg):
        slot['upsample_cfg'] = None
    set_random_seed(cfg.randomness.seed)
    model = build_model(cfg)
    if cfg.start_from:
        load_weights(
            model,
            cfg.start_from,
            'the raced model without upsamplers',
            'Name one that was trained so, by upsample_cfg=None, nearest or '
            'bilinear.',
        )
    else:
        model.init_weights()
    return model.state_dict()


class SameForAll(Hook):
    """Gives runs of one seed the same start, and keeps count.

    Args:
        start (dict[str, Tensor]): Weights of the model without upsamplers.
        seed (int): Of what is random in training.
        tell (Callable): Takes the number of iterations that are done.
    """

    # Before anything else sees a batch.
    priority = 'VERY_HIGH'

    def __init__(self, start, seed, tell):
        self.start = start
        self.seed = seed
        self.tell = tell
        self.resumed = None
        self.rng = None
        self.notes = dict(start='', batches='', peak_bytes=0)

    def after_load_checkpoint(self, runner, checkpoint):
        """Take the notes of the run that goes on."""
        self.resumed = checkpoint['race']

    def before_train(self, runner):
        """Load the shared weights, unless the run goes on."""
        self.tell(runner.iter)
        if self.resumed:
            self.notes = self.resumed['notes']
            self.rng = self.resumed['rng']
            # mmengine's fork skips the batches that are done without loading
            # them, but workers draw random numbers where they load.
            batches = runner.train_loop.dataloader_iterator
            batches.skip_iter = lambda n: [next(batches) for _ in range(n)]
            return
        keys = runner.model.load_state_dict(self.start, strict=False)
        own = [key for key in keys.missing_keys if '.upsamplers.' not in key]
        if own or keys.unexpected_keys:
            raise RuntimeError(
                'SameForAll: expected a model that differs from the one '
                'without upsamplers by upsamplers alone, got '
                f'{own + keys.unexpected_keys} too.'
            )
        state = runner.model.state_dict()
        self.notes['start'] = digest(
            *(as_bytes(state[key]) for key in sorted(self.start))
        )

    def before_train_iter(self, runner, batch_idx, data_batch=None):
        """Hash the batch; before the first, set what is random."""
        if self.rng:
            set_rng(self.rng)
        elif batch_idx == 0:
            # Upsamplers with weights have drawn more than those without.
            set_random_seed(self.seed)
        self.rng = None
        samples = data_batch['data_samples']
        self.notes['batches'] = digest(
            self.notes['batches'].encode(),
            *map(as_bytes, data_batch['inputs']),
            *(as_bytes(sample.gt_sem_seg.data) for sample in samples),
        )

    def after_train_iter(
        self, runner, batch_idx, data_batch=None, outputs=None
    ):
        """Tell how far the run is, and look at memory."""
        # Here, because the logger forgets the peak of a GPU when it logs.
        self.notes['peak_bytes'] = max(self.notes['peak_bytes'], peak_bytes())
        self.tell(runner.iter + 1)

    def before_save_checkpoint(self, runner, checkpoint):
        """Keep what mmengine does not: notes, and what is random."""
        checkpoint['race'] = dict(notes=self.notes, rng=get_rng())


def as_bytes(tensor):
    return tensor.cpu().contiguous().numpy().tobytes()


def get_rng():
    """States of all generators, as a checkpoint may hold them."""
    kind, numbers, *rest = np.random.get_state()
    return dict(
        torch=torch.get_rng_state(),
        cuda=torch.cuda.get_rng_state_all() if get_device() == 'cuda' else [],
        numpy=(kind, numbers.tolist(), *rest),
        python=random.getstate(),
    )


def set_rng(states):
    """Put back what :func:`get_rng` got."""
    torch.set_rng_state(states['torch'].cpu())
    if states['cuda']:
        torch.cuda.set_rng_state_all([s.cpu() for s in states['cuda']])
    np.random.set_state(states['numpy'])
    random.setstate(states['python'])


def peak_bytes():
    """Largest memory of this process, or on a GPU of its tensors."""
    if get_device() == 'cuda':
        return torch.cuda.max_memory_allocated()
    try:
        # A process inherits ru_maxrss from the one that started it.
        return timing.memory('VmHWM')
    except (OSError, RuntimeError):
        return 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


# ---- the run ----------------------------------------------------------------


def make_runner(cfg, tell):
    """Build a run's runner, and its hook.

    Returns:
        tuple[Runner, SameForAll]: Both.
    """
    runner = build_runner(cfg)
    seed = cfg.randomness.seed
    hook = SameForAll(start_of(cfg), seed, tell)
    runner.register_hook(hook)
    # Upsamplers draw their own weights when training starts.
    set_random_seed(seed)
    return runner, hook


def train_and_test(folder, tell):
    """Train and test one run, from where it was left.

    Args:
        folder (Path): The run's, which holds its config.
        tell (Callable): Takes the number of iterations that are done.
    """
    cfg = Config.fromfile(folder / CONFIG)
    cfg.work_dir = str(folder)
    last = find_last_checkpoint(str(folder))
    if last:
        cfg.load_from, cfg.resume = last, True
    prepare_test(cfg, out=str(folder / PREDICTIONS))
    runner, hook = make_runner(cfg, tell)
    runner.train()
    metrics = {k: round(float(v), 4) for k, v in runner.test().items()}
    write(folder / RESULT, json.dumps(dict(**metrics, **hook.notes)))
    tidy(folder, cfg.train_cfg.max_iters)


def tidy(folder, iterations):
    """Keep no more than the trained weights, as one checkpoint."""
    final = weights_of(folder, iterations)
    for path in folder.glob('iter_*.pth'):
        if path != final:
            path.unlink()
    checkpoint = torch.load(final, map_location='cpu')
    kept = {key: checkpoint[key] for key in ('meta', 'state_dict')}
    partial = final.with_suffix('.partial')
    torch.save(kept, partial)
    partial.replace(final)


def weights_of(folder, iterations):
    return folder / f'iter_{iterations}.pth'


def write(path, text):
    """Write a file that is either whole or not there."""
    partial = path.with_name(f'{path.name}.partial')
    partial.write_text(text + '\n')
    partial.replace(path)


def digest(*parts):
    """A short hash of bytes."""
    found = hashlib.sha256()
    for part in parts:
        found.update(part)
    return found.hexdigest()[:16]


def main():
    # The libraries' asides would hide what went wrong.
    warnings.filterwarnings('ignore', module='mm(cv|engine|det|seg)')
    parent = os.fdopen(os.dup(sys.stdout.fileno()), 'w', buffering=1)
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())

    def tell(iteration):
        try:
            print(iteration, file=parent)
        except BrokenPipeError:
            # The parent was killed; who starts it again wants the folder.
            os._exit(1)

    if get_device() == 'cpu':
        torch.set_num_threads(1)
    with interruptible('Stopped.'):
        train_and_test(Path(sys.argv[1]), tell)


if __name__ == '__main__':
    main()
