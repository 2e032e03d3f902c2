"""What an env may be able to do is asked for by protocols; an env that can do nothing of it is one all the same."""

from pathlib import Path

import numpy as np
import pytest

from tests.acting import DotAgent, SwapDotEnv
from tests.fake_env import DotEnv
from vla import registry
from vla.contracts import Env, VlaError, abilities
from vla.data.recording.demonstrate import play_episode
from vla.data.stills import Stills
from vla.perturb import axes
from vla.registry import EnvRef
from vla.rollout.loop import EpisodeRequest, run_episodes


class BareEnv:
    """What the contract asks for, and nothing else."""

    def __init__(self) -> None:
        self._dots = DotEnv()
        self.env_spec = self._dots.env_spec
        self.reset, self.step, self.play = self._dots.reset, self._dots.step, self._dots.play
        self.observe, self.expert, self.close = self._dots.observe, self._dots.expert, self._dots.close


class BareDots(BareEnv):
    """The same, with methods that the registry finds in the class."""

    def reset(self, **more): ...
    def step(self, action): ...
    def play(self, action): ...
    def observe(self): ...
    def expert(self): ...
    def close(self): ...


BARE = "tests.test_abilities:BareDots"
ALL = [value for value in vars(abilities).values() if getattr(value, "_is_runtime_protocol", False)]
ALL = [one for one in ALL if one not in (Env, abilities.Protocol)]


def test_abilities_are_told_from_the_env_or_its_class() -> None:
    assert len(ALL) > 10
    assert not [one for one in ALL if isinstance(BareEnv(), one) or isinstance(BareDots, one)]
    assert isinstance(BareEnv(), Env)
    for ability in (abilities.Points, abilities.Refers, abilities.Films, abilities.Perturbs):
        assert isinstance(DotEnv(), ability) and isinstance(DotEnv, ability)
    assert isinstance(SwapDotEnv, abilities.AsksFor) and not isinstance(DotEnv, abilities.AsksFor)
    desk = registry.load_env("tidy_desk")
    for ability in (abilities.MeasuresSafety, abilities.AsksFor, abilities.Explains, abilities.ChecksOptions):
        assert isinstance(desk, ability), ability
    metaworld = registry.load_env("metaworld")
    for ability in (abilities.TakesArgument, abilities.HasTasks, abilities.Benchmarked):
        assert isinstance(metaworld, ability), ability
    assert isinstance(registry.load_env("gymnasium"), abilities.Adapts)


def test_an_env_without_any_is_played_and_recorded(tmp_path: Path) -> None:
    assert registry.EnvRef(BARE).tasks() == () and registry.EnvRef(BARE).reading() == ""
    assert axes.axes_of(BareDots) == axes.ANYWHERE
    results = run_episodes(BARE, DotAgent(), [EpisodeRequest(i, 100 + i) for i in range(3)], record_frames=1)
    assert all(result.success and not result.violations for result in results) and results[0].video
    with pytest.raises(VlaError, match="sentence_for"):
        run_episodes(BARE, DotAgent(), [EpisodeRequest(0, 100, swap=True)])
    episode = play_episode(BareEnv(), 3, {}, 0.0)
    assert episode.facts["success"]
    for camera in ("scene", "wrist"):
        points = episode.arrays[f"points.{camera}"]
        assert points.shape == (len(episode.arrays["state"]), 6) and not np.any(points), "nothing is known"
    with pytest.raises(VlaError, match="no referring_expressions"):
        Stills.build(EnvRef(BARE), BareEnv().env_spec, 4, 0, tmp_path)
