"""Check before a run that images and label maps belong together."""

from PIL import Image

from mmsapa.engine.config import ConfigError


def check_sizes(infos: list[dict]):
    """Check that label maps have the sizes of their images.

    Where both are paired wrongly, as numbers that start elsewhere do it, some
    sizes differ. Files that Pillow does not open are left out.

    Args:
        infos (list[dict]): Items before the pipeline, with ``img_path`` and
            ``seg_map_path``.

    Raises:
        ConfigError: If a size differs.
    """
    differing = []
    for info in infos:
        sizes = [_size(info.get(key)) for key in ('img_path', 'seg_map_path')]
        if None not in sizes and sizes[0] != sizes[1]:
            differing.append((info, sizes))
    if differing:
        info, (image, labels) = differing[0]
        raise ConfigError(
            f'{info["seg_map_path"]}: expected a label map of the size of '
            f'{info["img_path"]}, {image[0]} x {image[1]}, got {labels[0]} x '
            f'{labels[1]}, as {len(differing)} of {len(infos)} that were '
            'looked at; they do not belong together: pair them again.'
        )


def _size(path):
    try:
        with Image.open(path) as image:
            # mmcv turns photographs as their EXIF tag "orientation" says.
            turned = image.getexif().get(0x0112) in (5, 6, 7, 8)
            return image.size[::-1] if turned else image.size
    except (AttributeError, OSError, ValueError):
        return None  # none, elsewhere, or of a kind that Pillow does not know
