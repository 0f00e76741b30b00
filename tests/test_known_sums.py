"""Tables and scores are those recorded before: a change of structure changes no number (known_sums.py)."""

import json

import pytest
from known_sums import RECORDED, measure


def test_known_sums():
    recorded = json.loads(RECORDED.read_text())
    found, _ = measure()
    assert found.keys() == recorded.keys()
    for name, wanted in recorded.items():
        assert found[name]["tables"] == wanted["tables"], name
        assert found[name]["guesses"] == pytest.approx(wanted["guesses"], abs=2), name  # another CPU may round a tie otherwise
        assert found[name]["bits"] == pytest.approx(wanted["bits"], rel=1e-7), name
        assert found[name]["betas"] == pytest.approx(wanted["betas"], rel=1e-4), name
