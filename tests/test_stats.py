import math

import pytest
import scipy.stats

from vla.eval.statistics import compare_pairs, holm, mcnemar_exact, mean_difference, rate_of, wilson


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


@pytest.mark.parametrize(
    ("only_first", "only_second", "p"),
    [
        (0, 0, 1.0),
        (5, 5, 1.0),
        (6, 0, 2 / 2**6),
        (1, 9, 22 / 2**10),
        # The binomial table for n = 20: P(X <= 5) = 0.0207, P(X <= 6) = 0.0577.
        (5, 15, 2 * 0.0207),
        (14, 6, 2 * 0.0577),
    ],
)
def test_mcnemar_exact_is_the_binomial_table(only_first, only_second, p):
    assert mcnemar_exact(only_first, only_second) == pytest.approx(p, abs=2e-4)
    assert mcnemar_exact(only_first, only_second) == mcnemar_exact(only_second, only_first)


def test_the_paired_interval_gives_a_published_value():
    # Approval of the prime minister, asked twice: Agresti, Categorical Data Analysis, 2nd edition, section 10.1.1:
    # -0.04, standard error 0.0095, so -0.06 to -0.02; McNemar's z squared is 17.36 (p = 0.00003).
    first = [True] * 794 + [True] * 86 + [False] * 150 + [False] * 570
    second = [True] * 794 + [False] * 86 + [True] * 150 + [False] * 570
    paired = compare_pairs(first, second)
    assert paired.difference == pytest.approx(-0.04)
    assert (paired.low, paired.high) == (pytest.approx(-0.0587, abs=2e-4), pytest.approx(-0.0213, abs=2e-4))
    assert 1e-5 < paired.p_value < 6e-5


def test_the_paired_interval_covers_the_truth_as_often_as_it_says():
    # Every split of 30 pairs, weighed by its chance, where 25 % only the first solves and 10 % only the second.
    n, b_share, c_share = 30, 0.25, 0.10
    covered = 0.0
    for b in range(n + 1):
        for c in range(n + 1 - b):
            ways = math.comb(n, b) * math.comb(n - b, c)
            chance = ways * b_share**b * c_share**c * (1 - b_share - c_share) ** (n - b - c)
            paired = compare_pairs([True] * b + [False] * (n - b), [False] * b + [True] * c + [False] * (n - b - c))
            covered += chance * (paired.low <= b_share - c_share <= paired.high)
    assert 0.94 < covered < 0.98


@pytest.mark.parametrize(
    ("n", "t"), [(2, 12.706), (3, 4.303), (4, 3.182), (5, 2.776), (10, 2.262), (31, 2.042), (100, 1.984)]
)
def test_the_interval_of_a_mean_is_students_table(n, t):
    differences = [float(i % 2) for i in range(n)]
    mean = sum(differences) / n
    error = math.sqrt(sum((d - mean) ** 2 for d in differences) / (n - 1) / n)
    found = mean_difference(differences, [0.0] * n)
    assert (found.high - found.low) / 2 / error == pytest.approx(t, abs=5e-4)


@pytest.mark.parametrize(("k", "n"), [(0, 7), (3, 7), (190, 200), (200, 200)])
def test_wilson_and_mcnemar_agree_with_scipy(k, n):
    interval = scipy.stats.binomtest(k, n).proportion_ci(0.95, "wilson")
    assert (wilson(k, n).low, wilson(k, n).high) == pytest.approx((interval.low, interval.high), abs=2e-5)
    assert mcnemar_exact(k, n - k) == pytest.approx(scipy.stats.binomtest(k, n).pvalue)


def test_mean_difference_is_students_paired_interval():
    # Student's own example (1908): hours of sleep gained with two drugs, ten patients.
    # R: t.test(extra ~ group, sleep, paired = TRUE) gives -1.58, interval -2.4599 to -0.7001.
    first = [0.7, -1.6, -0.2, -1.2, -0.1, 3.4, 3.7, 0.8, 0.0, 2.0]
    second = [1.9, 0.8, 1.1, 0.1, -0.1, 4.4, 5.5, 1.6, 4.6, 3.4]
    found = mean_difference(first, second)
    assert found.difference == pytest.approx(-1.58)
    assert (found.low, found.high) == (pytest.approx(-2.4599, abs=1e-4), pytest.approx(-0.7001, abs=1e-4))
    same = mean_difference([0.5, 0.1], [0.5, 0.1])
    assert (same.difference, same.low, same.high, same.n) == (0.0, None, None, 2)
    with pytest.raises(ValueError, match="same, non-zero length"):
        mean_difference([], [])


def test_holm_allows_for_several_comparisons():
    assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert holm([0.6, 0.9]) == [1.0, 1.0]
    assert holm([]) == []
