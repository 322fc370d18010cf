"""A calibration survives its file, and a file that is none is one clear error."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st
from small_estimates import CALIBRATION, CONFIG, calibration_of

from difffusr.pipeline.ground.errors import ConfigError
from difffusr.pipeline.run.cost.calibration import Calibration, Reading, load_calibration

figures = st.floats(0, 1e9, allow_nan=False)


@given(figures, figures, st.dictionaries(st.integers(1, 64), figures, min_size=1))
def test_a_calibration_survives_its_file(seconds, share, model):
    reading = Reading(seconds=seconds, cpu_seconds=seconds, bytes=seconds, further_share=share)
    made = calibration_of(CONFIG, model=model, read=reading)
    assert Calibration.from_json(made.to_json()) == made


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda data: {**data, "version": 1}, "version"),
        (lambda data: {**data, "more": 1}, "more"),
        (lambda data: {**data, "model": {}}, "model"),
        (lambda data: {**data, "load": -1}, "load"),
        (lambda data: {name: data[name] for name in data if name != "read"}, "read"),
        (lambda data: {name: data[name] for name in data if name != "planning"}, "planning: version 3 needs it"),
        (lambda data: {**data, "version": 2}, "planning: version 2 has none"),
        (lambda data: {**data, "version": 4}, "version"),
        (lambda data: {**data, "planning": {**data["planning"], "look": {"seconds": 1}}}, r"planning\.look"),
        (lambda data: {**data, "planning": {**data["planning"], "overlap_seconds": -1}}, r"planning\.overlap_seconds"),
        (lambda data: [data], "calibration"),
    ],
)
def test_a_file_that_is_no_calibration_is_said_to_be_none(change, said, tmp_path):
    path = tmp_path / "calibration.json"
    path.write_text(json.dumps(change(json.loads(CALIBRATION.to_json()))))
    with pytest.raises(ConfigError, match=said) as caught:
        load_calibration(str(path))
    assert str(path) in str(caught.value)
    assert "difffusr calibrate" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_calibration_from_before_planning_was_measured_is_read():
    before = {**json.loads(CALIBRATION.to_json()), "version": 2}
    del before["planning"]
    found = Calibration.from_json(json.dumps(before))
    assert found.planning is None
    assert found.read == CALIBRATION.read
    assert Calibration.from_json(found.to_json()) == found


def test_a_calibration_that_is_not_there_or_not_json_is_one_clear_error(tmp_path):
    with pytest.raises(ConfigError, match="cannot be read"):
        load_calibration(str(tmp_path / "none.json"))
    (tmp_path / "text.json").write_bytes(b"\xff not json")
    with pytest.raises(ConfigError, match="is not a calibration"):
        load_calibration(str(tmp_path / "text.json"))
