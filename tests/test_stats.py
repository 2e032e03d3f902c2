import math

import pytest

from vla.stats import compare_pairs, rate_of, wilson


@pytest.mark.parametrize(
    ("successes", "n", "low", "high"),
    [
        # Newcombe 1998, table I, method 3 (score without continuity correction), z = 1.96.
        (81, 263, 0.2553, 0.3662),
        (15, 148, 0.0624, 0.1605),
        (0, 20, 0.0000, 0.1611),
        (1, 29, 0.0061, 0.1718),
    ],
)
def test_wilson_gives_published_values(successes, n, low, high):
    rate = wilson(successes, n)
    assert rate.rate == pytest.approx(successes / n)
    assert (rate.low, rate.high) == (pytest.approx(low, abs=1e-4), pytest.approx(high, abs=1e-4))


def test_wilson_at_the_ends():
    assert wilson(0, 0).to_dict() == {"rate": 0.0, "low": 0.0, "high": 1.0, "n": 0}
    assert wilson(0, 50).low == 0.0
    full = wilson(50, 50)
    assert full.high == 1.0
    assert full.low == pytest.approx(50 / (50 + 1.96**2))
    mirrored = wilson(1, 10)
    assert wilson(9, 10).low == pytest.approx(1 - mirrored.high)


def test_wilson_narrows_with_more_episodes():
    widths = [wilson(n * 9 // 10, n).high - wilson(n * 9 // 10, n).low for n in (10, 100, 1000)]
    assert widths == sorted(widths, reverse=True)
    assert rate_of([True, False, True, True]) == wilson(3, 4)


@pytest.mark.parametrize(("successes", "n"), [(-1, 5), (6, 5)])
def test_wilson_refuses_impossible_counts(successes, n):
    with pytest.raises(ValueError, match="between 0 and n"):
        wilson(successes, n)


def test_compare_pairs_is_mcnemars_exact_test():
    first = [True] * 9 + [False] * 1 + [True] * 10
    second = [False] * 9 + [True] * 1 + [True] * 10
    paired = compare_pairs(first, second)
    assert (paired.only_first, paired.only_second, paired.n) == (9, 1, 20)
    assert paired.p_value == pytest.approx(2 * (1 + 10) / 2**10)
    assert paired.difference == pytest.approx(0.4)
    assert paired.low < 0.4 < paired.high
    assert paired.low > 0


def test_compare_pairs_of_equals_and_its_mirror():
    same = compare_pairs([True, False], [True, False])
    assert (same.difference, same.p_value) == (0.0, 1.0)
    assert same.low < 0 < same.high
    ahead, behind = compare_pairs([True] * 5, [False] * 5), compare_pairs([False] * 5, [True] * 5)
    assert math.isclose(ahead.low, -behind.high)
    assert ahead.high <= 1
    with pytest.raises(ValueError, match="same, non-zero length"):
        compare_pairs([True], [])
