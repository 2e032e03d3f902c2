import argparse
import json
import re

import numpy as np
import pytest

from tests.acting import ENV, DotAgent
from vla.commands import eval as eval_command
from vla.contracts import VlaError, episode_seed
from vla.eval.checks import ShuffledInstruction
from vla.eval.compare import compare_shared
from vla.eval.config import EvalConfig
from vla.eval.evaluate import _choose_videos, evaluate
from vla.eval.folder import read_results
from vla.eval.table import print_table
from vla.rollout.loop import EpisodeResult, RolloutInterrupted


def config(**more):
    return EvalConfig(**{"env": ENV, "episodes": 8, "slots": 4, "videos": 2, **more})


def test_results_json_has_what_was_promised(tmp_path):
    summary = evaluate(config(), DotAgent(), tmp_path / "out", command="vla eval --env dot")
    written = json.loads((tmp_path / "out" / "results.json").read_text(encoding="utf-8"))
    assert len(written.pop("content_hash")) == 16
    assert written == json.loads(json.dumps(summary)) == read_results(tmp_path / "out")
    promised = "env agent policy episodes seed split success progress by policy_hz env_steps_per_s wall_s command"
    assert set(promised.split()) <= set(written)
    assert {"versions", "episodes_detail"} <= set(written)
    assert set(written["success"]) == {"rate", "low", "high", "n"}
    assert written["success"]["rate"] == 1.0
    assert written["success"]["low"] == pytest.approx(8 / (8 + 1.96**2), abs=1e-4)
    assert written["progress"] == {"mean": 1.0}
    assert set(written["by"]) == {"language", "kind", "category"}
    assert sum(group["success"]["n"] for group in written["by"]["language"].values()) == 8
    assert sum(group["success"]["n"] for group in written["by"]["kind"].values()) == 8
    assert "" not in written["by"]["category"]
    assert {"seed", "instruction", "language", "success", "progress", "steps"} <= set(written["episodes_detail"][0])
    assert written["policy_hz"] > 0
    assert written["agent_hash"] is None
    assert written["recipe"] == "by hand"


def test_seeds_come_from_the_evaluation_stream(tmp_path):
    summary = evaluate(config(episodes=3, seed=7, videos=0), DotAgent(), tmp_path)
    assert [e["seed"] for e in summary["episodes_detail"]] == [episode_seed("evaluate", 7, i) for i in range(3)]


def test_options_reach_the_env(tmp_path):
    wanted = config(episodes=3, language="zh", kind="named", items=4, split="train", videos=0)
    assert wanted.requests()[0].options == {"split": "train", "language": "zh", "kind": "named", "items": 4}
    detail = evaluate(wanted, DotAgent(), tmp_path)["episodes_detail"]
    assert {(e["language"], e["kind"], len(e["items"])) for e in detail} == {("zh", "named", 4)}
    own = evaluate(config(episodes=2, instruction="visit the red dot", videos=0), DotAgent(), tmp_path)
    assert {e["instruction"] for e in own["episodes_detail"]} == {"visit the red dot"}


def test_the_report_is_one_file_with_videos_inside(tmp_path):
    evaluate(config(), DotAgent(), tmp_path, command="vla eval --env dot --instruction '<b>'")
    html = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert html.count("data:video/mp4;base64,") == 2
    sources = re.findall(r"""(?:src|href)\s*=\s*["']([^"']{0,30})""", html) + re.findall(r"url\(([^)]*)", html)
    assert sources
    assert all(source.startswith("data:") for source in sources)
    assert "http" not in re.sub(r"base64,[A-Za-z0-9+/=]+", "", html)
    assert "--instruction &#x27;&lt;b&gt;&#x27;" in html
    assert "McNemar" not in html
    videos = sorted(path.name for path in (tmp_path / "videos").iterdir())
    assert len(videos) == 2
    assert videos[0] == "episode_0000_success.mp4"


