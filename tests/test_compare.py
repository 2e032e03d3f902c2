"""``vla compare``: paired figures, refusals with both sides, one page."""

import copy
import json
import re

import numpy as np
import pytest

from tests.acting import ENV, DotAgent
from vla import cli
from vla.commands import eval as eval_command
from vla.contracts import VlaError
from vla.eval.comparable import Run, load_runs, require_shared
from vla.eval.compare import compare_runs, placed_share
from vla.eval.config import EvalConfig
from vla.eval.evaluate import evaluate
from vla.eval.folder import read_results
from vla.eval.pages.compare import render


class HalfBlind(DotAgent):
    """Does not see red: it fails where red is asked for."""

    name = "half_blind"

    @staticmethod
    def _asked(sentence):
        return [name for name in DotAgent._asked(sentence) if name != "red"]


def evaluated(folder, agent=None, **more):
    evaluate(EvalConfig(**{"env": ENV, "episodes": 12, "videos": 0, **more}), agent or DotAgent(), folder)
    return folder


@pytest.fixture(scope="module")
def two(tmp_path_factory):
    """The folders of a good run and of one that does not see red, on the same episodes."""
    root = tmp_path_factory.mktemp("runs")
    return evaluated(root / "good"), evaluated(root / "half", HalfBlind())


def changed(folder, to, **more):
    """A copy of a run's results with some keys replaced."""
    data = read_results(folder)
    for name, value in more.items():
        *inner, last = name.split("__")
        place = data
        for key in inner:
            place = place[key]
        place[last] = value
    to.mkdir(exist_ok=True)
    (to / "results.json").write_text(json.dumps(data), encoding="utf-8")
    return to


def test_the_figures_are_paired_with_the_first_run(two):
    found = compare_runs(load_runs(two))
    good, half = (json.loads((folder / "results.json").read_text())["episodes_detail"] for folder in two)
    assert all(e["success"] for e in good)
    failed = [e for e in half if not e["success"]]
    assert 0 < len(failed) < 12
    (one,) = found["against_first"]
    assert one["success"]["difference"] == pytest.approx(-len(failed) / 12, abs=1e-4)
    assert (one["success"]["only_this"], one["success"]["only_other"]) == (0, len(failed))
    assert one["success"]["p_value"] == pytest.approx(2 / 2 ** len(failed), rel=1e-3)
    assert one["success"]["low"] < one["success"]["difference"] < one["success"]["high"]
    lost = [placed_share(b) - placed_share(a) for a, b in zip(good, half, strict=True)]
    assert one["placed"]["difference"] == pytest.approx(np.mean(lost), abs=1e-4)
    assert one["placed"]["low"] < np.mean(lost) < one["placed"]["high"]
    assert [e["seed"] for e in found["differing"]] == [e["seed"] for e in failed]
    assert all(e["success"] == [True, False] for e in found["differing"])
    for field in ("kind", "language"):
        groups = one["by"][field]
        assert sum(group["n"] for group in groups.values()) == 12
        assert sum(group["only_other"] for group in groups.values()) == len(failed)
    assert found["runs"][0]["success"] == {"rate": 1.0, "low": pytest.approx(0.7575, abs=1e-3), "high": 1.0, "n": 12}
    assert found["warnings"] == []


def test_the_order_within_a_file_does_not_matter(two, tmp_path):
    data = read_results(two[1])
    shuffled = changed(two[1], tmp_path / "shuffled", episodes_detail=data["episodes_detail"][::-1])
    one, other = (compare_runs(load_runs([two[0], run])) for run in (two[1], shuffled))
    assert one["against_first"][0]["success"] == other["against_first"][0]["success"]


def test_several_runs_are_each_compared_with_the_first(two):
    found = compare_runs(load_runs([two[0], two[1], two[0]]))
    half, same = found["against_first"]
    assert same["success"]["difference"] == 0 and same["success"]["p_value"] == 1
    assert same["placed"] == {"difference": 0, "low": None, "high": None, "n": 12}
    assert half["success"]["p_holm"] == pytest.approx(min(1, 2 * half["success"]["p_value"]), rel=1e-3)
    assert len(found["differing"][0]["success"]) == 3
    assert "no interval" in render(found) and "p, Holm" in render(found)


