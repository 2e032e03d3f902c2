"""Perturbations: their names, who can do them, and those that need nothing from the env: noise and latency."""

import argparse
import itertools
from dataclasses import replace

import numpy as np
import pytest

from tests.acting import ENV, DotAgent
from tests.fake_env import DotEnv
from vla import cli, registry
from vla.commands import eval as eval_command
from vla.contracts import CameraSpec, Chunk, EnvSpec, Group, Observation, VlaError
from vla.control.timeline import Timeline
from vla.perturb import axes as perturb
from vla.perturb.latency import Delays, hold_still
from vla.perturb.sensors import LEVELS, NoisySensors
from vla.rollout.loop import EpisodeRequest, run_episodes

CAMERAS = (CameraSpec("scene", 32, 32), CameraSpec("wrist", 32, 32))
SPEC = EnvSpec("toy", CAMERAS, ("x [m]", "q [rad]"), ("x [m]", "dz [m]"), 0.1, 50)


def look(value=128, x=0.5):
    images = {camera.name: np.full((32, 32, 3), value, np.uint8) for camera in SPEC.cameras}
    return Observation(images, np.array([x, 1.0], np.float32), "go", 0.3)


# --- names ---------------------------------------------------------------------------------------------------------


def test_axes_are_read_as_a_user_types_them():
    assert perturb.parse("camera=strong,light") == {"camera": "strong", "light": "medium"}
    assert perturb.parse(" noise = mild , latency=150ms") == {"noise": "mild", "latency": "150ms"}
    assert perturb.describe({"camera": "strong", "light": "medium"}) == "camera=strong,light=medium"
    assert [perturb.delay_ms(s) for s in (*perturb.STRENGTHS, "12.5ms")] == [50, 100, 200, 12.5]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("camra", "there is no perturbation 'camra'; known: camera, .*; did you mean 'camera'?"),
        ("camera=stron", "no strength 'stron'; known: mild, medium, strong; did you mean 'strong'?"),
        ("camera=", "no strength ''"),
        ("camera=50ms", "no strength '50ms'"),
        ("latency=9999ms", "milliseconds up to 5000"),
        ("latency=fast", "e.g. 150ms"),
        ("light,light=mild", "'light' is named twice"),
        ("", "there is no perturbation ''"),
    ],
)
def test_a_mistyped_perturbation_says_what_would_be_right(text, said):
    with pytest.raises(VlaError, match=said):
        perturb.parse(text)


def test_randomisation_draws_every_axis_and_strength_on_its_own():
    axes = perturb.for_training(DotEnv)
    assert axes == ("state", "noise")  # words are held out, and an expert is never late
    found = [perturb.drawn(axes, seed) for seed in range(200)]
    assert found == [perturb.drawn(axes, seed) for seed in range(200)]
    for axis in axes:
        strengths = [harder[axis] for harder in found if axis in harder]
        assert 70 < len(strengths) < 130 and set(strengths) == set(perturb.STRENGTHS)
        alone = [perturb.drawn((axis,), seed) for seed in range(200)]
        assert alone == [{axis: harder[axis]} if axis in harder else {} for harder in found]


def test_the_help_names_every_axis():
    parser = argparse.ArgumentParser()
    eval_command.add_arguments(parser)
    assert all(axis in parser.format_help() for axis in perturb.AXES)


def test_an_env_is_asked_only_for_what_it_can_do(tmp_path, capsys):
    assert perturb.axes_of(DotEnv) == ("state", "latency", "noise")
    assert perturb.axes_of(registry.load_env("metaworld")) == ("latency", "noise")
    assert perturb.axes_of(registry.load_env("tidy_desk")) == tuple(perturb.AXES)
    for words in (["--perturb", "camera"], ["--suite", "robustness", "--perturb", "noise,camera"]):
        assert cli.main(["eval", "--env", "metaworld:reach-v3", "--out", str(tmp_path / "out"), *words]) == 2
        error = capsys.readouterr().err
        assert "env metaworld:reach-v3 cannot do the perturbation 'camera'; it can do latency, noise" in error
    assert not (tmp_path / "out").exists()


def test_each_axis_of_each_episode_draws_by_itself():
    draws = {perturb.rng_of(seed, axis).random() for seed in (0, 1, 2**31) for axis in perturb.AXES}
    assert len(draws) == 3 * len(perturb.AXES)
    assert perturb.rng_of(7, "camera").random() == perturb.rng_of(7, "camera").random()


