"""Words in scripts that the default font has, that another has, or none."""

import warnings

import numpy as np
import pytest
from matplotlib.font_manager import fontManager

from mmsapa.visualization import Comparison, draw_comparison, words
from mmsapa.visualization.sapa_figure import to_array
from mmsapa.visualization.words import class_names, drawable

# A watch, which DejaVu Sans lacks and STIX has.
IN_STIX = '\u231a'
# Not even what no character stands for is a character of a file name.
NOWHERE = '\U000323b0', '\udce9', '\t'


def figure_of(*words):
    """A figure with the words in every place, and what it says."""
    labels = np.indices((40, 40)).sum(0) % len(words)
    row = Comparison(
        np.zeros((40, 40, 3), np.uint8),
        {word: labels for word in words},
        name=words[0],
    )
    palette = np.random.default_rng(0).integers(0, 256, (len(words), 3))
    figure = draw_comparison([row], palette, words, difference=True)
    legends = [text for legend in figure.legends for text in legend.texts]
    return figure, [*figure.texts, *legends]


@pytest.fixture(autouse=True)
def own_fonts(monkeypatch):
    """Fonts of matplotlib alone; it warns of each that is drawn as a box."""
    own = [font for font in fontManager.ttflist if 'mpl-data' in font.fname]
    monkeypatch.setattr(fontManager, 'ttflist', own)
    words._fallbacks.cache_clear()
    with warnings.catch_warnings():
        warnings.simplefilter('error')
        yield
    words._fallbacks.cache_clear()


def test_what_another_font_has_is_drawn_by_it():
    word = f'caf\u00e9 {IN_STIX}'
    figure, texts = figure_of(word, 'plain')
    to_array(figure)
    found = [text for text in texts if IN_STIX in text.get_text()]
    assert len(found) == 5  # column, row, class, and twice the baseline
    assert all('STIXGeneral' in text.get_fontfamily() for text in found)
    (plain, *_) = (text for text in texts if text.get_text() == 'plain')
    assert 'STIXGeneral' not in plain.get_fontfamily()


@pytest.mark.parametrize('char', NOWHERE)
def test_what_no_font_has_is_written_in_ascii(char):
    figure, texts = figure_of('a', f'b{char}c')
    to_array(figure)
    said = [text.get_text() for text in texts]
    assert f'b{char}c'.encode('unicode_escape').decode() in said
    assert 'class 1' in said and 'a' in said
    assert not any(char in word for word in said)


def test_chinese_names_are_numbered_where_no_font_has_them():
    names = ['\u732b', 'dog', '\u9ce5 bird']
    assert class_names(names) == ['class 0', 'dog', 'class 2']
    assert drawable(names[2]) == r'\u9ce5 bird'
    figure, _ = figure_of(*names)
    to_array(figure)


def test_names_are_as_they_come_where_they_can_be_drawn():
    names = ['_background_', 'r\u00e9seau', '\u0434\u043e\u043c', '$x', '']
    assert class_names([*names, 3]) == [*names, '3']
    assert [drawable(name) for name in names] == names
