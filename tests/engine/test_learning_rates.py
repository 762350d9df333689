import numpy as np
import pytest

from mmsapa.engine.learning_rates import best_rate


@pytest.mark.parametrize(
    ('figures', 'best'),
    [
        (dict(mIoU=(41, 43.5, 43), mBIoU=(40, 30, 20)), 2),
        (dict(d1=(0.8, 0.7, 0.9)), 3),
        (dict(SAD=(2, 1.5, 3)), 2),
        (dict(SAD=(np.nan, 3, 2)), 3),
        (dict(mIoU=(50, 50, 50)), 1),
    ],
)
def test_the_rate_with_the_best_headline_figure_is_chosen(figures, best):
    validation = {
        rate: {name: values[rate - 1] for name, values in figures.items()}
        for rate in (1, 2, 3)
    }
    assert best_rate(validation) == best
