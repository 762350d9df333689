"""Differences of two models, paired by seed and image.

What is known of each image is kept as ``parts``, float or int of shape
[..., N, 2, C] for N images: numerators and denominators of C classes. A
figure is the mean over classes of Σ numerators / Σ denominators, the sums
over images. For an IoU these are intersections and unions; for a mean over
images, with C = 1, the images' figures and 1, or 0 and 0 without a figure.
"""

import warnings
from contextlib import contextmanager

import numpy as np
from scipy.special import ndtri, stdtrit

RESAMPLES = 5000


def parts_of(figures: np.ndarray) -> np.ndarray:
    """Make parts of which the figure is the mean over images.

    Args:
        figures (ndarray[N]): Of each image; NaN if it has none.

    Returns:
        ndarray[N, 2, 1]: Parts, float64.
    """
    known = ~np.isnan(figures)
    parts = np.stack([np.where(known, figures, 0), known], axis=-1)
    return parts[..., None].astype(float)


def class_figures(parts: np.ndarray) -> np.ndarray:
    """Return the figure of each class: sums over images, then their ratio.

    Args:
        parts (ndarray[..., N, 2, C]): Of N images and C classes.

    Returns:
        ndarray[..., C]: Of each class; NaN where the denominator is 0.
    """
    return _ratios(np.asarray(parts, float).sum(-3))


def mean_figure(parts: np.ndarray) -> np.ndarray:
    """Return the mean of :func:`class_figures` over known classes, [...]."""
    return _mean(class_figures(parts))


def paired_difference(
    candidate: np.ndarray,
    baseline: np.ndarray,
    by_class: bool = False,
    groups: np.ndarray | None = None,
    seed: int = 0,
) -> np.ndarray:
    """Return the mean paired difference and its 95 % confidence interval.

    The difference is the mean over seeds of the candidate's figure minus the
    baseline's of the same seed. The interval is that for other images and
    other seeds, from the 2.5th to the 97.5th percentile of 5000 draws:

    - A bootstrap over images: N of the N images are drawn with replacement,
      the same for both models and all seeds. Figures are computed from the
      sums over the images drawn, and give a difference of each seed. Few
      images vary too little in such draws, so their distance from the
      difference is widened by √(n / (n - 1)) t / z, where n is the number of
      images that have the figure or class, and t and z are the 97.5th
      percentiles of Student's distribution with n - 1 degrees of freedom and
      of the normal one. A single image has no interval.
    - Student's t over seeds: to the mean of these S differences, t s / √S is
      added, where s is their standard deviation (n - 1) and t has Student's
      distribution with S - 1 degrees of freedom: its quantiles, whose
      extremes do not depend on luck. A single seed has no such term, and its
      interval is for other images alone.

    Images must be independent of one another. Where they are not, as the
    composites of one foreground, ``groups`` names those that belong
    together, and whole groups are drawn in place of images.

    If images do not matter, the interval is that of the paired t-test over
    seeds; if seeds do not, that of the paired bootstrap over images. It is
    wide for few seeds: with the same s, 6.5 times as wide for 2 as for many,
    and 2.2 times for 3. Seeds are not resampled, since that makes intervals
    too narrow: in simulations of normal differences with 3 seeds and 233
    images they held the truth in 75 to 97 % of cases, this one in 95 to
    99.7 %. It is too wide where differences depend on seed and image
    together, which then count in both terms.

    Args:
        candidate (ndarray[S, N, 2, C]): Parts of S seeds and N images.
        baseline (ndarray[S, N, 2, C]): Those of the other model, of the same
            seeds and images in the same order.
        by_class (bool): Whether to compare each class, not their mean.
            Default: False.
        groups (ndarray[N], optional): Of each image, a number or a name.
            Default: None, each image is a group of its own.
        seed (int): Of the draws. Default: 0.

    Returns:
        ndarray[3] or ndarray[3, C]: The difference, and the lower and upper
        end of its interval; NaN for a class that a run does not have, and
        ends of NaN for one that is in a single image or group. Draws without
        any image that has the class are left out.

    Raises:
        ValueError: If the shapes differ, or are others than these.
    """
    models = [np.asarray(parts, float) for parts in (candidate, baseline)]
    if models[0].shape != models[1].shape or models[0].ndim != 4:
        raise ValueError(
            'paired_difference: expected parts of both models of one shape '
            f'[seeds, images, 2, classes], got {models[0].shape} and '
            f'{models[1].shape}; test both with the same seeds and images.'
        )
    if groups is not None:
        models = [_sum_groups(x, groups) for x in models]
    (seeds, images), rng = models[0].shape[:2], np.random.default_rng(seed)
    figure = _ratios if by_class else lambda sums: _mean(_ratios(sums))
    difference = np.subtract(*(figure(x.sum(1)) for x in models)).mean(0)
    # How often each image is drawn, [RESAMPLES, N].
    times = rng.multinomial(images, np.full(images, 1 / images), RESAMPLES)
    # Of each seed, [S, RESAMPLES] or [S, RESAMPLES, C].
    differences = np.subtract(
        *(
            figure(np.tensordot(times, x, (1, 1)).swapaxes(0, 1))
            for x in models
        )
    )
    known = np.any([x[:, :, 1] > 0 for x in models], axis=(0, 1))  # [N, C]
    known = known.sum(0) if by_class else known.any(-1).sum()
    draws = difference + _widening(known) * (differences.mean(0) - difference)
    if seeds > 1:
        spread = differences.std(0, ddof=1) / seeds**0.5
        t = stdtrit(seeds - 1, (np.arange(RESAMPLES) + 0.5) / RESAMPLES)
        draws += t.reshape(-1, *[1] * (draws.ndim - 1)) * spread
    with _quiet('All-NaN slice'):
        ends = np.nanpercentile(draws, [2.5, 97.5], axis=0)
    ends = np.where(np.isnan(difference), np.nan, ends)
    return np.stack([difference, *ends])


def _sum_groups(parts, groups):
    """Sum the parts of images that belong together, [S, groups, 2, C]."""
    names, group = np.unique(groups, return_inverse=True)
    sums = np.zeros((parts.shape[0], len(names), *parts.shape[2:]))
    np.add.at(sums, (slice(None), group), parts)
    return sums


def _widening(count):
    """Of an interval by a bootstrap over a number of images; NaN for one."""
    n = np.where(count > 1, count, np.nan)
    return np.sqrt(n / (n - 1)) * stdtrit(n - 1, 0.975) / ndtri(0.975)


def _ratios(sums):
    """Divide numerators by denominators, [..., 2, C] to [..., C]."""
    above, below = sums[..., 0, :], sums[..., 1, :]
    unknown = np.full(above.shape, np.nan)
    return np.divide(above, below, out=unknown, where=below > 0)


def _mean(figures):
    with _quiet('Mean of empty slice'):
        return np.nanmean(figures, axis=-1)


@contextmanager
def _quiet(warning):
    with warnings.catch_warnings():
        warnings.filterwarnings('ignore', warning)
        yield
