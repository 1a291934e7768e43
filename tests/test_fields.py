"""Numbers as people write them, names that are safe, keys that are known."""

import pytest
from pydantic import ValidationError

from llama_bench.fields import Base, Count, Name, Real, number, readable, short


class Thing(Base):
    size: Count = 0
    rate: Real = 0.0
    name: Name = "x"


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        ("1M", 1_000_000),
        ("0.5M", 500_000),
        ("2_000_000", 2_000_000),
        ("2,000,000", 2_000_000),
        ("1,000", 1_000),
        ("12,345.6k", 12_345_600),
        ("2e6", 2_000_000),
        (2e6, 2_000_000),
        ("250k", 250_000),
        ("7B", 7 * 10**9),
        ("1.5T", 1_500_000_000_000),
        ("9.3e18", 9_300_000_000_000_000_000),
    ],
)
def test_counts_in_any_usual_spelling(written, meant):
    assert Thing(size=written).size == meant


@pytest.mark.parametrize(
    "written", ["big", "1 MB", "1.5", "-3", "", None, True, "nan", "inf", "1e", "0x10", [1], "1M2"]
)
def test_what_is_no_count_is_refused(written):
    with pytest.raises(ValidationError):
        Thing(size=written)


@pytest.mark.parametrize(
    "written",
    ["4,1", "3,5071", "1,5M", "0,125", "1,00,000", "1000,000", "2,_000", "1,000,00", "3,"],
)
def test_a_comma_that_marks_no_thousands_is_refused(written):
    with pytest.raises(ValueError, match=r"a comma marks thousands .1,000., a point decimals"):
        number(written)
    with pytest.raises(ValidationError, match="a comma marks thousands"):
        Thing(size=written)


def test_three_spellings_of_a_rate_are_one():
    assert Thing(rate="3e-4").rate == Thing(rate=0.0003).rate == Thing(rate=3e-4).rate == 0.0003


def test_number_keeps_integers_whole():
    assert number(10**18 + 1) == 10**18 + 1


@pytest.mark.parametrize("name", ["../up", "a/b", "a b", "", ".hidden", "a..b", "ü"])
def test_unsafe_names_are_refused(name):
    with pytest.raises(ValidationError):
        Thing(name=name)


def test_an_unknown_key_names_the_nearest_right_one():
    with pytest.raises(ValidationError) as caught:
        Thing.model_validate({"sise": 3})
    assert "did you mean 'size'" in str(readable(caught.value, "config"))


@pytest.mark.parametrize(("count", "text"), [(999, "999"), (1_500_000, "1.5M"), (7 * 10**9, "7B")])
def test_short(count, text):
    assert short(count) == text
