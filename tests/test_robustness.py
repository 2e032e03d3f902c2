"""The robustness suite, and what results, comparisons and repetitions know of perturbations."""

import json
import struct

import numpy as np
import pytest

from tests.acting import ENV, DotAgent
from tests.fake_env import DotEnv
from vla import cli
from vla.commands import eval as eval_command
from vla.contracts import VlaError
from vla.eval import preview, wording
from vla.eval.comparable import protocol_rows
from vla.eval.config import EvalConfig
from vla.eval.evaluate import evaluate
from vla.eval.folder import part_folder, read_results
from vla.eval.robustness import plan, run_suite
from vla.eval.statistics import retained_share
from vla.perturb import axes as perturb
from vla.rollout.loop import RolloutInterrupted

SMALL = ("--episodes", "4", "--slots", "2", "--videos", "0", "--workers", "1", "--execute", "4", "--kind", "named")


class Hashed(DotAgent):
    """An agent that can be told from others."""

    name, hash = "hashed", "0123456789abcdef" * 4


@pytest.fixture(autouse=True)
def agent(monkeypatch):
    monkeypatch.setattr(eval_command, "_load_agent", lambda *args: Hashed())


def vla_eval(*words):
    return cli.main(["eval", *map(str, words)])


def config(**more):
    return EvalConfig(**{"env": ENV, "episodes": 3, "slots": 2, "videos": 0, "execute": 4, "kind": "named", **more})


def outcomes(folder):
    return [(e["seed"], e["success"], e["steps"]) for e in read_results(folder)["episodes_detail"]]


def test_the_suite_plays_every_part_on_the_same_seeds(tmp_path, capsys):
    assert vla_eval("--env", ENV, "--suite", "robustness", "--out", tmp_path, *SMALL, "--videos", 1) == 0
    found = read_results(tmp_path)
    assert set(found["suite"]) == set(perturb.axes_of(DotEnv)) == {"state", "latency", "noise"}
    for axis, rates in found["suite"].items():
        assert set(rates) == set(perturb.STRENGTHS)
        for strength, rate in rates.items():
            part = read_results(part_folder(tmp_path, axis, strength))
            assert part["success"] == rate and set(rate) == {"rate", "low", "high", "n"} and rate["n"] == 4
            assert part["settings"]["perturb"] == {axis: strength} == part["perturb"]
            assert [e["seed"] for e in part["episodes_detail"]] == [e["seed"] for e in found["episodes_detail"]]
    assert list(found["delay_ms"]) == ["0", "50", "100", "200", "400"]
    assert (
        found["delay_ms"]["0"] == found["success"] and found["delay_ms"]["100"] == found["suite"]["latency"]["medium"]
    )
    assert found["delay_ms"]["400"] == read_results(part_folder(tmp_path, "latency", "400ms"))["success"]
    medium = [rates["medium"]["rate"] for rates in found["suite"].values()]
    assert found["retained"] == pytest.approx(np.mean(medium) / found["success"]["rate"], abs=1e-3)
    assert found["retained_interval"][0] <= found["retained"] <= found["retained_interval"][1]
    assert found["suite"]["noise"]["strong"]["rate"] < found["success"]["rate"], "it looks for exact colours"
    assert "suite_unfinished" not in found and found["perturb"] == {}
    printed = capsys.readouterr().out
    for text in ("robustness: success", "unperturbed", "latency", "by delay: 0 ms", "retained at medium strength"):
        assert text in printed
    html = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert "<h2>Robustness</h2>" in html and html.count("data:video/mp4") == 1
    assert html.count('class="bar" cx=') == 5 and "400 ms" in html