# --- noise ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("strength", perturb.STRENGTHS)
def test_noise_is_as_strong_as_it_says(strength):
    level, seen = LEVELS[strength], look()
    sensors = NoisySensors(SPEC, strength, 3)
    found = [sensors(seen) for _ in range(300)]
    first = found[0].images["scene"]
    assert first.dtype == np.uint8 and first.astype(float).std() == pytest.approx(level.pixels, rel=0.1)
    spread = np.std([one.state - seen.state for one in found], axis=0)
    assert spread == pytest.approx([level.metres, level.others], rel=0.15)
    assert (seen.images["scene"] == 128).all() and (found[0].instruction, found[0].time) == ("go", 0.3)
    again = NoisySensors(SPEC, strength, 3)(seen)
    assert (again.images["wrist"] == found[0].images["wrist"]).all() and (again.state == found[0].state).all()


def test_a_dropped_frame_shows_the_last_one_that_came_each_camera_by_itself():
    sensors, shown = NoisySensors(SPEC, "strong", 1), {"scene": [], "wrist": []}
    for step in range(400):
        for name, image in sensors(look(value=50 + step % 100)).images.items():
            shown[name].append(image)
    dropped = {n: [bool((a == b).all()) for a, b in zip(i[1:], i[:-1], strict=True)] for n, i in shown.items()}
    for flags in dropped.values():
        assert np.mean(flags) == pytest.approx(LEVELS["strong"].dropped, abs=0.07)
    assert dropped["scene"] != dropped["wrist"]
    assert not np.shares_memory(shown["scene"][1], shown["scene"][2])


# --- latency -------------------------------------------------------------------------------------------------------


def played(strength, decisions, dt=0.1, every=4, length=16, seed=0):
    """For each step, which chunk was played and which of its actions; (-1, -1) while the robot holds still."""
    delays, timeline, found = Delays(strength, dt, seed), Timeline(np.array([-1.0, -1.0], np.float32)), []
    for decision in range(decisions):
        actions = np.stack([np.full(length, decision), np.arange(length)], axis=1).astype(np.float32)
        begin = decision * every * dt
        timeline.push(Chunk(actions, dt, begin), begin + delays.next())
        now = timeline.actions(begin, every, dt)
        assert now.shape == (every, 2) and now.dtype == np.float32
        found += [tuple(map(int, action)) for action in now]
    return found


def test_no_delay_plays_as_if_there_were_none():
    assert played("0ms", 5) == [(decision, action) for decision in range(5) for action in range(4)]


def test_a_late_chunk_begins_late_and_the_earlier_one_goes_on():
    found = played("200ms", 40)
    begins = {chunk: found.index((chunk, 0)) for chunk in range(39)}
    delays = [begin - 4 * chunk for chunk, begin in begins.items()]
    assert {1, 2, 3} >= set(delays) and np.mean(delays) == pytest.approx(2.0, abs=0.3)
    assert found[: begins[0]] == [(-1, -1)] * begins[0], "until the first answer comes it stays where it is"
    chunks = [chunk for chunk, _ in found]
    assert chunks == sorted(chunks), "never back to an older plan"
    for (chunk, action), (following, later) in itertools.pairwise(found):
        assert chunk == -1 or (following, later) in {(chunk, action + 1), (chunk + 1, 0)}
    assert max(action for _, action in found) > 3, "a plan goes on beyond what would have been played of it"


@pytest.mark.parametrize(("strength", "dt"), [("mild", 0.1), ("medium", 0.1), ("130ms", 0.1), ("mild", 0.0125)])
def test_rounding_to_steps_keeps_the_mean_delay(strength, dt):
    found = played(strength, 600, dt, every=60, length=60)
    delays = [found.index((chunk, 0), chunk * 60) - chunk * 60 for chunk in range(599)]
    assert np.mean(delays) * dt == pytest.approx(perturb.delay_ms(strength) / 1000, rel=0.08)
    assert len(set(delays)) > 1
    assert played(strength, 20, dt) == played(strength, 20, dt) != played(strength, 20, dt, seed=1)


def test_a_plan_that_runs_out_is_held_and_an_overtaken_one_is_dropped():
    held = played("300ms", 40, every=4, length=4)
    assert any(held[i] == held[i + 1] and held[i][1] == 3 for i in range(len(held) - 1))
    overtaken = played("1000ms", 60, every=2)
    begun = {chunk for chunk, action in overtaken if action == 0}
    assert 5 < len(begun) < max(begun), "of chunks that arrive out of order the later answer counts"
    chunks = [chunk for chunk, _ in overtaken]
    assert chunks == sorted(chunks)


