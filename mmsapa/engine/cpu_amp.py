"""Mixed precision for trainings on a CPU."""

from contextlib import contextmanager

import torch
from mmengine.optim import OptimWrapper

from mmsapa.registry import OPTIM_WRAPPERS


@OPTIM_WRAPPERS.register_module()
class CPUAmpOptimWrapper(OptimWrapper):
    """Runs a model on a CPU under autocast to bfloat16.

    mmengine's ``AmpOptimWrapper`` is for GPUs alone. bfloat16 has float32's
    range, so the loss needs no scale, and all else, checkpoints too, is
    ``OptimWrapper``'s.

    Args:
        **kwargs: As ``OptimWrapper`` takes them.
    """

    @contextmanager
    def optim_context(self, model):
        """Enter autocast for a forward pass.

        Args:
            model (nn.Module): The model that is trained.
        """
        with super().optim_context(model), torch.autocast('cpu'):
            yield
