import dataclasses
import math

import numpy as np
import pytest

from tests.acting import ENV, DotAgent
from tests.fake_env import DotEnv
from vla.contracts import Chunk, SpecMismatchError, VlaError
from vla.control.timeline import TemporalEnsemble
from vla.host.parallel import SlotPool, WorkerError
from vla.rollout.loop import EpisodeRequest, RolloutInterrupted, Timing, run_episodes
from vla.runner import noise_seed


class StaleEnv(DotEnv):
    """Says that its first picture may show an earlier scene."""

    def reset(self, **more):
        raw, info = super().reset(**more)
        return raw, info | {"stale": True}


def requests(n, **options):
    return [EpisodeRequest(i, 100 + i, options) for i in range(n)]


def play(agent, episodes, **more):
    return run_episodes(more.pop("env", ENV), agent, episodes, **more)


def test_an_agent_that_sees_and_reads_succeeds():
    timing, seen = Timing(), []
    results = play(DotAgent(), requests(12), slots=5, timing=timing, on_episode=seen.append)
    assert [result.index for result in results] == list(range(12))
    assert all(result.success for result in results)
    assert sorted(result.index for result in seen) == list(range(12))
    for result in results:
        assert result.progress == 1.0
        assert result.time_to_success_s == pytest.approx(result.steps * 0.1)
        assert result.decisions == 1
        assert all(item["placed"] for item in result.items if item["asked"])
        assert result.reward_terms["placed"] == 1.0
        assert result.error is None
    assert timing.decisions == sum(result.decisions for result in results)
    first, seconds = timing.first_round
    assert 0 < first <= timing.decisions and 0 < seconds <= timing.policy_s
    rest = timing.decisions - first
    assert timing.warm() == ((rest, timing.policy_s - seconds) if rest else (first, timing.policy_s))
    assert timing.env_steps == sum(result.steps for result in results)
    assert timing.wall_s >= timing.env_s > 0


def test_results_do_not_depend_on_the_number_of_workers():
    # Noise in the actions: it has to come from the episode's seed and the decision, not from the order of work.
    runs = []
    for workers in (1, 2):
        agent = DotAgent(noise=0.02)
        runs.append((play(agent, requests(9, kind="named"), slots=4, workers=workers, execute=6), agent))
    (one, first), (two, second) = runs
    assert [dataclasses.asdict(result) for result in one] == [dataclasses.asdict(result) for result in two]
    assert (first.batches, first.seeds) == (second.batches, second.seeds)
    assert max(first.batches) == 4


def test_the_batch_shrinks_only_when_nothing_is_left_to_play():
    agent = DotAgent()
    play(agent, requests(7, kind="named"), slots=3, execute=4)
    assert agent.batches[0] == 3
    assert agent.batches == sorted(agent.batches, reverse=True)
    assert len(set(agent.seeds)) == len(agent.seeds)


