"""What an evaluation plans before its first fit."""

from __future__ import annotations

import pytest

from clipsyn.protocol.loop import evaluate


def test_how_fast_a_machine_is_is_measured_once_in_a_process(tiny_store, monkeypatch):
    few = {"ensembles": ["log-avg"], "shots": [1], "seeds": 1}
    first = evaluate(tiny_store, **few)
    monkeypatch.setattr(
        "clipsyn.protocol.workload.measured_rates", lambda: pytest.fail("measured again")
    )
    assert evaluate(tiny_store, **few).height == first.height
