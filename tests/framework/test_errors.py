"""Hints and errors that travel between processes."""

from __future__ import annotations

import pickle

import pytest

from framework.errors import ConfigError, Interrupted, UserError, nearest


@pytest.mark.parametrize(
    ("name", "names", "hint"),
    [
        ("wdth", ["width", "depth"], " Did you mean 'width'?"),
        ("x", ["width", "depth"], " Choose from: depth, width."),
        ("x", [], ""),
        ("zzz", [f"name{i}" for i in range(13)], ""),
        ("1", [1, 2], " Did you mean '1'?"),
    ],
)
def test_nearest(name, names, hint):
    assert nearest(name, names) == hint


def test_config_error_lists_every_problem():
    error = ConfigError(iter(["one", "two"]))
    assert error.problems == ["one", "two"] and str(error) == "This config cannot run:\n  - one\n  - two"
    assert isinstance(error, UserError)


def test_interruption_is_no_ordinary_exception_and_survives_pickling():
    stop = pickle.loads(pickle.dumps(Interrupted(15)))
    assert stop.signum == 15 and stop.exit_status == 143 and Interrupted(2).exit_status == 130
    assert not isinstance(stop, Exception)