@pytest.mark.parametrize(
    ("change", "name", "first", "other"),
    [
        ({"env": "dot_two", "settings__env": "dot_two"}, "env", ENV, "dot_two"),
        ({"split": "train", "settings__split": "train"}, "split", "heldout", "train"),
        ({"settings__kind": "named"}, "kind", "the env's own", "named"),
        ({"settings__instruction": "visit the red dot"}, "instruction", "the env's own", "visit the red dot"),
        ({"items": 3, "settings__items": 3}, "items", "the env's own", "3"),
        ({"seed": 4, "settings__seed": 4}, "seed", "0", "4"),
        ({"env_spec__dt": 0.2}, "env's dt", "0.1", "0.2"),
        ({"env_spec__episode_steps": 99}, "env's episode_steps", "60", "99"),
    ],
)
def test_other_episodes_are_refused_with_both_sides(two, tmp_path, change, name, first, other):
    odd = changed(two[1], tmp_path / "odd", **change)
    with pytest.raises(VlaError) as caught:
        compare_runs(load_runs([two[0], odd]))
    text = str(caught.value)
    assert text.startswith(f"{two[0]} and {odd} can't be compared: they differ in {name}\n")
    assert re.search(rf"{two[0]}: +{re.escape(first)}\n +{odd}: +{re.escape(other)}$", text, re.MULTILINE)


def test_other_seeds_and_another_scene_for_the_same_seed_are_refused(two, tmp_path):
    episodes = json.loads((two[1] / "results.json").read_text())["episodes_detail"]
    for change, said in (
        (
            {"episodes_detail": episodes[:5], "interrupted": "interrupted; 5 of 12"},
            r"5 episodes, .*\(interrupted; 5 of",
        ),
        ({"episodes_detail": [{**e, "instruction": "dance"} for e in episodes]}, "instruction of seed 2147483648"),
        ({"episodes_detail": [{**e, "items": e["items"][:1]} for e in episodes]}, r"items of seed 2147483648 \(\*"),
    ):
        odd = changed(two[1], tmp_path / "odd", **change)
        with pytest.raises(VlaError, match=said):
            compare_runs(load_runs([two[0], odd]))


def test_what_does_not_forbid_a_comparison_is_noted(two, tmp_path):
    data = read_results(two[1])
    odd = changed(two[1], tmp_path / "odd", env_code_hash="0123", versions__numpy="1.0", execute=4, workers=7)
    code, versions = compare_runs(load_runs([two[0], odd]))["warnings"]
    assert "the env's code differs" in code and "0123 at commit" in code
    assert f"numpy {data['versions']['numpy']} / 1.0" in versions
    old = {name: value for name, value in data.items() if name not in ("settings", "env_spec", "env_code_hash")}
    (tmp_path / "old.json").write_text(json.dumps(old))
    (note,) = compare_runs(load_runs([two[0], tmp_path / "old.json"]))["warnings"]
    assert "older file without its settings" in note
    same = [changed(two[0], tmp_path / name, agent_hash="abc") for name in ("one", "two")]
    assert "the same agent" in compare_runs(load_runs(same))["warnings"][0]


def test_the_page_is_one_file_and_escapes_what_it_shows(two, tmp_path):
    first = changed(two[0], tmp_path / "<b>", agent="<i>")
    html = render(compare_runs(load_runs([first, two[1]]), "vla compare '<b>'"))
    assert "<b>/" not in html and "&lt;i&gt;" in html and "vla compare &#x27;&lt;b&gt;" in html
    assert not re.search(r"(src|href)\s*=|http|url\(", html)
    assert html.count("<svg") == 2 + 2 + 2  # success, differences, strips
    for text in ("McNemar", "By kind", "By language", "Episode by episode", "episodes with another outcome"):
        assert text in html


