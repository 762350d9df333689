"""Checkpoints of A2U matting's release: their names of weights, and ours."""

from collections.abc import Iterator

from torch import Tensor


def from_a2u(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """Rename the weights of a checkpoint of A2U matting's baseline.

    The release normalizes by InPlaceABN, which scales by the size of its
    weight plus 1e-5: the weights of norms are converted.

    Args:
        weights (dict[str, Tensor]): ``state_dict`` of a checkpoint with
            max-pool and interpolation, with or without ``module.`` before
            each name.

    Returns:
        dict[str, Tensor]: By the names of a Mattor of a
        :class:`MattingResNet` and an :class:`A2UHead`.

    Raises:
        ValueError: If a name is not one of that model.
    """
    modules = dict(_modules())
    renamed = {}
    for name, value in weights.items():
        name = name.removeprefix('module.')
        if name.endswith('.weight') and value.dim() == 1:
            value = value.abs() + 1e-5
        renamed[_rename(name, modules)] = value
    return renamed


def _rename(name, modules):
    theirs, rest = name, ''
    while '.' in theirs:
        theirs, _, last = theirs.rpartition('.')
        rest = f'.{last}{rest}'
        if theirs in modules:
            return modules[theirs] + rest
    raise ValueError(
        "expected weights of A2U matting's baseline with ResNet-34, such as "
        f'layer0.0.weight, got {name}; take a checkpoint with max-pool and '
        'bilinear or nearest interpolation.'
    )


def _modules() -> Iterator[tuple[str, str]]:
    """Yield names of modules in the release, and here."""

    def projection(theirs, ours):
        for i, kind in enumerate(('conv', 'bn')):
            yield f'{theirs}.proj_{kind}', f'{ours}.downsample.{i}'

    # The encoder.
    yield 'layer0.0', 'backbone.conv1'
    yield 'layer0.1', 'backbone.bn1'
    for i in range(3):
        yield f'layer1.block{i + 1}.convs', f'backbone.layer1.{i}'
    for stage in 2, 3:
        theirs, ours = f'layer{stage}_1', f'backbone.layer{stage}'
        yield f'{theirs}.layer1', f'{ours}.0'
        yield f'{theirs}.layer2', f'{ours}.0'
        yield from projection(theirs, f'{ours}.0')
        for i in range(1, 4):
            yield f'layer{stage}_2.block{i}.convs', f'{ours}.{i}'
    # The ASPP.
    theirs, ours = 'dconv_pp', 'decode_head.aspp'
    yield f'{theirs}.aspp1.atrous_conv', f'{ours}.branches.0'
    for i in range(1, 4):
        for k in range(4):
            yield (
                f'{theirs}.aspp{i + 1}.atrous_conv.{k}',
                f'{ours}.branches.{i}.{k // 2}.{k % 2}',
            )
    for k in range(2):
        yield f'{theirs}.global_avg_pool.{k + 1}', f'{ours}.pooled.{k}'
    yield f'{theirs}.bottleneck_conv', f'{ours}.merge'
    # The decoder, whose steps are counted down to 1.
    for i in range(4):
        yield f'short{3 - i}', f'decode_head.laterals.{i}'
        for k, name in enumerate(('dconv', 'dconv1')):
            theirs = f'decoder_layer{4 - i}.{name}'
            ours = f'decode_head.fuse.{i}.{k}'
            yield f'{theirs}.dep_sep_conv', ours
            yield from projection(theirs, ours)
    yield 'pred', 'decode_head.conv_alpha'
