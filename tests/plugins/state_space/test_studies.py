"""The studies measure what they say."""

import pytest
import torch

from plugins.state_space import figures
from plugins.state_space.layers import S4D
from plugins.state_space.networks import SequenceBlock
from plugins.state_space.studies import PTDQuality
from plugins.state_space.studies.quality import random_perturbation, single_thread
from plugins.state_space.studies.speed import best_times, peak_bytes
from plugins.state_space.studies.straightforward import StraightforwardS4D


def test_the_plain_form_computes_what_the_fast_layer_does() -> None:
    plain = StraightforwardS4D(6, 16)
    fast = SequenceBlock(S4D(6, 16, init="s4d-lin"), norm="none", residual=False)
    with torch.no_grad():
        fast.layer.log_dt.copy_(plain.log_dt)
        fast.layer.eigenvalues.decay.copy_(plain.log_decay)
        fast.layer.eigenvalues.frequency.copy_(plain.frequency)
        fast.layer.C.copy_(plain.C[None])
        fast.layer.D.copy_(plain.D)
        fast.mix.weight.copy_(plain.output.weight.squeeze(-1))
        fast.mix.bias.copy_(plain.output.bias)
        u = torch.randn(2, 100, 6)
        expected = plain(u.transpose(1, 2)).transpose(1, 2)
    assert torch.allclose(fast(u), expected, atol=1e-4)


def test_peak_memory_counts_what_lives_together() -> None:
    def work() -> None:
        for _ in range(3):
            torch.zeros(1 << 20)  # 4 MiB each, one after the other
        a, b = torch.zeros(1 << 20), torch.zeros(1 << 20)
        del a, b

    assert 8 << 20 <= peak_bytes(work) < 9 << 20


def test_best_times_take_the_fastest_round_after_the_first() -> None:
    rounds = iter([(0.0, 0.0), (3.0, 3.0), (1.0, 2.0), (4.0, 1.0)])
    assert best_times({"a": lambda: next(rounds)}, 3) == {"a": (1000.0, 2000.0)}


def test_random_perturbations_have_their_size() -> None:
    assert torch.linalg.matrix_norm(random_perturbation(7, 0.3, 0), 2).item() == pytest.approx(0.3)
    with single_thread():
        assert torch.get_num_threads() == 1


def test_the_quality_study_wants_its_figure_among_its_sizes() -> None:
    with pytest.raises(ValueError, match="spectrum_size"):
        PTDQuality({8: [10.0]}, spectrum_size=64)


def test_figures_draw_every_curve() -> None:
    table = {"a": torch.rand(3, 3), "b": torch.rand(3, 3)}
    figure = figures.robustness(table, [None, (1.0, 0.1), (2.0, 0.1)])
    assert len(figure.axes) == 2 and all(len(ax.lines) == 2 for ax in figure.axes)
    assert len(figures.comparison({"a": [0.5, 0.7], "b": [0.2]}).axes[0].patches) == 2
    assert len(figures.memory([1, 2], {"a": [1, 2]}).axes[0].lines) == 1
