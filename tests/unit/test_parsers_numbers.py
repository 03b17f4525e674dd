"""Number cells: strict, and never a number that was not printed."""

from __future__ import annotations

import math

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from pytest_h2o.metrics import Sample
from pytest_h2o.parsers.numbers import parse_count, parse_number, parse_sample


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("1.2e+06", 1.2e6),
        ("1e-3", 0.001),
        (" 10526.67 ", 10526.67),
        ("-4", -4.0),
        (".5", 0.5),
        ("5.", 5.0),
        ("0.00", 0.0),
        ("1e400", math.inf),
        ("inf", math.inf),
        ("-inf", -math.inf),
        ("Infinity", math.inf),
    ],
)
def test_numbers_are_read_whole(text: str, number: float) -> None:
    """An exponent counts, and so does a sign."""
    assert parse_number(text) == number


@pytest.mark.parametrize("text", ["nan", "-nan", "NaN", "-nan(ind)"])
def test_nan_stays_nan(text: str) -> None:
    """Not a number is kept as such, so that a gate can fail on it."""
    value = parse_number(text)
    assert value is not None
    assert math.isnan(value)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "-",
        "h2o_lossy",
        "1,234",
        "1_000",
        "0,32",
        "1.2.3",
        "0x10",
        "3 4",
        "1e",
        "12x",
        "٣",
        "²",
        "nan1",
        "1 ± 2",
    ],
)
def test_anything_else_is_no_number(text: str) -> None:
    """Digits inside other text, thousands separators and foreign digits are not numbers."""
    assert parse_number(text) is None


@given(st.floats())
def test_every_float_survives_its_own_text(value: float) -> None:
    """What Python prints for a float is read back as that float."""
    parsed = parse_number(repr(value))
    assert parsed == value or (parsed is not None and math.isnan(parsed) and math.isnan(value))


@given(st.text())
@example("0\x1f")
def test_no_text_crashes_the_readers(text: str) -> None:
    """Any text gives a number or None."""
    assert isinstance(parse_number(text), float | None)
    assert isinstance(parse_count(text), int | None)
    assert isinstance(parse_sample(text), Sample | None)


def test_mean_and_deviation_make_a_sample() -> None:
    """The number of repeats is not printed and comes from the caller."""
    assert parse_sample("2.710 ± 0.226", 3) == Sample(2.710, 0.226, 3)
    assert parse_sample("2.710") == Sample(2.710, None, None)


@pytest.mark.parametrize(
    "text", ["2.710 ±", "± 0.226", "2.710 ± x", "2 ± 3 ± 4", "2.710 0.226", ""]
)
def test_half_a_sample_is_none(text: str) -> None:
    """A cell with an unreadable part gives no sample."""
    assert parse_sample(text) is None


@pytest.mark.parametrize(
    ("text", "count"),
    [("256", 256), ("0", 0), ("-1", None), ("1.0", None), ("9" * 16, None), ("", None)],
)
def test_counts_are_non_negative_integers(text: str, count: int | None) -> None:
    """Token counts have neither sign nor fraction."""
    assert parse_count(text) == count
