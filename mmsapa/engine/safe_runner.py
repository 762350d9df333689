"""mmengine's runner with checks of its input and care for users' files."""

import functools
import glob
import os
import os.path as osp
import shutil
import signal
import sys

from mmengine.device import get_device
from mmengine.dist import master_only
from mmengine.fileio import get
from mmengine.logging import print_log
from mmengine.model import revert_sync_batchnorm
from mmengine.runner import BaseLoop, Runner

from mmsapa.datasets.checks import check_loop, explain_failure
from mmsapa.engine.checkpoint import (
    CheckpointError,
    put_weights,
    read_checkpoint,
    shorten,
)


class RunnerMixin:
    """Mix in to keep users' files, and to train on CPUs in many processes.

    mmengine writes the config that it runs, with all that options changed,
    to the work dir under the name of the file that was read. Here each run
    writes it into its own folder, and a training to the work dir too, unless
    a file there would be lost by it.
    """

    def build_model(self, model):
        """Build the model; on CPUs each process normalizes its own batch."""
        model = super().build_model(model)
        if self.distributed and get_device() == 'cpu':
            model = revert_sync_batchnorm(model)
        return model

    @master_only
    def dump_config(self):
        """Write the config to the folder of this run."""
        path = self._own_config()
        os.makedirs(osp.dirname(path), exist_ok=True)
        self.cfg.dump(path)

    def _own_config(self):
        name = osp.basename(self.cfg.filename or 'config.py')
        return osp.join(self.work_dir, self.timestamp, name)

    def train(self):
        """Train, after the config was written to the work dir."""
        self._dump_to_work_dir()
        return super().train()

    @master_only
    def _dump_to_work_dir(self):
        own = self._own_config()
        target = osp.join(self.work_dir, osp.basename(own))
        if _may_replace(target, self.cfg):
            shutil.copyfile(own, target)
        elif get(target) != get(own):
            message = f'{target} is left as it is; this run has {own}'
            print_log(message, logger='current')


def _may_replace(path, cfg):
    if not osp.lexists(path):
        return True
    # A text config holds the names of all files that it was read from.
    read = [cfg.filename or '', *cfg.text.splitlines()]
    if osp.islink(path) or any(
        osp.basename(name) == osp.basename(path)
        and osp.exists(name)
        and osp.samefile(name, path)
        for name in read
    ):
        return False
    runs = osp.join(glob.escape(osp.dirname(path)), '*')
    copies = [
        *glob.glob(osp.join(runs, glob.escape(osp.basename(path)))),
        *glob.glob(osp.join(runs, 'vis_data', 'config.py')),
    ]
    return any(get(copy) == get(path) for copy in copies)


class SafeRunner(RunnerMixin, Runner):
    """mmengine's runner, with checks before the first iteration.

    Raises:
        ConfigError: Data, model and evaluator do not fit.
        CheckpointError: A checkpoint cannot be read or does not fit.
    """

    _partly = False

    def train(self):
        """Train; a checkpoint to start from may be another model's."""
        self._partly = not self._resume
        return super().train()

    @staticmethod
    def build_dataloader(dataloader, *args, **kwargs):
        """Build a loader whose workers leave Ctrl-C to the main process.

        Without workers, what the config says of them is left out.
        """
        if isinstance(dataloader, dict) and not dataloader.get('num_workers'):
            of_workers = 'persistent_workers', 'prefetch_factor'
            dataloader = {
                key: value
                for key, value in dataloader.items()
                if key not in of_workers
            }
        # Here, since a loop over iterations starts them as it is made.
        loader = Runner.build_dataloader(dataloader, *args, **kwargs)
        loader.worker_init_fn = functools.partial(
            _start_worker, then=getattr(loader, 'worker_init_fn', None)
        )
        return loader

    def build_train_loop(self, loop):
        """Build the loop and check its data."""
        return self._checked('train', super().build_train_loop, loop)

    def build_val_loop(self, loop):
        """Build the loop and check its data."""
        return self._checked('val', super().build_val_loop, loop)

    def build_test_loop(self, loop):
        """Build the loop and check its data."""
        return self._checked('test', super().build_test_loop, loop)

    def _checked(self, split, build, loop):
        if isinstance(loop, BaseLoop):
            return loop
        try:
            loop = build(loop)
        except Exception:
            explain_failure(self.cfg[f'{split}_dataloader'].get('dataset'))
            raise
        metrics = getattr(getattr(loop, 'evaluator', None), 'metrics', ())
        check_loop(split, self.model, loop.dataloader.dataset, metrics)
        return loop

    def load_checkpoint(
        self,
        filename,
        map_location='cpu',
        strict=False,
        revise_keys=((r'^module\.', ''),),
    ):
        """Load a checkpoint of which all weights fit, or some in fine-tuning.

        Args:
            filename (str): File or address.
            map_location (str): As for ``torch.load``.
            strict (bool): Whether all weights must fit in any case.
            revise_keys (Sequence[tuple[str, str]]): Patterns in names of
                weights and their replacements.

        Returns:
            dict: The checkpoint.
        """
        checkpoint = read_checkpoint(filename, map_location)
        self.call_hook('after_load_checkpoint', checkpoint=checkpoint)
        put_weights(
            self.model,
            checkpoint,
            filename,
            partly=self._partly and not strict,
            revise_keys=revise_keys,
        )
        self._has_loaded = True
        self.logger.info(f'Load checkpoint from {filename}')
        return checkpoint

    def resume(self, filename, *args, **kwargs):
        """Resume from a checkpoint; arguments as in mmengine's Runner."""
        try:
            super().resume(filename, *args, **kwargs)
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            if isinstance(error, CheckpointError):
                raise
            raise CheckpointError(
                f'{filename}: expected what training writes, which it can go '
                f'on from, got {type(error).__name__}, {shorten(error)}; to '
                'start from its weights alone, name it by load_from.'
            ) from error


def _start_worker(worker_id, then=None):
    """Leave Ctrl-C to the main process, in a process of a data loader.

    A terminal sends it to the workers too. When the main process stops, the
    thread by which a worker hands over tensors may lose its connection, and
    reports that by the excepthook of its process.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    report = sys.excepthook

    def report_others(kind, error, trace):
        if not issubclass(kind, (ConnectionError, EOFError)):
            report(kind, error, trace)

    sys.excepthook = report_others
    if then is not None:
        then(worker_id)
