"""The quantization and scaling-law studies, small: their own claims, and what they refuse."""

import numpy as np
import pytest
import torch

from plugins.generative.networks import ConvClassifier, UNet
from plugins.generative.quantization import QuantizationConfig
from plugins.generative.scaling_law import TrainingRun
from plugins.generative.solvers import DPMSolverPP2M
from plugins.generative.studies.fp_quantization import FPQuantization, cast_mismatches, wiener_rounding
from plugins.generative.studies.fp_scaling_law import (
    FPScalingLaw,
    averaged,
    published_consequences,
    recovered,
)


def test_claims_that_need_no_network():
    assert set(cast_mismatches(count=100_000).values()) == {0.0}
    wiener = wiener_rounding(steps=300)
    assert wiener["wiener/gain/fp4"] >= wiener["wiener/gain_without_polish/fp4"] >= 0.2
    assert recovered() < 0.01
    assert max(v for k, v in published_consequences().items() if "slope" in k) < 1e-8


def test_repetitions_are_averaged():
    run = TrainingRun(1e7, 1e10, 2, 1, 8, 3.0)
    other = run._replace(block_size=1)
    assert averaged([run, other, run._replace(loss=5.0)]) == [run._replace(loss=4.0), other]


def test_quantization_study_end_to_end():
    torch.manual_seed(0)
    variants = {
        "w4a8_fp": QuantizationConfig("FP4", "E4M3FN"),
        "w4a8_fp_learned": QuantizationConfig("FP4", "E4M3FN", rounding_steps=5),
    }
    network = UNet(1, 8, (1, 2), num_classes=10)
    study = FPQuantization(variants, DPMSolverPP2M(), network, ConvClassifier(), fast=True)
    figures = {}
    study.save_figure = lambda name, figure: figures.setdefault(name, figure)
    with torch.inference_mode():  # as a test stage runs it
        metrics = study.study()
    assert set(figures) == {"quality_by_format", "samples_by_format"}
    for name in variants:
        for metric in ("output_error", "sample_error", "sliced_wasserstein", "frechet_distance", "frechet_to_full"):
            assert np.isfinite(metrics[f"{metric}/{name}"]), metric
    assert 0 < metrics["output_error/w4a8_fp_learned"] < metrics["output_error/w4a8_fp"] < 0.5
    assert metrics["rounding_gain/w4a8_fp_learned"] > 0


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: FPQuantization({"a": QuantizationConfig("FP4")}, DPMSolverPP2M()), "either run"),
        (lambda: FPQuantization({}, DPMSolverPP2M(), UNet(), ConvClassifier()), "variants"),
        (lambda: FPScalingLaw(formats=["INT8", "E2M1"]), "floating-point"),
        (lambda: FPScalingLaw(widths=[32, 64]), "widths"),
        (lambda: FPScalingLaw(block_sizes=[8, 64]), "block_sizes"),
        (lambda: FPScalingLaw(repeats=0), "repeats"),
    ],
)
def test_bad_input_is_named(make, message):
    with pytest.raises(ValueError, match=message):
        make()
