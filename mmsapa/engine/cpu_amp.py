"""Mixed precision for trainings on a CPU."""

import logging
from contextlib import contextmanager
from pathlib import Path

import torch
from mmengine.logging import print_log
from mmengine.optim import OptimWrapper

from mmsapa.registry import OPTIM_WRAPPERS

CPU = Path('/proc/cpuinfo')


@OPTIM_WRAPPERS.register_module()
class CPUAmpOptimWrapper(OptimWrapper):
    """Runs a model on a CPU under autocast to bfloat16.

    mmengine's ``AmpOptimWrapper`` is for GPUs alone. bfloat16 has float32's
    range, so the loss needs no scale, and all else, checkpoints too, is
    ``OptimWrapper``'s. A CPU without instructions for bfloat16 is warned of.

    Args:
        **kwargs: As ``OptimWrapper`` takes them.
    """

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        # As avx512_bf16, amx_bf16 and bf16 of ARM.
        if CPU.is_file() and 'bf16' not in CPU.read_text():
            print_log(
                'This CPU has no instructions for bfloat16, and is up to a '
                'hundred times slower in it than in float32: train without '
                'mixed precision.',
                'current',
                logging.WARNING,
            )

    @contextmanager
    def optim_context(self, model):
        """Enter autocast for a forward pass.

        Args:
            model (nn.Module): The model that is trained.
        """
        autocast = torch.autocast('cpu', torch.bfloat16)
        with super().optim_context(model), autocast:
            yield
