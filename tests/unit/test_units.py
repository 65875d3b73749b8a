"""A unit is always written, always read exactly, and never guessed."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from coldstart.units import format_bytes, format_duration, parse_duration_ns, parse_size_bytes

MS, S, M, H = 10**6, 10**9, 60 * 10**9, 3600 * 10**9


@pytest.mark.parametrize(
    ("text", "ns"),
    [
        ("0s", 0),
        ("7ns", 7),
        ("250us", 250_000),
        ("250µs", 250_000),
        ("250μs", 250_000),
        ("200ms", 200 * MS),
        ("1.5 s", 1500 * MS),
        (" 20s ", 20 * S),
        ("1m30s", 90 * S),
        ("1m 30s", 90 * S),
        ("2h05m", 2 * H + 5 * M),
        ("0.000000001s", 1),
        ("2562047h", 2562047 * H),
    ],
)
def test_reads_durations(text, ns):
    assert parse_duration_ns(text) == ns


@pytest.mark.parametrize(
    ("text", "count"),
    [
        ("0B", 0),
        ("8MiB", 8 * 2**20),
        ("1GB", 10**9),
        ("512 KiB", 2**19),
        ("1.5kB", 1500),
        ("1KB", 1000),
        ("2TiB", 2**41),
    ],
)
def test_reads_sizes(text, count):
    assert parse_size_bytes(text) == count


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("200", "'200' needs a unit: 200ms"),
        ("-1.5", "'-1.5' needs a unit: 200ms"),
        ("", "'' is not a number with a unit: 200ms"),
        ("fast", "'fast' is not a number with a unit: 200ms"),
        ("-1s", "'-1s' is not a number with a unit: 200ms"),
        ("1s!", "'1s!' is not a number with a unit: 200ms"),
        ("1_000ms", "'1_000ms' is not a number with a unit: 200ms"),
        ("5 min", "'5 min' has an unknown unit 'min': use one of h, m, s, ms, us, ns"),
        ("1S", "'1S' has an unknown unit 'S': use one of"),
        ("30s1m", "'30s1m' must go from the longest unit to the shortest, each once: 1m30s"),
        ("1s1s", "'1s1s' must go from the longest"),
        ("1.5ns", "'1.5ns' is not a whole number of nanoseconds"),
        ("2562048h", "'2562048h' is too large"),
        (f"0.{'0' * 30}1s", f"'0.{'0' * 30}1s' is not a whole number of nanoseconds"),
        (f"{'1' * 21}ns", f"'{'1' * 21}ns' has too many digits"),
        ("٣s", "'٣s' is not a number"),
    ],
)
def test_refuses_durations(text, message):
    with pytest.raises(ValueError, match=f"^{re.escape(message)}"):
        parse_duration_ns(text)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("8", "'8' needs a unit: 8MiB"),
        ("8M", "'8M' has an unknown unit 'M': use one of B, kB, MB, GB, TB, KiB, MiB, GiB, TiB"),
        ("8mb", "'8mb' has an unknown unit 'mb'"),
        ("1GB 5MB", "'1GB 5MB' is more than one size: write 8MiB"),
        ("0.1KiB", "'0.1KiB' is not a whole number of bytes"),
        ("9999999999TB", "'9999999999TB' is too large"),
    ],
)
def test_refuses_sizes(text, message):
    with pytest.raises(ValueError, match=f"^{re.escape(message)}"):
        parse_size_bytes(text)


@pytest.mark.parametrize(
    ("ns", "text"),
    [
        (0, "0 s"),
        (5, "5 ns"),
        (999, "999 ns"),
        (812_000, "812 us"),
        (1_234, "1.23 us"),
        (999_600, "1.00 ms"),
        (5_234_567, "5.23 ms"),
        (52_345_678, "52.3 ms"),
        (1_020_000_000, "1.02 s"),
        (59_940_000_000, "59.9 s"),
        (59_960_000_000, "1m00s"),
        (90 * S, "1m30s"),
        (H - 1, "1h00m"),
        (2 * H + 5 * M, "2h05m"),
        (-5_234_567, "-5.23 ms"),
        (1.5, "2 ns"),
    ],
)
def test_writes_durations(ns, text):
    """Three digits, and never `1000 us` for `1.00 ms`."""
    assert format_duration(ns) == text


@pytest.mark.parametrize(
    ("count", "text"),
    [
        (0, "0 B"),
        (1023, "1023 B"),
        (1024, "1.00 KiB"),
        (5 * 2**20 + 2**18, "5.25 MiB"),
        (2**20 - 1, "1.00 MiB"),
        (3 * 2**30, "3.00 GiB"),
        (2**51, "2048 TiB"),
        (-2048, "-2.00 KiB"),
    ],
)
def test_writes_sizes(count, text):
    assert format_bytes(count) == text


@given(st.integers(0, 2**62), st.sampled_from(["h", "m", "s", "ms", "us", "ns"]))
def test_durations_are_exact(number, unit):
    """No float between text and ns: 16 digits and more survive."""
    scale = {"h": H, "m": M, "s": S, "ms": MS, "us": 1000, "ns": 1}[unit]
    number = number // scale
    assert parse_duration_ns(f"{number}{unit}") == number * scale


@given(st.integers(0, 2**53))
def test_durations_come_back(ns):
    """What is written for people is within one percent of what it says, and can be read again."""
    assert abs(parse_duration_ns(format_duration(ns)) - ns) <= ns / 100


@given(st.integers(1, 2**53))
def test_sizes_come_back(count):
    text = format_bytes(count)
    number, unit = text.split()
    scale = parse_size_bytes(f"1{unit}")
    assert abs(float(number) * scale - count) <= count / 100