def test_an_earlier_evaluation_is_replaced_and_other_files_are_left_alone(tmp_path):
    evaluate(config(), DotAgent(), tmp_path)
    (tmp_path / "videos" / "holiday.mp4").write_bytes(b"mine")
    (tmp_path / "videos" / "episode_0077_failure.mp4").write_bytes(b"stale")
    (tmp_path / "notes.txt").write_text("mine")
    evaluate(config(episodes=2, seed=1, videos=0), DotAgent(), tmp_path)
    assert read_results(tmp_path)["episodes"] == 2
    assert [path.name for path in (tmp_path / "videos").iterdir()] == ["holiday.mp4"]
    assert {path.name for path in tmp_path.iterdir()} == {"notes.txt", "results.json", "report.html", "videos"}


def test_the_three_checks_tell_a_reader_from_a_blind_agent(tmp_path):
    wanted = config(env="tests.acting:SwapDotEnv", kind="named", items=3, check=6, videos=0)
    checks = evaluate(wanted, DotAgent(), tmp_path)["checks"]
    assert checks["blank_image"]["success"]["rate"] == 0.0
    assert checks["blank_image"]["reference"]["rate"] == 1.0
    assert checks["shuffled_instruction"]["success"]["rate"] < 0.5
    assert checks["swapped_item"]["moved_named"]["rate"] == 1.0
    assert checks["swapped_item"]["moved_original"]["rate"] == 0.0
    assert "Does it see and read?" in (tmp_path / "report.html").read_text(encoding="utf-8")

    class Deaf(DotAgent):
        """Goes to the dots in a fixed order, whatever the sentence says."""

        @staticmethod
        def _asked(sentence):
            return ["red", "green", "blue", "yellow"]

    deaf = evaluate(wanted, Deaf(), tmp_path)["checks"]
    # The sentence changes nothing for it: what it did with its own it does with a foreign one.
    assert deaf["shuffled_instruction"]["success"] == deaf["shuffled_instruction"]["reference"]
    assert deaf["swapped_item"]["moved_named"]["rate"] < 1.0 or deaf["swapped_item"]["moved_original"]["rate"] > 0


def test_an_env_that_cannot_swap_has_the_other_two_checks(tmp_path):
    checks = evaluate(config(kind="named", items=3, check=4, videos=0), DotAgent(), tmp_path)["checks"]
    assert checks["swapped_item"]["skipped"] == "the env has no sentence_for(item)"
    assert "blank_image" in checks
    assert "Left out: the env has no sentence_for" in (tmp_path / "report.html").read_text(encoding="utf-8")


def test_shuffled_instructions_always_have_another_goal():
    def result(index, kind, name, sentence):
        items = [{"name": name, "category": "pens", "asked": True, "placed": False}]
        return EpisodeResult(index, index, sentence, "en", kind, "pens", "heldout", items=items)

    results = [
        result(0, "named", "red pen", "put the red pen away"),
        result(1, "named", "red pen", "the red pen, please"),
        result(2, "named", "blue pen", "put the blue pen away"),
    ]
    assert ShuffledInstruction(results).sentences == {
        0: "put the blue pen away",
        1: "put the blue pen away",
        2: "put the red pen away",
    }
    assert ShuffledInstruction(results[:2]).sentences == {}


def test_two_runs_are_compared_on_shared_episodes(tmp_path):
    evaluate(config(kind="named", videos=0), DotAgent(), tmp_path / "good")

    class Blind(DotAgent):
        name = "blind"

        def act_batch(self, observations, noise_seeds):
            for observation in observations:
                observation.images = {name: np.zeros_like(image) for name, image in observation.images.items()}
            return super().act_batch(observations, noise_seeds)

    summary = evaluate(config(kind="named", videos=0), Blind(), tmp_path / "bad", against=tmp_path / "good")
    assert summary["against"]["agent"] == "dot_agent"
    assert (summary["against"]["difference"], summary["against"]["only_other"], summary["against"]["n"]) == (-1.0, 8, 8)
    assert "Against dot_agent" in (tmp_path / "bad" / "report.html").read_text(encoding="utf-8")
    other = read_results(tmp_path / "good")
    other["episodes_detail"] = [{**e, "seed": -1} for e in other["episodes_detail"]]
    with pytest.raises(VlaError, match="share no episode"):
        compare_shared(summary, other)


