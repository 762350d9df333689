"""Words of a figure, in fonts that have their glyphs."""

import functools
from collections.abc import Sequence

# Only fonts that draw a box for everything have a glyph for what is no
# character.
_NO_CHARACTER = 0xFDD0


def drawable(text: str) -> str:
    r"""Write as an escape what no font on this machine can draw.

    Args:
        text (str): Any; a file name may hold what is no character at all.

    Returns:
        str: The text, in which ``'\u732b'`` stands for a 猫 of no font.
    """
    lost = _missing(text)
    lost -= _fallbacks(lost).keys()
    return ''.join(
        char.encode('unicode_escape').decode() if char in lost else char
        for char in text
    )


def class_names(classes: Sequence[str]) -> list[str]:
    """Names of classes that can be drawn.

    Args:
        classes (Sequence[str]): Names in any script.

    Returns:
        list[str]: The names, in which ``'class 3'`` stands for the fourth
        one if no font can draw it.
    """
    return [
        name if drawable(name) == name else f'class {i}'
        for i, name in enumerate(map(str, classes))
    ]


def choose_fonts(artist):
    """Choose fonts that have the glyphs of each text.

    Args:
        artist (matplotlib.artist.Artist): A text, or what holds some, such
            as a figure.
    """
    from matplotlib import rcParams
    from matplotlib.text import Text

    for text in artist.findobj(Text):
        fallbacks = _fallbacks(_missing(text.get_text()))
        if fallbacks:
            others = dict.fromkeys(fallbacks.values())
            text.set_fontfamily([*rcParams['font.family'], *others])


def _missing(text):
    """Characters that the default font does not have."""
    if text.isascii() and text.isprintable():
        return frozenset()
    from matplotlib.font_manager import FontProperties, findfont

    has = _has_glyph(findfont(FontProperties()))
    return frozenset(char for char in text if char != '\n' and not has(char))


@functools.lru_cache
def _fallbacks(missing):
    """Names of fonts that have what is missing, by character.

    As few fonts as do, so that a word is set in one.
    """
    from matplotlib.font_manager import fontManager

    found = {}
    if not missing:
        return found
    fonts = {}
    for font in sorted(fontManager.ttflist, key=lambda x: x.weight != 400):
        if font.style == 'normal' and font.name not in fonts:
            fonts[font.name] = set(filter(_has_glyph(font.fname), missing))
    while fonts:
        # Of those that have as many the first by name, always the same.
        name = max(sorted(fonts), key=lambda x: len(fonts[x] - found.keys()))
        new = fonts.pop(name) - found.keys()
        if not new:
            break
        found |= dict.fromkeys(new, name)
    return found


@functools.lru_cache
def _has_glyph(path):
    """Make a function that tells whether a font file has a character."""
    from matplotlib.ft2font import FT2Font

    try:
        font = FT2Font(path)
    except (OSError, RuntimeError):  # it was removed, or is damaged
        return lambda char: False
    if font.get_char_index(_NO_CHARACTER):
        return lambda char: False
    return lambda char: font.get_char_index(ord(char)) > 0
