"""A timeline tells what to do when, at any rate; lanes of different speed play on it, and none waits for another."""

import math
from dataclasses import asdict, replace

import numpy as np
import pytest

from tests.acting import ENV, DotAgent
from tests.fake_env import DotEnv
from vla.contracts import Chunk, SpecMismatchError
from vla.control.timeline import TemporalEnsemble, Timeline
from vla.registry import EnvRef
from vla.rollout.clock import Clock
from vla.rollout.loop import EpisodeRequest, Lane, run_lanes
from vla.runner import Runner


def chunk(values, time=0.0, dt=0.1):
    return Chunk(np.array(values, np.float32).reshape(-1, 1), dt, time)


def told(timeline, *times):
    return [None if (target := timeline.at(t)) is None else float(target.action[0]) for t in times]


def test_the_newest_chunk_is_played_from_its_own_time_on_and_held_at_its_end():
    timeline = Timeline()
    assert timeline.at(0.0) is None, "nothing yet"
    timeline.push(chunk(range(6), time=1.0))
    assert timeline.at(0.95) is None
    assert told(timeline, 1.0, 1.09, 1.1, 1.55, 1.6, 99.0) == [0, 0, 1, 5, 5, 5]
    assert [timeline.at(t).ended for t in (1.0, 1.59, 1.6)] == [False, False, True]
    assert timeline.at(1.25).age == pytest.approx(0.25)
    timeline.push(chunk(range(10, 16), time=1.4))
    assert told(timeline, 1.4, 1.85, 3.0) == [10, 14, 15]
    assert timeline.actions(1.4, 4, 0.05).ravel().tolist() == [10, 10, 11, 11], "an env of twice the rate"
    assert timeline.actions(1.4, 3, 0.2).ravel().tolist() == [10, 12, 14], "and one of half"


def test_a_chunk_that_comes_late_begins_in_its_middle_and_an_overtaken_one_never():
    timeline = Timeline(hold=np.float32([-1]))
    timeline.push(chunk(range(6), time=0.0), arrival=0.25)
    assert told(timeline, 0.0, 0.2, 0.25, 0.3) == [-1, -1, 2, 3]
    assert timeline.at(0.0).age == math.inf
    timeline.push(chunk(range(20, 26), time=0.4), arrival=0.4)
    timeline.push(chunk(range(10, 16), time=0.2), arrival=0.5)
    assert told(timeline, 0.4, 0.5, 0.6) == [20, 21, 22]


def test_temporal_ensemble_weighs_older_chunks_more():
    ensemble = TemporalEnsemble(decay=np.log(2))
    ensemble.push(chunk([0, 0, 0], time=0.0))
    assert told(ensemble, 0.0) == [0.0]
    ensemble.push(chunk([3, 3, 3], time=0.1))
    # weights 1 (old) and 1/2 (new): 0 * 2/3 + 3 * 1/3
    assert told(ensemble, 0.1) == pytest.approx([1.0])
    ensemble.push(chunk([9, 9, 9], time=2.0))
    assert told(ensemble, 2.0, 9.0) == [9.0, 9.0]


def test_a_robot_asks_its_runner_at_its_own_rate():
    env, agent = DotEnv(), DotAgent(noise=0.02)
    env.reset(seed=3)
    runner, seen = Runner(agent, 9, execute=6, latency_s=0.15), replace(env.observe(), time=70.0)
    assert runner.at(70.0) is None
    (answer,) = agent.act_batch([runner.see(seen)], [runner.noise_seed])
    runner.push(answer)
    here = env.observe().state
    assert (runner.at(70.0).action == here).all(), "it stays where it is until the answer comes"
    for t, place in ((70.15, 1), (70.2, 2), (70.204, 2), (76.39, 63), (80.0, 63)):
        assert (runner.at(t).action == answer.actions[place]).all()
    assert not runner.at(76.39).ended and runner.at(80.0).ended


def test_a_clock_calls_lanes_by_time_and_equal_ones_together():
    clock, order = Clock([0.3, 0.1, 3 * 0.1]), []
    for _ in range(7):
        time, lanes = clock.next()
        order.append((time, lanes))
        for lane in lanes:
            clock.again(lane)
    assert order[0] == (0.0, {0: 0, 1: 0, 2: 0})
    assert order[1:4] == [(0.1, {1: 1}), (0.2, {1: 2}), (0.3, {0: 1, 1: 3, 2: 1})]
    assert order[6] == (0.6, {0: 2, 1: 6, 2: 2})


class FineEnv(DotEnv):
    """Takes an action every 30 ms, and so more of them."""

    def __init__(self) -> None:
        super().__init__()
        self.env_spec = replace(self.env_spec, name="fine", dt=0.03, episode_steps=200)


class Endless(DotAgent):
    """Never closes its gripper, and notes when it is asked, and from which env."""

    def __init__(self, **more) -> None:
        super().__init__(**more)
        self.asked: list[list[float]] = []

    def act_batch(self, observations, noise_seeds):
        self.asked.append([one.time for one in observations])
        chunks = super().act_batch(observations, noise_seeds)
        for one in chunks:
            one.actions[:, 2] = 1.0
        return chunks


FINE = "tests.test_timeline:FineEnv"


@pytest.mark.parametrize(("latency_s", "pools"), [(0.0, [1]), (0.25, [1, 2])])
def test_envs_of_different_speed_play_side_by_side_and_none_waits(latency_s: float, pools: list[int]) -> None:
    runs = []
    for workers in pools:
        agent, ended = Endless(noise=0.02), []
        lanes = [
            Lane(EnvRef(ENV), [EpisodeRequest(0, 100)], execute=4, latency_s=latency_s),
            Lane(EnvRef(FINE), [EpisodeRequest(10, 101), EpisodeRequest(11, 102)], execute=1),
        ]
        results = run_lanes(agent, lanes, workers, ended.append, own_dt=True)
        runs.append(([[asdict(one) for one in lane] for lane in results], agent.asked, agent.seeds))
        # 6 s of one env, at one look every 0.4 s; 6 s of the other, at one every 0.09 s, twice.
        assert [[(one.steps, one.decisions) for one in lane] for lane in results] == [[(60, 15)], [(200, 67)] * 2]
        assert [one.index for one in ended] == [0, 10, 11], "the slow one's 6 s are over first, not its looks"
    assert runs[0] == runs[-1], "neither the results nor the order of the decisions depend on who was faster"
    asked = runs[0][1]
    assert asked[0] == [0.0, 0.0] and max(map(len, asked)) == 2
    early = [times for times in asked if max(times) < 1.0]
    assert [times[-1] for times in early[:6]] == pytest.approx([0.0, 0.09, 0.18, 0.27, 0.36, 0.4])


def test_an_env_of_another_speed_is_refused_unless_it_is_wanted() -> None:
    lanes = [Lane(EnvRef(FINE), [EpisodeRequest(0, 100)])]
    with pytest.raises(SpecMismatchError, match="dt"):
        run_lanes(DotAgent(), lanes)
    assert run_lanes(DotAgent(), lanes, own_dt=True)[0][0].success


def test_a_chunk_is_read_in_the_steps_of_the_env() -> None:
    """The agent's plan of 0.1 s steps ends where it should in an env with finer ones."""
    slow, fine = run_lanes(
        DotAgent(),
        [Lane(EnvRef(ENV), [EpisodeRequest(0, 104)]), Lane(EnvRef(FINE), [EpisodeRequest(0, 104)])],
        own_dt=True,
    )
    assert slow[0].success and fine[0].success
    assert abs(slow[0].time_to_success_s - fine[0].time_to_success_s) < 0.11