def test_a_broken_results_file_to_compare_with_is_told_before_anything_is_played(tmp_path):
    (tmp_path / "results.json").write_text("{}")
    with pytest.raises(VlaError, match=r"no results\.json of vla eval"):
        evaluate(config(), DotAgent(), tmp_path / "out", against=tmp_path)


def test_an_interrupted_evaluation_keeps_its_episodes(tmp_path):
    class Impatient(DotAgent):
        def act_batch(self, observations, noise_seeds):
            chunks = super().act_batch(observations, noise_seeds)
            if len(self.batches) == 30:
                raise KeyboardInterrupt
            return chunks

    with pytest.raises(RolloutInterrupted, match=r"results\.json"):
        evaluate(config(kind="named", slots=1, videos=0, execute=4, episodes=20), Impatient(), tmp_path)
    kept = read_results(tmp_path)
    assert kept["interrupted"].startswith("interrupted;")
    assert 0 < kept["episodes"] == kept["success"]["n"] < 20


def test_videos_show_both_outcomes_where_there_are_both():
    def filmed(index, success):
        return EpisodeResult(index, index, "", "en", "all", "", "heldout", success=success, video=b"x")

    def chosen(successes, failures, count):
        results = [filmed(i, i < successes) for i in range(successes + failures)]
        shown = _choose_videos(results, count)
        return sum(one.success for one in shown), sum(not one.success for one in shown)

    assert chosen(10, 2, 6) == (4, 2)
    assert chosen(2, 10, 6) == (2, 4)
    assert chosen(10, 10, 6) == (3, 3)
    assert chosen(12, 0, 6) == (6, 0)
    assert chosen(1, 1, 6) == (1, 1)
    assert chosen(5, 5, 1) in {(1, 0), (0, 1)}
    assert chosen(5, 5, 0) == (0, 0)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"episodes": 0}, "--episodes must be at least 1"),
        ({"workers": 0}, "--workers must be at least 1"),
        ({"check": 3, "instruction": "tidy up"}, "leave out --instruction"),
    ],
)
def test_impossible_settings_are_refused(wrong, message):
    with pytest.raises(VlaError, match=message):
        config(**wrong)


def test_an_out_folder_that_is_a_file_is_refused_at_once(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(VlaError, match="can't be written"):
        evaluate(config(), DotAgent(), tmp_path / "file")


def parse(*words):
    parser = argparse.ArgumentParser()
    eval_command.add_arguments(parser)
    return parser.parse_args(words)


def test_the_command_is_written_down_so_that_it_can_be_repeated():
    assert eval_command.command_line(parse("--env", "tidy_desk")) == "vla eval --env tidy_desk"
    text = eval_command.command_line(parse("--env", "tidy_desk", "--instruction", "请整理桌面 now", "--check"))
    assert text == "vla eval --env tidy_desk --instruction '请整理桌面 now' --check 20"


def test_the_command_prints_a_table_and_returns_0(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(eval_command, "_load_agent", lambda *args: DotAgent())
    args = parse("--env", ENV, "--episodes", "3", "--workers", "1", "--videos", "0", "--out", str(tmp_path))
    assert eval_command.run(args, []) == 0
    printed = capsys.readouterr().out
    for text in ("dot_agent on", "all episodes", "95 % interval", "policy decisions a second", "report.html"):
        assert text in printed
    with pytest.raises(VlaError, match="takes no '--epizodes'"):
        eval_command.run(args, ["--epizodes"])


def test_cut_short_episodes_are_told(capsys):
    from rich.console import Console

    rate = {"rate": 0.0, "low": 0.0, "high": 0.8, "n": 1}
    summary = {
        "agent": "a",
        "env": "e",
        "split": "heldout",
        "success": rate,
        "progress": {"mean": 0.0},
        "by": {"kind": {}, "language": {}, "category": {}},
        "policy_hz": 1,
        "env_steps_per_s": 1,
        "realtime_factor": 1,
        "cut_short": 1,
        "episodes_detail": [{"error": "the policy gave NaN"}],
    }
    print_table(Console(), summary)
    assert "1 episodes were cut short, e.g.: the policy gave NaN" in capsys.readouterr().out
