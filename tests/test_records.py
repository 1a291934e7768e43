"""Records: whole or not at all, missing is missing."""

import json
import math

import pytest

from llama_bench import records
from llama_bench.fields import UserError
from llama_bench.records import Record


def record(**result) -> Record:
    return Record(
        id="x-1",
        verb="train",
        spec={},
        seconds={"startup": 0.1, "total": 1.0},
        provenance={},
        result=result,
    )


def test_what_is_written_is_read(tmp_path):
    path = tmp_path / "deep" / "record.json"
    record(loss=1.5, rows=[{"a": 1}]).write(path)
    assert records.read(path) == record(loss=1.5, rows=[{"a": 1}])
    assert [p.name for p in path.parent.iterdir()] == ["record.json"]


def test_what_is_not_finite_is_missing(tmp_path):
    path = tmp_path / "record.json"
    record(loss=math.nan, nested=[{"x": -math.inf}, 2]).write(path)
    assert json.loads(path.read_text())["result"] == {"loss": None, "nested": [{"x": None}, 2]}


def test_a_write_that_fails_leaves_the_old_one(tmp_path, monkeypatch):
    path = tmp_path / "record.json"
    record(loss=1.0).write(path)

    def full(_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(records.os, "fsync", full)
    with pytest.raises(OSError):
        record(loss=2.0).write(path)
    assert records.read(path).result == {"loss": 1.0}
    assert [p.name for p in tmp_path.iterdir()] == ["record.json"]


@pytest.mark.parametrize("content", ["", "{", "[]", '{"id": "x"}', '{"unknown": 1}'])
def test_a_damaged_record_is_named(tmp_path, content):
    path = tmp_path / "record.json"
    path.write_text(content)
    with pytest.raises(UserError, match=r"record\.json"):
        records.read(path)


def test_a_record_that_is_not_there_is_named(tmp_path):
    with pytest.raises(UserError, match="cannot be read"):
        records.read(tmp_path / "record.json")
