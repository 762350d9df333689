"""Puts upsample layers where a model interpolates."""

from collections.abc import Sequence

import torch.nn as nn
from torch import fx

from .. import upsamplers
from ..upsamplers.fit import fill_in, is_guided
from ..upsamplers.presets import PRESETS
from .interpolating import Interpolating, plan_of, without_plan
from .trace import MODES, Steps, check_model, find_steps, run

LAYERS = dict(
    sapa=upsamplers.SAPA,
    fade=upsamplers.FADE,
    a2u=upsamplers.A2U,
    indexnet=upsamplers.IndexNet,
    dysample=upsamplers.DySample,
    carafe=upsamplers.CARAFE,
    max_unpool=upsamplers.MaxUnpool,
)


def use_upsampler(
    model: nn.Module,
    upsampler: str | dict,
    example_input,
    steps: Sequence[str] | None = None,
    *,
    prior: str | None = 'same',
    prefix: str = 'upsamplers',
    verbose: bool = True,
) -> Steps:
    """Put upsample layers where a model interpolates a map to meet another.

    One traced run finds the interpolations and what their results are added
    to or concatenated with, the guides. Those asked for are replaced, in
    place. A replaced map is computed when it meets its guide, so it does not
    matter where the guide comes from, or whether it is computed before or
    after the interpolation::

        image = torch.randn(1, 3, 64, 64)
        steps = mmsapa.use_upsampler(model, 'sapa-b', image)
        mmsapa.remove_upsampler(model)  # is what it was

    The new parameters are ``model.upsamplers``, and the state dict holds
    everything else as before. The class of a module that interpolates is
    replaced by a subclass of it; no library is patched. Input sizes may
    change as long as the scale of each step stays; levels halved by rounding
    are fine. A module whose steps are replaced has to interpolate as often
    as in the traced run; else it raises an error. `In a model of any
    library`, in the documentation, lists what does not go.

    Args:
        model (nn.Module): Any model; not a bare nn.Sequential, ModuleList or
            ModuleDict, which would run the new layers as steps of its own.
        upsampler (str | dict): A preset such as ``'sapa-b'`` or ``'carafe'``,
            a layer such as ``'sapa'``, or a dict with a layer, or a class,
            as ``type`` and its arguments.
        example_input (Tensor | tuple | Mapping): As for :func:`find_steps`.
            The model runs twice with it.
        steps (Sequence[str], optional): Names of steps to replace. Default:
            all that meet a guide.
        prior (str, optional): The interpolation that SAPA starts as:
            ``'bilinear'``, ``'nearest'``, ``'same'`` for the one that is
            replaced, or None for the paper's layer. What ``upsampler`` says
            overrides it. Default: ``'same'``.
        prefix (str): Attribute of the model that holds the layers.
            Default: ``'upsamplers'``.
        verbose (bool): Whether to print the steps. Default: True.

    Returns:
        Steps: All steps that were found, those replaced with their layer.

    Raises:
        TypeError: If the model is of a kind that cannot be changed, or the
            layer does not take an argument.
        ValueError: If the layer, a step or a guide is not to be found, or
            the layer does not fit or does not run.
    """
    _check_model(model, prefix)
    layer_type, cfg = _layer_of(upsampler)
    found = find_steps(model, example_input)
    chosen = _chosen(found, steps, layer_type)
    layers = nn.ModuleDict()
    for step in chosen:
        owner = model.get_submodule(step.owner)
        if _is_fixed(owner):
            raise TypeError(
                f'use_upsampler: expected a module with the forward of its '
                f'class in step {step.name!r}, got {type(owner).__name__} '
                'with one that was set on it, or made by torch.fx; unwrap '
                'it, or leave this step out.'
            )
        layers[_key(step)] = _make(layer_type, cfg, step, prior, model)
        step.layer = layer_type.__name__
    try:
        _place(model, found, layers, is_guided(layer_type))
        model.add_module(prefix, layers)
        plan_of(model).prefix = prefix
        _check_run(model, example_input, chosen, layers)
    except BaseException:
        remove_upsampler(model)
        raise
    if verbose:
        print(found)
    return found


def remove_upsampler(model: nn.Module) -> nn.Module:
    """Make a model what it was before :func:`use_upsampler`.

    Args:
        model (nn.Module): The model, or a copy of it.

    Returns:
        nn.Module: The same model.
    """
    for module in list(model.modules()):
        if isinstance(module, Interpolating):
            without_plan(module)
    return model