def test_an_interrupted_suite_goes_on_where_it_stopped(tmp_path):
    class Impatient(Hashed):
        stop_at = 10**9

        def act_batch(self, observations, noise_seeds):
            if len(self.batches) >= self.stop_at and noise_seeds[0] > 9:  # not while a decision is timed
                raise KeyboardInterrupt
            return super().act_batch(observations, noise_seeds)

    wanted = config(suite=plan(["state", "latency"]), videos=1)
    whole = run_suite(wanted, Hashed(), tmp_path / "whole")
    impatient = Impatient()
    impatient.stop_at = 100
    with pytest.raises(RolloutInterrupted, match=r"of 7 parts of the suite were finished before '.*goes on from there"):
        run_suite(wanted, impatient, tmp_path / "cut")
    kept = read_results(tmp_path / "cut")
    done = int(kept["suite_unfinished"].split()[0])
    assert 0 < done < 7 and kept["episodes"] == 3
    resumed, skipped, played = Hashed(), [], []
    found = run_suite(wanted, resumed, tmp_path / "cut", "", played.append, lambda name, n, good: skipped.append(n))
    assert 3 * (done + 1) <= sum(skipped) < 3 * (done + 2) and len(played) == 3 * 8 - sum(skipped)
    for name in ("suite", "delay_ms", "retained", "success"):
        assert found[name] == whole[name]
    assert "suite_unfinished" not in found
    assert (tmp_path / "cut" / "report.html").read_text(encoding="utf-8").count("data:video/mp4") == 1


def test_only_parts_of_the_same_agent_and_settings_are_kept(tmp_path):
    wanted, played = config(suite={"noise": ["mild"]}), []

    def count(agent, **more):
        played.clear()
        run_suite(config(**{"suite": wanted.suite, **more}), agent, tmp_path, "", played.append)
        return len(played)

    class Other(Hashed):
        hash = "f" * 64

    assert count(Hashed()) == 6 and count(Hashed()) == 0
    assert count(Other()) == 6 and count(Hashed()) == 6
    assert count(Hashed(), seed=1) == 6 and count(Hashed(), seed=1, workers=3) == 0
    assert count(DotAgent(), seed=1) == 6 and count(DotAgent(), seed=1) == 6, "without a hash nobody can tell"


def test_perturbed_episodes_are_compared_only_with_their_like(tmp_path, capsys):
    for name, words in (("calm", ()), ("harder", ("--perturb", "noise=mild")), ("again", ("--perturb", "noise=mild"))):
        assert vla_eval("--env", ENV, *SMALL, "--out", tmp_path / name, *words) == 0
    assert "perturbed: noise=mild" in capsys.readouterr().out
    assert "perturbed: noise=mild" in (tmp_path / "harder" / "report.html").read_text(encoding="utf-8")
    assert cli.main(["compare", str(tmp_path / "calm"), str(tmp_path / "harder")]) == 2
    error = capsys.readouterr().err
    assert "differ in perturb" in error and "none" in error and "{'noise': 'mild'}" in error
    old = read_results(tmp_path / "calm")
    del old["settings"]["perturb"], old["perturb"]
    assert protocol_rows(old, read_results(tmp_path / "calm")) == []
    assert [row[0] for row in protocol_rows(old, read_results(tmp_path / "harder"))] == ["perturb"]
    assert cli.main(["compare", str(tmp_path / "again"), str(tmp_path / "harder"), "--out", str(tmp_path / "c")]) == 0
    with pytest.raises(VlaError, match="share no episode: they differ in perturb"):
        evaluate(config(), Hashed(), tmp_path / "out", against=tmp_path / "harder")


def test_a_repetition_plays_the_perturbations_again(tmp_path, capsys):
    words = ("--perturb", "noise=mild,latency=150ms,state")
    assert vla_eval("--env", ENV, *SMALL, "--out", tmp_path / "first", *words) == 0
    calm = config(episodes=4, seed=0)
    evaluate(calm, Hashed(), tmp_path / "calm")
    assert outcomes(tmp_path / "first") != outcomes(tmp_path / "calm")
    capsys.readouterr()
    assert vla_eval("--repeat", tmp_path / "first", "--env", ENV, "--out", tmp_path / "second") == 0
    assert "4 of 4 episodes came out the same" in capsys.readouterr().out
    assert outcomes(tmp_path / "second") == outcomes(tmp_path / "first")
    assert read_results(tmp_path / "second")["settings"]["perturb"]["latency"] == "150ms"