def test_holding_still_is_the_present_pose_where_the_spec_tells():
    def spec(action, relative=()):
        return EnvSpec("toy", CAMERAS, ("x [m]", "q [rad]"), action, 0.1, 50, relative=relative)

    assert hold_still(spec(("q [rad]", "x [m]")), look(x=0.25)).tolist() == [1.0, 0.25]
    assert hold_still(spec(("goal_x [m]", "q [rad]"), ((0, 0),)), look(x=0.25)).tolist() == [0.25, 1.0]
    assert hold_still(spec(("x [m]", "vz [m/s]")), look()) is None, "0 may be a velocity, or a far corner"
    assert hold_still(spec(("action_0", "action_1")), look()) is None
    assert hold_still(spec(("dx [cm]", "dy [cm]", "x [m]")), look(x=0.25)).tolist() == [0.0, 0.0, 0.25], "no way to go"
    turned = replace(spec(("turn", "push")), action_groups=(Group("turn", 0, 2, "rotation", "rad", delta=True),))
    assert hold_still(turned, look()).tolist() == [0.0, 0.0]
    paired = replace(turned, relative=((0, 0),))
    assert hold_still(paired, look(x=0.25)).tolist() == [0.0, 0.0], "the group says that it is a displacement"


def test_with_nothing_to_hold_the_first_chunk_alone_is_not_late():
    found, usual = [], []
    for timeline, played in ((Timeline(), found), (Timeline(np.float32([-1.0])), usual)):
        delays = Delays("200ms", 0.1, seed=3)
        for decision in range(6):
            chunk = Chunk(np.float32([[decision * 10 + action] for action in range(8)]), 0.1, decision * 0.2)
            timeline.push(chunk, chunk.time + delays.next())
            played += timeline.actions(chunk.time, 2, 0.1).ravel().tolist()
    assert found[:2] == [0.0, 1.0] and usual[0] == -1.0
    begins = [found.index(10.0 * decision) for decision in range(6) if 10.0 * decision in found]
    assert begins[1:] == [usual.index(10.0 * d) for d in range(1, 6) if 10.0 * d in usual], "later ones as ever"


def play(agent=None, episodes=6, slots=3, **harder):
    requests = [EpisodeRequest(i, 50 + i, {"kind": "named"}, perturb=harder) for i in range(episodes)]
    return run_episodes(ENV, agent or DotAgent(), requests, slots=slots, execute=4)


def outcome(results):
    return [(result.success, result.steps, result.decisions, result.progress) for result in results]


def test_latency_costs_steps_in_the_loop():
    calm, late = play(), play(latency="400ms")
    assert outcome(play(latency="0ms")) == outcome(calm)
    assert all(result.success for result in calm)
    assert np.mean([r.steps for r in late]) > np.mean([r.steps for r in calm]) + 2
    assert outcome(play(latency="400ms", slots=2)) == outcome(late), "whatever is played beside it"


def test_noise_reaches_the_policy_and_is_not_changed_by_latency():
    class Noting(DotAgent):
        def act_batch(self, observations, noise_seeds):
            self.seen = getattr(self, "seen", []) + [(one.images["scene"], one.state) for one in observations]
            return super().act_batch(observations, noise_seeds)

    def first(**harder):
        agent = Noting()
        play(agent, episodes=1, **harder)
        return agent.seen[0]

    calm, noisy, both = first(), first(noise="medium"), first(noise="medium", latency="strong")
    assert (calm[0] != noisy[0]).mean() > 0.8 and (calm[1] != noisy[1]).all()
    assert (noisy[0] == both[0]).all() and (noisy[1] == both[1]).all()


def test_the_env_does_its_own_axes_and_only_those():
    def starts(**harder):
        class Noting(DotAgent):
            def act_batch(self, observations, noise_seeds):
                self.states = getattr(self, "states", [one.state for one in observations])
                return super().act_batch(observations, noise_seeds)

        agent = Noting()
        play(agent, episodes=3, **harder)
        return np.array(agent.states)

    calm, moved = starts(), starts(state="strong")
    assert (calm[:, :2] != moved[:, :2]).all()
    assert (starts(state="strong", latency="mild") == moved).all()
    with pytest.raises(VlaError, match="DotEnv cannot do the perturbation 'light'; it can do state"):
        starts(light="mild")