def test_compare_on_the_command_line(two, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert cli.main(["compare", str(two[0]), str(two[1] / "results.json"), "--out", "out"]) == 0
    printed = capsys.readouterr().out
    for text in (
        "half_blind",
        "95 % interval",
        "points (95 % interval)",
        "McNemar",
        "came out differently",
        "page: out",
    ):
        assert text in printed
    written = json.loads((tmp_path / "out" / "compare.json").read_text(encoding="utf-8"))
    assert [run["label"] for run in written["runs"]] == [str(folder) for folder in two]
    assert (tmp_path / "out" / "compare.html").read_text(encoding="utf-8").startswith("<!doctype html>")


def test_a_users_mistakes_are_one_line(two, tmp_path, capsys):
    good = read_results(two[0])
    episode = good["episodes_detail"][0]
    (tmp_path / "empty").mkdir()
    for name, content, said in (
        ("empty", None, "there is no"),
        ("missing", None, "there is no"),
        ("cut.json", json.dumps(good)[:500], "is damaged"),
        ("latin.json", b"\xff\xfe{", "is damaged"),
        ("list.json", "[1]", "should hold an object, and holds a list"),
        ("other.json", "{}", "'env' is missing"),
        ("none.json", json.dumps({**good, "episodes_detail": []}), "'episodes_detail' is empty"),
        (
            "odd.json",
            json.dumps({**good, "episodes_detail": [{**episode, "success": "yes"}]}),
            "'success' of episode 0",
        ),
        ("items.json", json.dumps({**good, "episodes_detail": [{**episode, "items": [1]}]}), "'items' of episode 0"),
        ("set.json", json.dumps({**good, "settings": [1]}), "'settings' is no object"),
        ("new.json", json.dumps({**good, "format_version": 9}), "has format 9; this version reads 1"),
    ):
        if content is not None:
            (tmp_path / name).write_bytes(content if isinstance(content, bytes) else content.encode())
        assert cli.main(["compare", str(two[0]), str(tmp_path / name), "--out", str(tmp_path / "out")]) == 2
        error = capsys.readouterr().err
        assert said in error and name in error and error.count("\n") == 1, error
    assert cli.main(["compare", str(two[0])]) == 2
    assert "at least two runs" in capsys.readouterr().err
    (tmp_path / "file").write_text("")
    assert cli.main(["compare", *map(str, two), "--out", str(tmp_path / "file")]) == 2
    assert "can't be written" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_against_other_episodes_is_told_before_anything_is_played(two, tmp_path):
    class Unasked(DotAgent):
        def act_batch(self, observations, noise_seeds):
            raise AssertionError("was asked to play")

    for more, said in (
        ({"seed": 5}, "seeds\n"),
        ({"items": 3}, "items\n"),
        ({"language": "zh", "split": "train"}, "split, language\n"),
    ):
        config = EvalConfig(env=ENV, episodes=2, videos=0, **more)
        with pytest.raises(VlaError, match=f"share no episode: they differ in {said}"):
            evaluate(config, Unasked(), tmp_path / "out", against=two[0])
    with pytest.raises(
        VlaError, match=r"(?s)share not all episodes: they differ in seeds.*this run: +50 .*12 episodes"
    ):
        evaluate(EvalConfig(env=ENV, episodes=50, videos=0), Unasked(), tmp_path / "out", against=two[0])
    require_shared({"env": ENV, "split": "heldout"}, [2147483648], Run("x", load_runs(two)[0].data).data, "x")


def test_comparing_changes_nothing_that_it_was_given(two):
    runs = load_runs(two)
    before = copy.deepcopy([run.data for run in runs])
    render(compare_runs(runs))
    assert [run.data for run in runs] == before


def test_a_comparison_of_what_the_command_line_evaluated(tmp_path, monkeypatch, capsys):
    agents = iter([DotAgent(), HalfBlind()])
    monkeypatch.setattr(eval_command, "_load_agent", lambda *args: next(agents))
    for name in ("a", "b"):
        words = ["eval", "--env", ENV, "--episodes", "4", "--workers", "1", "--videos", "0", "--kind", "all"]
        assert cli.main([*words, "--items", "4", "--out", str(tmp_path / name)]) == 0
    assert cli.main(["compare", str(tmp_path / "a"), str(tmp_path / "b"), "--out", str(tmp_path / "c")]) == 0
    assert "4 of 4 episodes came out differently" in capsys.readouterr().out
    assert json.loads((tmp_path / "c" / "compare.json").read_text())["settings"]["kind"] == "all"


def test_no_difference_of_shares_is_beyond_all_of_them(tmp_path):
    def run(label, placed):
        made = [
            {"index": i, "seed": i, "instruction": "", "language": "en", "kind": "named", "category": "",
             "success": bool(p), "progress": float(p), "steps": 1, "items": []} for i, p in enumerate(placed)
        ]  # fmt: skip
        return Run(label, {"env": "e", "agent": "a", "seed": 0, "split": "heldout", "episodes_detail": made})

    placed = compare_runs([run("a", [1, 1, 1]), run("b", [0, 0, 1])])["against_first"][0]["placed"]
    assert placed["low"] == -1.0 and placed["difference"] == pytest.approx(-0.6667)