def test_a_suite_is_repeated_part_by_part(tmp_path, capsys):
    words = ("--env", ENV, *SMALL, "--suite", "robustness", "--perturb", "noise", "--out", tmp_path / "first")
    assert vla_eval(*words) == 0
    changed = part_folder(tmp_path / "first", "noise", "strong") / "results.json"
    data = read_results(changed)
    data["episodes_detail"][1]["steps"] += 1
    changed.write_text(json.dumps(data), encoding="utf-8")
    capsys.readouterr()
    for _ in range(2):  # a second repetition plays, too
        assert vla_eval("--repeat", tmp_path / "first", "--env", ENV, "--out", tmp_path / "second") == 0
        printed = capsys.readouterr().out
        assert "4 of 4 episodes came out the same" in printed
        assert "noise mild: 4 of 4 episodes" in printed and "noise strong: 3 of 4 episodes" in printed
    parts = read_results(tmp_path / "second")["repeat"]["parts"]
    assert list(parts["noise strong"]["differing"][0]["changes"]) == ["steps"]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--suite", "robustness", "--check"), "--suite does not go with --check"),
        (("--suite", "robustness", "--preview"), "--suite does not go with --preview"),
        (("--suite", "robustness", "--perturb", "noise=mild"), "name the axes alone"),
        (("--perturb", "nois"), "did you mean 'noise'?"),
        (("--perturb", "camera"), "cannot do the perturbation 'camera'; it can do state, latency, noise"),
    ],
)
def test_what_makes_no_sense_is_refused_before_anything_is_played(tmp_path, capsys, words, said):
    assert vla_eval("--env", ENV, "--out", tmp_path / "out", *words) == 2
    error = capsys.readouterr().err
    assert said in error and error.count("\n") == 1
    assert not (tmp_path / "out").exists()


def test_the_suite_has_a_part_for_each_delay_of_the_curve():
    assert plan(["camera"]) == {"camera": ["mild", "medium", "strong"]}
    assert plan(["latency"]) == {"latency": ["mild", "medium", "strong", "400ms"]}


def test_the_retained_share_and_its_interval():
    base = [True] * 8 + [False] * 2
    found = retained_share(base, [[True] * 4 + [False] * 6, [True] * 8 + [False] * 2])
    assert found.rate == pytest.approx(0.6 / 0.8) and found.n == 10
    assert 0.5 <= found.low < 0.75 < found.high <= 1.0
    same = retained_share(base, [base])
    assert (same.rate, same.low, same.high) == (1.0, 1.0, 1.0)
    lucky = retained_share([True, False, False, False], [[True, True, False, False]])
    assert lucky.rate == lucky.high == 1.0, "twice as many are no 200 % that were retained"
    for wrong in (([False], [[True]]), ([True], []), ([True], [[True, True]])):
        with pytest.raises(ValueError, match="retained_share"):
            retained_share(*wrong)


# --- the picture sheet -----------------------------------------------------------------------------------------------


def test_the_preview_draws_and_plays_nothing(tmp_path, monkeypatch, capsys):
    def no_agent(*args):
        raise AssertionError("a preview needs no agent")

    def counted(*args):
        nonlocal drawn
        drawn += 1
        return tile(*args)

    monkeypatch.setattr(eval_command, "_load_agent", no_agent)
    tile, drawn, sizes = preview._tile, 0, []
    monkeypatch.setattr(preview, "_tile", counted)
    for words in ((), ("--perturb", "noise=strong,state")):
        assert vla_eval("--env", ENV, "--preview", "--out", tmp_path, *words) == 0
        data = (tmp_path / "preview.png").read_bytes()
        assert data[:8] == b"\x89PNG\r\n\x1a\n"
        sizes.append(struct.unpack(">II", data[16:24]))
    assert sizes[0][0] == sizes[1][0] and sizes[0][1] < sizes[1][1], "three axes; two, none and both together"
    assert drawn == 1 + 3 * 3 + 4 * 4, (
        "the episode as it is, once; and 3 axes at 3 strengths; then 4 rows of 4 episodes"
    )
    assert [path.name for path in tmp_path.iterdir()] == ["preview.png"]
    assert "picture sheet:" in capsys.readouterr().out


def test_the_previews_tiles_are_what_the_policy_sees():
    from vla.eval.preview import _tile

    env, request = DotEnv(), config().requests()[0]
    calm, noisy, moved, late = (
        _tile(env, harder, request) for harder in ({}, {"noise": "mild"}, {"state": "strong"}, {"latency": "strong"})
    )
    assert calm.picture.shape == (32, 64, 3) and calm.played == ()
    assert wording.words("bystander_force_n") == "force on what was not asked for (N)"
    assert 0 < np.abs(calm.picture.astype(int) - noisy.picture).mean() < 10 and "5 % of frames" in noisy.caption
    assert (calm.picture != moved.picture).any()
    assert (late.picture == calm.picture).all() and late.played[0] == -1 and set(late.played[1:]) >= {0, 1, 2}
