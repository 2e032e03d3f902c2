"""What a person sees of an episode: the film with its caption, the letters in it, and why it failed."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rich.console import Console

from envs.tidy_desk import goals, instructions
from tests.acting import ENV, DotAgent
from tests.fake_env import DotEnv
from vla.contracts import episode_seed
from vla.contracts.abilities import Shortfall
from vla.eval.config import EvalConfig
from vla.eval.evaluate import evaluate
from vla.eval.folder import read_results
from vla.eval.pages.report import render
from vla.eval.table import print_table
from vla.host import lettering
from vla.host.video import HEIGHT, WIDTH, Film
from vla.rollout.loop import EpisodeRequest, run_episodes


def frames_of(video: bytes) -> list[np.ndarray]:
    import av

    with av.open(io.BytesIO(video)) as container:
        return [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]


def drawn(text: str, size: int = 20) -> np.ndarray:
    from PIL import Image, ImageDraw

    picture = Image.new("RGB", (lettering.width_of(text, size) + 4, size + 8))
    lettering.draw(ImageDraw.Draw(picture), 0, 0, text, size, (255, 255, 255))
    return np.asarray(picture)


def test_every_letter_of_our_sentences_can_be_drawn() -> None:
    rng, text = np.random.default_rng(0), ""
    for goal in (goals.Goal("all"), *(goals.Goal("category", c) for c in goals.CATEGORIES)):
        text += "".join(instructions.write(goal, "zh", split, rng) for split in goals.SPLITS for _ in range(150))
    for noun in goals.NOUNS:
        text += "".join(goals.sub_instruction(color, noun, "zh") for color in goals.COLORS)
    box = drawn("\u4e02")  # an old character that the font lacks
    assert box.any()
    for char in sorted({*text, *"下一步正送到拿着并未要求的都已放好"} - {" "}):
        assert drawn(char).any() and (drawn(char).shape != box.shape or (drawn(char) != box).any()), char


def test_lines_are_broken_between_words_and_anywhere_in_chinese() -> None:
    lines = lettering.wrap("put the red pen in the tray and then the blue one", 200, 19, 9)
    assert len(lines) == 3 and " ".join(lines) == "put the red pen in the tray and then the blue one"
    assert all(lettering.width_of(line, 19) <= 200 for line in lines)
    chinese = lettering.wrap("请把桌面上所有的笔放进笔盘，谢谢你", 120, 19, 9)
    assert len(chinese) == 3 and not any(line[0] in "，。" for line in chinese)
    assert lettering.wrap("a" * 300, 200, 19, 2)[1].endswith("…") and lettering.wrap("", 200, 19, 2) == [""]
    assert lettering.wrap("red\x1b[31m\n\npen \udcff", 400, 19, 1) == ["red\\x1b[31m pen \\udcff"]


@pytest.mark.parametrize("sentence", ["visit the red dot", "走到红点", "[/red]\x1b[31m\u202e🙂 " + "long " * 80, ""])
def test_the_caption_is_burnt_in(sentence: str) -> None:
    env = DotEnv()
    env.reset(seed=1)
    film = Film(env, 0.1, sentence)
    for _ in range(5):
        film.look()
    frames = frames_of(film.encode("✗ dropped: the red pen was dropped", success=False))
    assert frames[0].shape[1] == WIDTH and frames[0].shape[0] % 2 == 0
    assert len(frames) == 3 + 20  # one at the start, two at every other step, and two seconds of the last
    strip = frames[0].shape[0] - HEIGHT
    caption = frames[0][:strip]
    assert (caption.max(axis=2) > 150).mean() > (0.006 if sentence else 0.001)
    before, after = (frame[strip + 2 : strip + 20].astype(int) for frame in (frames[0], frames[-1]))
    assert (before[..., 1] > 120).mean() > 0.9 and ((after[..., 0] > 120) & (after[..., 1] < 100)).mean() > 0.5


class Blind(DotEnv):
    """A DotEnv without a picture for people, which is no env that explains itself either."""

    film = None  # type: ignore[assignment]

    def __getattribute__(self, name: str) -> Any:
        if name == "film":
            raise AttributeError(name)
        return super().__getattribute__(name)


class Telling(DotEnv):
    """A DotEnv that says what goes on, and breaks in episodes with an odd seed."""

    def reset(self, *, seed=None, options=None):
        self.seed = seed
        return super().reset(seed=seed, options=options)

    def play(self, action):
        if self.seed % 2 and self._steps == 4:
            raise ZeroDivisionError("the simulator [/red] fell over")
        return super().play(action)

    def doing(self) -> str:
        if self.seed % 2 and self._steps == 4:
            raise ZeroDivisionError
        return "going nowhere"

    def shortfall(self) -> Shortfall:
        return Shortfall("wrong item", "visited the blue dot, which was not asked for")


class Idle(DotAgent):
    """Stays where it is."""

    def _act(self, observation, seed):
        chunk = super()._act(observation, seed)
        chunk.actions[:] = [*observation.state[:2], 1.0]
        return chunk


def play(env: str, agent: DotAgent, count: int = 2) -> list[Any]:
    episodes = [EpisodeRequest(i, episode_seed("evaluate", 0, i), {"kind": "named"}) for i in range(count)]
    return run_episodes(env, agent, episodes, slots=1, record_frames=count)


def test_a_failure_says_why_and_a_success_nothing() -> None:
    good = play(ENV, DotAgent(), 1)[0]
    assert good.success and (good.reason, good.why) == ("", "")
    bad = play(ENV, Idle(), 1)[0]
    assert (bad.reason, bad.why) == ("ran out of time", "6.0 s were over, without success")
    told, broken = play("tests.test_video:Telling", Idle())
    assert (told.reason, told.why) == ("wrong item", "visited the blue dot, which was not asked for")
    assert broken.reason == "error" and "fell over" in broken.why and broken.why == broken.error
    assert all(len(frames_of(one.video)) > 20 for one in (good, bad, told, broken))


def test_results_table_and_report_tell_the_reasons(tmp_path: Path) -> None:
    asked = EvalConfig("tests.test_video:Telling", episodes=4, kind="named", videos=2, slots=2)
    summary = evaluate(asked, Idle(), tmp_path)
    assert summary["failures"] == {"wrong item": 2, "error": 2}
    assert [e["reason"] for e in read_results(tmp_path)["episodes_detail"]] == ["wrong item", "error"] * 2
    page = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert "What went wrong" in page and page.count("<video") == 2
    assert page.count("visited the blue dot, which was not asked for") >= 3, "in the list, a film's caption, the table"
    assert "[/red] fell over" in page
    text = io.StringIO()
    print_table(Console(file=text, width=200), summary)
    assert "failures: 2 × wrong item, 2 × error" in text.getvalue()
    told = dict(summary, instruction="x", failures={"<b>\x1b[31m": 1}, suite={"state": {"mild": summary["success"]}})
    told |= {"retained": None, "suite_failures": {"state": {"mild": {"<i>dropped": 3}}}}
    shown = render(told, [])
    assert "3 × &lt;i&gt;dropped" in shown and "&lt;b&gt;\\x1b[31m" in shown and "\x1b" not in shown


def test_an_env_without_a_picture_for_people_shows_its_camera() -> None:
    env = Blind(cameras_px=48)
    env.reset(seed=1)
    picture = frames_of(Film(env, 0.1, "visit the red dot").encode())[0]
    scene = picture[-HEIGHT:]
    assert (scene[:, :70] < 40).all() and scene[HEIGHT // 2, WIDTH // 2].max() > 100


def test_the_desk_says_what_went_wrong() -> None:
    from envs.tidy_desk.task import TidyDesk
    from vla.contracts.abilities import Explains, Films

    desk = TidyDesk()
    assert isinstance(desk, Films) and isinstance(desk, Explains)

    def begin(sentence: str = "put the red pen in the tray") -> tuple[int, int]:
        desk.reset(seed=3, options={"instruction": sentence})
        return 0, next(i for i, asked in enumerate(desk.scene.asked) if not asked)

    def put(index: int, x: float, y: float) -> Shortfall:
        at = desk.tabletop.model.joint(desk.scene.placed[index].item.name).qposadr[0]
        desk.tabletop.data.qpos[at : at + 3] = x, y, 0.02
        desk.tabletop.settle(0.0)
        desk.scene.look()
        return desk.shortfall()

    pen, other = begin()
    assert desk.doing() == "next: put the red pen in the pen tray · 0 of 1 in place"
    assert desk.shortfall() == Shortfall("ran out of time", "the red pen was never touched")
    waste, tray = desk.scene.receptacles["waste"], desk.scene.receptacles["pens"]
    assert put(pen, waste.x, waste.y) == Shortfall("wrong place", "the red pen lies in the waste bin")
    x, y = tray.world(0.0, tray.outside[1] + 0.03)
    assert put(pen, x, y) == Shortfall("beside its place", "the red pen lies 3 cm beside the pen tray")
    desk.scene.gripped.add(pen)
    far = put(pen, 0.25, 0.6)
    assert far.reason == "dropped" and far.detail.startswith("the red pen was dropped ")
    name = desk.scene.placed[other].item.name
    pushed = put(other, 0.25, -0.6)
    assert pushed.reason == "touched something else" and pushed.detail.startswith(f"pushed the {name} ")
    desk.scene.gripped.add(other)
    assert desk.shortfall() == Shortfall("wrong item", f"picked up the {name}, which was not asked for")
    begin("把红色的笔放进笔盘")
    assert desk.doing() == "下一步：把红色的笔放进笔盘 · 0/1"
    desk.scene.held = pen
    assert desk.doing() == "正把红色笔送到笔盘 · 0/1"
    assert desk.shortfall() == Shortfall("ran out of time", "the red pen was still in the grip")
    desk.scene.held = other
    assert desk.doing().endswith("，并未要求 · 0/1")
    desk.close()
