"""Checks of alpha maps and trimaps before the first iteration."""

from itertools import takewhile

from mmsapa.engine.config import ConfigError
from mmsapa.matting.data_sample import is_unknown

_LOADERS = 'LoadForeground', 'LoadBackground', 'LoadAlpha', 'LoadTrimap'


def check_mattes(split, dataset, infos):
    """Check that samples of a data set hold mattes.

    The pipeline runs as far as it loads files. What its loaders find wrong is
    raised, too.

    Args:
        split (str): 'train', 'val' or 'test'.
        dataset (BaseDataset): Without wrappers.
        infos (list[dict]): Items before the pipeline.

    Raises:
        ConfigError: A file cannot be read or has another size than its image,
            alpha is not from 0 to 1, or no trimap has an unknown pixel.
    """
    steps = getattr(dataset.pipeline, 'transforms', ())
    # By name, since other data sets do not need these transforms.
    steps = [*takewhile(lambda x: type(x).__name__.startswith('Load'), steps)]
    names = {type(step).__name__ for step in steps}
    infos = [info for info in infos if info.get('alpha_path')]
    if not infos or not names & {*_LOADERS}:
        return
    highest, unknown = 0, False
    for info in infos:
        info = dict(info)
        for step in steps:
            info = step(info)
        if 'alpha' in info:
            highest = max(highest, info['alpha'].max())
        if 'trimap' in info:
            unknown = unknown or is_unknown(info['trimap']).any()
    where = f'looked at in {split}_dataloader'
    if 'LoadAlpha' in names and highest < 0.1:
        raise ConfigError(
            f'{infos[0]["alpha_path"]} and the other alpha maps {where} hold '
            f'values up to {255 * highest:.3g} of 255, but the foreground has '
            '255; write alpha times 255.'
        )
    if 'LoadTrimap' in names and not unknown:
        raise ConfigError(
            f'{infos[0]["trimap_path"]} and the other trimaps {where} have '
            'no unknown pixel, in which alone mattes are measured; write 128 '
            'where it is not known whether a pixel is foreground (255) or '
            'background (0).'
        )
