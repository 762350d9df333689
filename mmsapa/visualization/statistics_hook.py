"""Statistics of SAPA layers and gradients during training."""

import math
from functools import partial
from inspect import signature

import torch
from mmengine.dist import master_only
from mmengine.hooks import Hook
from mmengine.model import is_model_wrapper

from ..ops import sapa_kernels, sapa_upsample
from ..registry import HOOKS
from .recorder import find_stages


@HOOKS.register_module()
class SAPAStatisticsHook(Hook):
    """Logs what SAPA layers compute and how fast they learn, at an interval.

    It observes iterations of training and changes nothing in model, data or
    random numbers. The scalars go to the runner's visualizer and so to all of
    its backends: ``vis_data/scalars.json`` in the work dir, TensorBoard, and
    whatever else the config names.

        custom_hooks = [dict(type='mmsapa.SAPAStatisticsHook', interval=50)]

    Of every SAPA layer, as ``sapa/NAME_OF_THE_LAYER/…``, means over the batch
    of the first process:

    - ``logit_std``: standard deviation of the logits of a window;
    - ``logit_max``: the largest difference of two logits in a window of the
      batch;
    - ``entropy``: of a kernel, over ln K^2: 1 where all weights are equal,
      0 where there is one;
    - ``outside``: share of the weights that fall outside the map, where
      values are 0;
    - ``gate``, of variant ``G``: 1 where the query comes from the guide;
    - ``query_norm``, ``key_norm``: Euclidean norms of a pixel's;
    - ``x_rms``, ``guide_rms``: root mean squares of the inputs;
    - ``x_variation``: share of the mean square of ``x`` that is variation
      over positions: 0 where ``x`` is the same everywhere;
    - ``norm_guide_rms``, ``norm_x_rms``: of the norms' weights.

    Of these layers, and as ``sapa/model/…`` of the model, as
    ``sapa/NAME/…`` of each of its children without SAPA layers' parameters:

    - ``grad_norm``: norm of the gradient, before it is clipped;
    - ``update``: norm of the optimizer's step over norm of the parameters.

    With accumulated or scaled gradients, or several processes, ``grad_norm``
    is that of the first process's last backward pass as it is, and ``update``
    is 0 where there was no step.

    Args:
        interval (int): Iterations from one measurement to the next.
            Default: 50.

    Raises:
        ValueError: If the interval is not positive; when running starts, if
            the model has no SAPA layers, or is compiled.
    """

    # Before a checkpoint is saved, and after the step of the optimizer.
    priority = 'LOW'

    def __init__(self, interval: int = 50):
        if interval < 1:
            raise ValueError(
                f'SAPAStatisticsHook: expected interval >= 1, got {interval}.'
            )
        self.interval = interval
        self._handles = []

    def before_train(self, runner):
        """Find the layers, so that a mistake is raised before training."""
        if runner.cfg.get('compile'):
            raise ValueError(
                'SAPAStatisticsHook: expected a model that is run as it is, '
                'got compile=True in the config, which lets nobody watch; '
                'remove one of them.'
            )
        model = runner.model
        model = model.module if is_model_wrapper(model) else model
        self._layers = find_stages(model)
        self._groups = _groups(model, self._layers)

    @master_only
    def before_train_iter(self, runner, batch_idx, data_batch=None):
        """Watch the iteration, if it is due."""
        if (runner.iter + 1) % self.interval:
            return
        self._scalars, self._squares = {}, {}
        for name, layer in self._layers.items():
            watch = partial(self._measure, name)
            self._handles.append(
                layer.register_forward_hook(watch, with_kwargs=True)
            )
        self._before = {}
        for name, parameters in self._groups.items():
            self._before[name] = [p.detach().clone() for p in parameters]
            for parameter in parameters:
                self._handles.append(
                    parameter.register_hook(partial(self._add_square, name))
                )

    @master_only
    def after_train_iter(
        self, runner, batch_idx, data_batch=None, outputs=None
    ):
        """Write what was measured."""
        if not self._handles:
            return
        for handle in self._handles:
            handle.remove()
        self._handles = []
        gradients = {
            name: float(self._squares.get(name, 0)) for name in self._groups
        }
        steps, sizes = {}, {}
        for name, parameters in self._groups.items():
            before = self._before[name]
            steps[name] = sum(
                float((p.detach() - old).square().sum())
                for p, old in zip(parameters, before)
            )
            sizes[name] = sum(float(old.square().sum()) for old in before)
        for squares in (gradients, steps, sizes):
            squares['model'] = sum(squares.values())
        for name, square in gradients.items():
            start = f'sapa/{name}'
            self._scalars[f'{start}/grad_norm'] = math.sqrt(square)
            if sizes[name]:
                ratio = math.sqrt(steps[name] / sizes[name])
                self._scalars[f'{start}/update'] = ratio
        runner.visualizer.add_scalars(self._scalars, step=runner.iter + 1)
        self._before = None

    def _add_square(self, name, gradient):
        square = gradient.detach().double().square().sum()
        self._squares[name] = self._squares.get(name, 0) + square

    @torch.no_grad()
    def _measure(self, name, layer, args, kwargs, out):
        x, guide = signature(layer.forward).bind(*args, **kwargs).args
        with torch.autocast(x.device.type, enabled=False):
            scalars = measure(layer, x.detach(), guide.detach())
        for key, value in scalars.items():
            self._scalars[f'sapa/{name}/{key}'] = float(value)