def test_a_stale_first_picture_is_acted_on_once():
    calm = [result.steps for result in play(DotAgent(), requests(2), execute=8)]
    results = play(DotAgent(), requests(2), execute=8, env="tests.test_rollout:StaleEnv")
    assert [result.steps for result in results] == calm, "the plan is the same, it is only made once more"
    assert [result.decisions for result in results] == [1 + -(-(steps - 1) // 8) for steps in calm]


def test_noise_seed_is_a_function_of_episode_and_decision():
    assert noise_seed(5, 1) == noise_seed(5, 1)
    seeds = {noise_seed(episode, decision) for episode in range(20) for decision in range(20)}
    assert len(seeds) == 400
    assert all(0 <= seed < 2**63 for seed in seeds)


def test_an_observation_filter_changes_what_the_agent_sees():
    def blind(observation, request):
        images = {name: np.zeros_like(image) for name, image in observation.images.items()}
        return dataclasses.replace(observation, images=images)

    results = play(DotAgent(), requests(4), observation_filter=blind)
    assert not any(result.success for result in results)
    assert all(result.steps == 60 and result.time_to_success_s is None for result in results)


def test_nan_from_the_policy_ends_the_episode_as_a_failure():
    class Broken(DotAgent):
        def _act(self, observation, seed):
            chunk = super()._act(observation, seed)
            chunk.actions[2, 1] = np.nan
            return chunk

    result = play(Broken(), requests(1))[0]
    assert not result.success
    assert result.steps == 2
    assert result.error == "the policy gave NaN or infinity in y [m] at step 2"


def test_agent_and_env_must_fit():
    small = DotAgent(DotEnv(cameras_px=16).env_spec)
    with pytest.raises(SpecMismatchError, match=r"(?s)agent dot_agent: scene 16x16.*env .*: scene 32x32"):
        play(small, requests(1))


def test_a_chunk_of_the_wrong_shape_is_refused():
    class Narrow(DotAgent):
        def _act(self, observation, seed):
            return Chunk(np.zeros((16, 2), np.float32), 0.1)

    with pytest.raises(VlaError, match=r"chunk of shape \(16, 2\).*takes actions of 3"):
        play(Narrow(), requests(1))
    with pytest.raises(VlaError, match="execute must lie between 1 and the chunk's 8 actions, and is 9"):
        play(DotAgent(horizon=8), requests(1), execute=9)


def test_a_worker_that_dies_is_named_and_finished_episodes_are_kept():
    ended = []
    with pytest.raises(RolloutInterrupted, match=r"worker 2 of 2 .* signal SIGKILL.*episodes were finished") as caught:
        play(
            DotAgent(),
            requests(8, kind="named"),
            env="tests.acting:DyingDotEnv",
            workers=2,
            slots=2,
            execute=3,
            on_episode=ended.append,
        )
    kept = [result.index for result in caught.value.results]
    assert kept == sorted(result.index for result in ended)
    assert kept
    assert 3 not in kept


def test_ctrl_c_keeps_finished_episodes():
    class Impatient(DotAgent):
        def act_batch(self, observations, noise_seeds):
            if len(self.batches) == 30:
                raise KeyboardInterrupt
            return super().act_batch(observations, noise_seeds)

    with pytest.raises(RolloutInterrupted, match=r"interrupted; [1-9]") as caught:
        play(Impatient(), requests(60, kind="named"), slots=2, execute=5)
    assert all(result.success for result in caught.value.results)


@pytest.mark.parametrize(
    ("workers", "env", "error"),
    [
        (1, "BreakingDotEnv", "ZeroDivisionError: the simulator fell over"),
        (2, "BreakingDotEnv", "ZeroDivisionError: the simulator fell over"),
        (1, "QuittingDotEnv", "SystemExit: the window was closed"),
    ],
)
def test_an_env_that_raises_in_every_episode_ends_the_run_with_one_line(workers, env, error):
    ended = []
    said = r"failed in each of the first 5 episodes; in episode 0, seed 100, it raised at step 0: "
    with pytest.raises(VlaError, match=said + error + r" \(acting\.py:\d+\)$") as caught:
        play(
            DotAgent(),
            requests(200),
            env=f"tests.acting:{env}",
            workers=workers,
            slots=2,
            on_episode=ended.append,
        )
    assert "\n" not in str(caught.value) and len(ended) == 5


class UnsteadyEnv(DotEnv):
    """Goes wrong in some episodes, and from then on in all: by an exception or by NaN, in ``reset`` or at a step."""

    wrong = ("", "reset", "play", "", "observe", "", "progress", "late", "", "")

    def reset(self, *, seed=None, options=None):
        self._wrong = getattr(self, "_broken", None) or self.wrong[seed % 10]
        self._broken = self._wrong
        if self._wrong == "reset":
            raise RuntimeError("no such\nscene")
        return super().reset(seed=seed, options=options)

    def play(self, action):
        result = super().play(action)
        if self._wrong == "play" or (self._wrong == "late" and self._steps == 3):
            raise RuntimeError("Physics state is invalid. Warning(s) raised: mjWARN_BADQACC")
        if self._wrong == "progress":
            result.info["progress"], result.info["reward_terms"]["placed"] = math.nan, math.nan
        return result

    def observe(self):
        seen = super().observe()
        if self._wrong == "observe" and self._steps:
            seen.state[1] = math.nan
        return seen


@pytest.mark.parametrize("workers", [1, 2])
def test_an_episode_in_which_the_env_fails_is_a_failure_and_the_others_are_played(workers):
    def run(env):
        return play(DotAgent(), requests(10, kind="named"), env=env, slots=3, workers=workers, execute=2)

    calm, results = run(ENV), run("tests.test_rollout:UnsteadyEnv")
    assert [result.index for result in results] == list(range(10))
    told = {result.index: result.error for result in results if result.raised}
    assert set(told) == {1, 2, 4, 6, 7} and not any(results[index].success for index in told)
    assert told[1].startswith("the env raised at step 0: RuntimeError: no such scene (test_rollout.py:")
    assert "step 0" in told[2] and "mjWARN_BADQACC (test_rollout.py:" in told[2]
    assert told[4] == "the env raised at step 2: the state holds NaN or infinity in y [m]"
    assert told[6].startswith("the env gave nan as progress") and results[6].progress == 0.0
    assert "nan" not in str(results[6].reward_terms)
    assert told[7].startswith("the env raised at step 2") and results[7].steps == 2
    for index in set(range(10)) - set(told):
        assert results[index].success and results[index] == calm[index]


def test_a_run_that_goes_on_comes_out_as_if_it_had_never_stopped():
    class Particular(DotAgent):
        """What it does depends on the batch's size, on its own row, and on when a sentence first came."""

        def act_batch(self, observations, noise_seeds):
            self.told = getattr(self, "told", {})
            for one in observations:
                self.told.setdefault(one.instruction, len(self.told) + len({o.instruction for o in observations}))
            chunks = super().act_batch(observations, noise_seeds)
            for row, chunk in enumerate(chunks):
                words = max(self.told[one.instruction] for one in observations)
                chunk.actions[:, :2] += 1e-3 * (len(observations) + row + words) / 10
            return chunks

    def run(env, **more):
        return play(Particular(noise=0.02), requests(11, kind="named"), env=env, slots=4, execute=3, **more)

    for env in (ENV, "tests.test_rollout:UnsteadyEnv"):
        whole = run(env)
        assert len({result.steps for result in whole}) > 3
        for count in (1, 4, 5, 8, 10, 11):
            order = []
            run(env, on_episode=order.append)
            ended, again = order[:count], []
            assert run(env, earlier=ended, on_episode=again.append) == whole, (env, count)
            assert len(again) == 11 - count
    # A slot's later episode without its earlier one is no state that a run was ever in: it is played again.
    again = []
    assert run(ENV, earlier=[whole[8]], on_episode=again.append) == run(ENV) and len(again) == 11


def test_a_users_mistake_in_a_worker_stays_one_line():
    with pytest.raises(VlaError, match=r"^'make tea' names no dot"):
        play(DotAgent(), requests(2, instruction="make tea"), workers=2)


def test_asked_for_episodes_are_filmed():
    import av

    results = play(DotAgent(), requests(3, kind="named"), record_frames=2)
    assert results[2].video is None
    with av.open(__import__("io").BytesIO(results[0].video)) as container:
        stream = container.streams.video[0]
        frames = list(container.decode(stream))
    assert frames[0].width == 640 and frames[0].height > 480  # the caption stands above the picture
    assert len(frames) >= results[0].steps // 2


def test_temporal_ensemble_in_the_loop():
    results = play(
        DotAgent(), requests(4, kind="named"), timeline=lambda: TemporalEnsemble(decay=5.0), execute=4, slots=2
    )
    assert all(result.success for result in results)
    assert max(result.decisions for result in results) > 1


def test_a_bug_in_a_slots_object_shows_its_traceback():
    with SlotPool(list, slots=2, workers=2) as pool, pytest.raises(WorkerError, match=r"(?s)Traceback.*IndexError"):
        pool.call({0: ("pop",)})


def test_slot_pool_answers_in_the_order_of_the_requests():
    for workers in (1, 2):
        with SlotPool(list, slots=3, workers=workers) as pool:
            pool.call({slot: ("append", slot * 10) for slot in range(3)})
            assert list(pool.call({2: ("copy",), 0: ("copy",)}).items()) == [(2, [20]), (0, [0])]
    with pytest.raises(VlaError, match="at least 1"):
        SlotPool(list, slots=0)
