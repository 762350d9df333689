"""Learning rates of a controlled comparison, chosen on validation images."""

import json
import math

from mmsapa.engine.controlled_comparison import (
    candidate_config,
    result_of,
    train_all,
)
from mmsapa.engine.image_figures import HIGHER_IS_BETTER


def choose_rates(cfg, upsamplers, seed, initial_state, rates, jobs=0):
    """Choose each upsampler's learning rate on the validation images.

    The candidates that are trained for it have no result of test images yet.

    Args:
        cfg (Config): The comparison's.
        upsamplers (list[str]): Names in PRESETS.
        seed (int): Of the trainings that decide, one an upsampler and rate.
        initial_state (Path): Of
            :func:`~mmsapa.engine.controlled_comparison.save_initial_state`.
        rates (list[float]): To choose from.
        jobs (int): Trainings at a time, as in
            :func:`~mmsapa.engine.controlled_comparison.train_all`.

    Returns:
        tuple[dict, dict]: By upsampler the rate, and by upsampler and rate
        the figures of the validation images.

    Raises:
        ConfigError: A training failed.
    """
    trials = {
        (name, rate): candidate_config(
            cfg, name, seed, initial_state, rate, 'val'
        )
        for name in upsamplers
        for rate in rates
    }
    train_all([*trials.values()], jobs)
    validation = {name: {} for name in upsamplers}
    for (name, rate), trial in trials.items():
        figures = json.loads(result_of(trial).read_text())
        figures.pop('peak_bytes')
        validation[name][rate] = figures
    chosen = {name: best_rate(x) for name, x in validation.items()}
    return chosen, validation


def best_rate(validation):
    """Find the learning rate with the best headline figure.

    Args:
        validation (dict[float, dict]): Figures of validation images by
            learning rate.

    Returns:
        float: The rate; the first of equal ones. A figure that is NaN is
        worse than any.
    """
    figures = next(iter(validation.values()))
    name = next(x for x in HIGHER_IS_BETTER if x in figures)
    sign = 1 if HIGHER_IS_BETTER[name] else -1

    def merit(rate):
        figure = sign * validation[rate][name]
        return -math.inf if math.isnan(figure) else figure

    return max(validation, key=merit)