@torch.no_grad()
def measure(layer, x, guide):
    """Measure a SAPA layer.

    Args:
        layer (SAPA): Any.
        x (Tensor[N, C, H, W]): As in the layer's ``forward``.
        guide (Tensor[N, Cg, Hq, Wq]): Likewise.

    Returns:
        dict[str, Tensor]: Scalars by name, as :class:`SAPAStatisticsHook`
        lists them.
    """
    dtype = layer.norm_x.weight.dtype
    x, guide = layer._fit(x, guide).to(dtype), guide.to(dtype)
    query, key = layer._embed(x, guide)
    # Far from 0 still has a logarithm in float64, whose differences are
    # those of the logits.
    kernels = sapa_kernels(
        query.double(),
        key.double(),
        layer.kernel_size,
        layer.scale_factor,
        layer.prior_logits,
    )
    inside = kernels > 0  # a prior masks the others
    logs = kernels.log().where(inside, torch.zeros(()).to(kernels))
    count = inside.sum(1)
    centered = (logs - (logs.sum(1) / count)[:, None]).where(inside, 0 * logs)
    std = (centered.square().sum(1) / count).sqrt()
    scalars = dict(
        logit_std=std.mean(),
        logit_max=(centered.amax(1) - centered.amin(1)).max(),
        entropy=torch.special.entr(kernels).sum(1).mean()
        / (math.log(layer.kernel_size**2) or 1),
        query_norm=query.norm(dim=1).mean(),
        key_norm=key.norm(dim=1).mean(),
        x_rms=x.square().mean().sqrt(),
        guide_rms=guide.square().mean().sqrt(),
        norm_guide_rms=layer.norm_guide.weight.square().mean().sqrt(),
        norm_x_rms=layer.norm_x.weight.square().mean().sqrt(),
    )
    variance = x.var((2, 3), correction=0).mean()
    scalars['x_variation'] = variance / x.square().mean()
    ones = torch.ones_like(x[:, :1], dtype=torch.float64)
    covered = sapa_upsample(
        query.double(),
        key.double(),
        ones,
        layer.kernel_size,
        layer.scale_factor,
        layer.prior_logits,
    )
    scalars['outside'] = 1 - covered.mean()
    if layer.variant == 'G':
        scalars['gate'] = layer.gate(layer.norm_x(x)).sigmoid().mean()
    return scalars


def _groups(model, layers):
    """Parameters that are trained: of each layer, and of each child's rest."""
    groups, seen = {}, set()

    def add(name, module):
        parameters = [
            p
            for p in module.parameters()
            if p.requires_grad and id(p) not in seen
        ]
        if parameters:
            groups[name] = parameters
            seen.update(map(id, parameters))

    for name, layer in layers.items():
        add(name, layer)
    for name, child in model.named_children():
        add(name, child)
    return groups