def _check_model(model, prefix):
    check_model(model)
    lists = nn.ModuleList, nn.ModuleDict
    if type(model).forward is nn.Sequential.forward or isinstance(
        model, lists
    ):
        raise TypeError(
            'use_upsampler: expected a model with a forward of its own, got '
            f'a bare {type(model).__name__}, which would run the new layers '
            'too; make it a part of a module of yours.'
        )
    if _is_fixed(model):
        raise TypeError(
            'use_upsampler: expected a model with the forward of its class, '
            f'got {type(model).__name__} with one that was set on it, or '
            'made by torch.fx; give the model before that.'
        )
    if any(isinstance(module, Interpolating) for module in model.modules()):
        raise ValueError(
            'use_upsampler: expected a model without upsamplers, got one '
            'that has some; call remove_upsampler(model) first.'
        )
    if hasattr(model, prefix):
        raise ValueError(
            f'use_upsampler: expected a free name for the layers, got '
            f'prefix={prefix!r}, which the model has; choose another prefix.'
        )


def _layer_of(upsampler):
    cfg = upsampler
    if isinstance(upsampler, str):
        cfg = PRESETS.get(upsampler, dict(type=upsampler))
    kind = cfg.get('type') if isinstance(cfg, dict) else None
    layer_type = LAYERS.get(kind) if isinstance(kind, str) else kind
    if not isinstance(layer_type, type):
        raise ValueError(
            'use_upsampler: expected a layer '
            f'({", ".join(sorted(LAYERS))}), a preset with one, or a dict '
            f'with a type, got {upsampler!r}.'
        )
    return layer_type, cfg


def _chosen(found, names, layer_type):
    guided = is_guided(layer_type)
    if names is None:
        chosen = [step for step in found if step.replaceable]
        if not chosen:
            raise ValueError(
                'use_upsampler: expected a model that interpolates a map and '
                'adds it to, or concatenates it with, another, got '
                f'{len(found)} interpolations and none that does:\n{found}'
            )
        return chosen
    by_name = {step.name: step for step in found}
    for name in names:
        step = by_name.get(name)
        if step is None:
            raise ValueError(
                f'use_upsampler: expected steps among {", ".join(by_name)}, '
                f'got {name!r}.'
            )
        if step.reason:
            raise ValueError(
                f'use_upsampler: expected step {name!r} to upsample a map by '
                'one whole number, by nearest or bilinear interpolation, got '
                f'one that no layer fits: {step.reason}; leave it out.'
            )
        if guided and not step.meets:
            raise ValueError(
                f'use_upsampler: expected step {name!r} to meet a guide for '
                f'{layer_type.__name__}, got a map that {step.into}; leave '
                'it out, or take a layer without a guide, carafe or dysample.'
            )
    return [by_name[name] for name in names]


def _make(layer_type, cfg, step, prior, model):
    arguments = fill_in(
        layer_type,
        cfg,
        step.in_channels,
        step.guide_channels or step.in_channels,
        step.scale_factor,
    )
    if layer_type is upsamplers.SAPA:
        if prior not in (None, 'same', *MODES):
            raise ValueError(
                "use_upsampler: expected prior 'same', 'bilinear', 'nearest' "
                f'or None, got {prior!r}.'
            )
        arguments.setdefault('prior', step.mode if prior == 'same' else prior)
    try:
        layer = layer_type(**arguments)
    except ValueError as error:
        raise ValueError(f'step {step.name!r}: {error}') from error
    like = next((p for p in model.parameters() if p.is_floating_point()), None)
    if like is not None:
        layer.to(like.device, like.dtype)
    return layer.train(model.training)


def _check_run(model, example_input, chosen, layers):
    """Run the model, and raise ValueError if a layer does not run in it."""
    ran = set()
    hooks = [
        layer.register_forward_hook(lambda layer, *_: ran.add(layer))
        for layer in layers.values()
    ]
    try:
        run(model, example_input)
    finally:
        for hook in hooks:
            hook.remove()
    idle = [step.name for step in chosen if layers[_key(step)] not in ran]
    if idle:
        raise ValueError(
            f'use_upsampler: expected the map of step {idle[0]!r} to meet its '
            'guide, got a model that goes another way with what stands for '
            'it, by isinstance or torch.is_tensor, say; leave this step out.'
        )


def _key(step):
    """Give the name of a step's layer, which has no dot."""
    key = step.name.replace('-', '--').replace('.', '-')
    return f'{key}-' if hasattr(nn.ModuleDict, key) else key


def _is_fixed(module):
    """Whether a subclass would not change what a module runs."""
    return 'forward' in vars(module) or isinstance(module, fx.GraphModule)


def _place(model, found, layers, guided):
    """Tell the modules that interpolate their steps and layers."""
    for step in found:
        owner = model.get_submodule(step.owner)
        if _is_fixed(owner):
            continue
        # Also where none is replaced: a module around it must not take its
        # interpolations for own.
        plan = plan_of(owner)
        plan.name = step.owner or 'forward'
        plan.count += 1
        plan.repeated = found.calls.get(step.owner, 1) > 1
        plan.layers, plan.guided = layers, guided
        if step.layer:
            plan.steps[step.index] = step, _key(step)
