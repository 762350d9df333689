import math

import numpy as np
import pytest
import torch

from mmsapa.visualization.features import (
    direction_colors,
    entropy,
    mean_offset,
    pca_colors,
    quantile,
    sharpest,
)


def test_one_basis_and_range_for_a_family():
    x = torch.randn(6, 8, 9)
    half = x[:, :4]
    (colors, part), (other,) = pca_colors([x, half], [torch.randn(6, 3, 3)])
    assert colors.shape == (8, 9, 3) and other.shape == (3, 3, 3)
    np.testing.assert_array_equal(part, colors[:4])
    assert colors.min() == 0 and colors.max() == 1


def test_components_are_the_directions_of_largest_variance():
    direction = torch.nn.functional.normalize(torch.rand(5), dim=0)
    strength = torch.linspace(-1, 1, 48).view(6, 8)
    x = direction[:, None, None] * strength + 1e-3 * torch.randn(5, 6, 8) + 7
    ((colors,),) = pca_colors([x])
    first = torch.from_numpy(colors[..., 0]).flatten()
    clipped = (strength.flatten() / 0.96 / 2 + 0.5).clamp(0, 1)
    assert torch.allclose(first, clipped, atol=0.02)


@pytest.mark.parametrize('channels', [1, 2])
def test_few_channels_have_colors_too(channels):
    ((colors,),) = pca_colors([torch.randn(channels, 4, 5)])
    assert colors.shape == (4, 5, 3)


def test_a_constant_map_has_a_color():
    ((colors,),) = pca_colors([torch.ones(4, 3, 3)])
    assert np.isfinite(colors).all()


def test_what_overflowed_spoils_no_other_color():
    x = torch.randn(4, 6, 7)
    x[1, 2, 3], x[0, 0, 0] = torch.nan, torch.inf
    ((colors,),) = pca_colors([x])
    assert np.isfinite(colors).all() and np.ptp(colors) == 1


def test_quantiles_of_more_values_than_pytorch_takes():
    values = torch.arange(2.0**24 + 9)
    with pytest.raises(RuntimeError, match='too large'):
        values.quantile(0.5, -1)
    assert float(quantile(values, 0.5)) == pytest.approx(2**23, 1e-5)


def kernels(*weights):
    """Kernels of 3x3, one a pixel, in a row."""
    out = torch.zeros(9, 1, len(weights))
    for i, weight in enumerate(weights):
        for place, value in weight.items():
            out[place, 0, i] = value
    return out


def test_entropy():
    even = {place: 1 / 9 for place in range(9)}
    out = entropy(kernels({4: 1}, even, {0: 0.5, 8: 0.5}))
    expected = [0, 1, math.log(2) / math.log(9)]
    assert out[0].tolist() == pytest.approx(expected, abs=1e-6)


def test_mean_offset():
    # Row-major: place 1 is above the middle, place 5 right of it.
    out = mean_offset(kernels({4: 1}, {1: 1}, {5: 1}, {6: 0.5, 4: 0.5}))
    assert out[0, 0].tolist() == [0, 0, 1, -0.5]
    assert out[1, 0].tolist() == [0, -1, 0, 0.5]


def test_directions_differ_in_hue_and_not_in_lightness():
    angles = torch.arange(8) * math.pi / 4
    vectors = torch.stack([angles.cos(), angles.sin()])[:, None]
    colors = direction_colors(vectors, 1.0)[0]
    luminance = colors @ [0.2126, 0.7152, 0.0722]
    assert np.ptp(luminance) < 0.12
    assert (
        min(
            np.abs(colors[i] - colors[j]).max()
            for i in range(8)
            for j in range(i)
        )
        > 0.05
    )
    none = direction_colors(torch.zeros(2, 1, 1), 1.0)[0, 0]
    assert np.ptp(none) < 0.01  # gray
    longer = direction_colors(3 * vectors, 1.0)[0]
    np.testing.assert_allclose(longer, colors, atol=1e-9)


def test_sharpest_kernels_lie_apart_and_off_the_border():
    soft = torch.full((9, 20, 30), 1 / 9)
    for x, y in ((10, 10), (11, 10), (25, 5), (0, 0)):
        soft[:, y, x] = 0
        soft[4, y, x] = 1
    points = sharpest(soft, 1, 2)
    assert points == [(25, 5), (10, 10)]
    # A window of 3 low-res pixels reaches 6 high-res ones to every side.
    assert sharpest(soft, 6, 1) == [(10, 10)]
    assert sharpest(torch.full((9, 1, 1), 1 / 9), 1, 3) == [(0, 0)]
