import pytest

from plugins.generative.rates import warm_cosine


def test_rates_rise_fall_and_end():
    assert warm_cosine(0.05, 0.1, 0.2) == pytest.approx(0.5) and warm_cosine(0.1, 0.1, 0.2) == pytest.approx(1)
    assert warm_cosine(0.55, 0.1, 0.2) == pytest.approx(0.6) and warm_cosine(2.0, 0.1, 0.2) == pytest.approx(0.2)
    assert 0 < warm_cosine(0.0, 0.1) and warm_cosine(0.0, 0.0) == 1
