"""Ways of playing late chunks: what the policy is told, where its answer lies, and the guidance against references."""

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from policies.flow import FlowConfig, FlowPolicy
from tests.acting import ENV, DotAgent
from tests.fake_env import DotEnv
from tests.test_policies import SPEC, generators, raw_batch
from vla import agent as agents
from vla.contracts import Chunk, Observation, Pending, VlaError
from vla.control.playback import PLAYBACKS, Delay, actions_in, pending, playback_of, rolled_forward, weights
from vla.control.timeline import TemporalEnsemble, Timeline
from vla.nn.flow import integrate, integrate_guided, midpoint_times
from vla.normalise import Normaliser
from vla.rollout.loop import EpisodeRequest, run_episodes
from vla.runner import Runner


def chunk(values, time=0.0, dt=0.1):
    return Chunk(np.array(values, np.float32).reshape(-1, 1), dt, time)


def test_delay_is_counted_in_actions_forgets_and_leaves_out_the_first() -> None:
    delay = Delay()
    assert delay.actions == 0
    delay.count(40)  # a network is slow at first
    assert delay.actions == 0
    for actions in (2, 3, 2):
        delay.count(actions)
    assert delay.actions == 3
    for _ in range(10):
        delay.count(1)
    assert delay.actions == 1, "the 3 is long ago"
    assert [actions_in(seconds, 0.1) for seconds in (0.0, 0.1, 0.11, 0.3, 3 * 0.1)] == [0, 1, 2, 3, 3]


def test_what_is_pending_is_the_plan_then_its_last_action_and_nothing_that_has_not_come() -> None:
    timeline = Timeline(hold=np.float32([-1]))
    before = pending(timeline, 0.0, 4, 2, 0.1, 1)
    assert before.actions.ravel().tolist() == [-1, -1, -1, -1] and (before.sure, before.planned) == (2, 0)
    timeline.push(chunk(range(5)))
    timeline.push(chunk(range(10, 15), time=0.2), arrival=0.5)
    now = pending(timeline, 0.2, 6, 1, 0.1, 1)
    assert now.actions.ravel().tolist() == [2, 3, 4, 4, 4, 4] and (now.sure, now.planned) == (1, 3)
    nothing = pending(Timeline(), 0.0, 4, 2, 0.1, 1)
    assert (nothing.sure, nothing.planned) == (0, 0) and not weights(nothing).any()


def test_weights_are_those_of_the_paper() -> None:
    """Equation 5 with H = 8 actions, of which s = 3 are not planned, and d = 2."""
    told = weights(Pending(np.zeros((8, 1), np.float32), 2, 5))
    share = np.array([(8 - 3 - i) / (8 - 3 - 2 + 1) for i in range(8)])
    wanted = np.where(np.arange(8) < 2, 1.0, np.where(np.arange(8) < 5, share * np.expm1(share) / np.expm1(1.0), 0.0))
    assert np.allclose(told, wanted) and (np.diff(told) <= 0).all()
    held = weights(Pending(np.zeros((4, 1), np.float32), 3, 0))
    assert held.tolist() == [1, 1, 1, 0], "what is held until the answer comes binds, too"


def test_the_state_is_rolled_to_where_the_answer_begins() -> None:
    spec = SimpleNamespace(state=("x [m]", "q [rad]", "gripper"), action=("x [m]", "gripper"), relative=())
    going = np.array([[1, 0], [2, 0.5], [3, 1]], np.float32)
    seen = Observation({}, np.float32([0.5, 7, 0]), "", pending=Pending(going, 2, 3))
    assert rolled_forward(seen, spec).state.tolist() == [2, 7, 0.5]
    assert rolled_forward(replace(seen, pending=Pending(going, 0, 3)), spec) is not None
    assert seen.state[0] == 0.5, "the observation itself is left alone"


class Asked(DotAgent):
    """Notes what it is told of what goes on."""

    def __init__(self) -> None:
        super().__init__()
        self.told: list[Observation] = []

    def act_batch(self, observations, noise_seeds):
        self.told += observations
        return super().act_batch([replace(one, pending=None) for one in observations], noise_seeds)


def played(playback: str, latency_s: float, looks: int = 4) -> tuple[Asked, list[np.ndarray]]:
    env, agent, actions = DotEnv(), Asked(), []
    env.reset(seed=3)
    runner = Runner(agent, 9, execute=4, latency_s=latency_s, playback=playback)
    for look in range(looks):
        actions.append(runner.act(replace(env.observe(), time=look * 4 * agent.spec.dt)))
        for action in actions[-1]:
            env.play(action)
    return agent, actions


def test_a_guided_agent_is_told_what_goes_on_until_its_answer_comes() -> None:
    agent, actions = played("guided", 0.2)
    first, second, third = (one.pending for one in agent.told[:3])
    assert first is not None and (first.sure, first.planned) == (0, 0)
    assert second is not None and second.sure == 0 and second.planned > 4, "the first delay does not count"
    assert third is not None and third.sure == 2
    assert np.array_equal(third.actions[:2], actions[2][:2]), "and just that is played"


def test_a_rolled_agent_answers_where_it_will_be() -> None:
    agent, actions = played("forward", 0.2)
    third = agent.told[2]
    assert third.pending is None
    reached = actions[2][1]  # the second of the two that are played meanwhile
    names = list(agent.spec.state)
    for place, name in enumerate(agent.spec.action):
        if name in names:
            assert third.state[names.index(name)] == reached[place]


def test_all_ways_agree_where_nothing_is_late_and_all_play_whole_episodes() -> None:
    requests = [EpisodeRequest(i, 100 + i) for i in range(2)]
    usual = [one.success for one in run_episodes(ENV, DotAgent(), requests, execute=5)]
    for name in PLAYBACKS:
        if PLAYBACKS[name].guides:
            continue  # DotAgent has no policy to guide
        assert [one.success for one in run_episodes(ENV, DotAgent(), requests, execute=5, playback=name)] == usual
    late = [EpisodeRequest(i, 100 + i, perturb={"latency": "300ms"}) for i in range(2)]
    assert all(one.steps > 5 for one in run_episodes(ENV, DotAgent(), late, execute=5, playback="receding"))
    assert playback_of("ensemble").timeline is TemporalEnsemble
    with pytest.raises(VlaError, match=r"no way of playing 'recedin'.*did you mean 'receding'"):
        playback_of("recedin")


MATRIX = torch.tensor([[0.8, 0.3, 0.0], [-0.2, 1.1, 0.4], [0.1, 0.0, 0.9]], dtype=torch.float64)


def field(x: torch.Tensor, i: int, steps: int) -> torch.Tensor:
    """A velocity that is not linear and not symmetric, so that a wrong product shows."""
    t = midpoint_times(steps, x.device)[i].item()
    return torch.sin(x @ MATRIX) - (0.5 + t) * x


def test_guidance_is_the_vector_jacobian_product_of_the_composed_map() -> None:
    """One midpoint step, its two pulls worked out from finite differences of x -> x + (1 - t) v(x, t)."""
    torch.manual_seed(0)
    noise, wanted = torch.randn(2, 4, 3, dtype=torch.float64), torch.randn(2, 4, 3, dtype=torch.float64)
    weight = torch.tensor([[1.0, 1.0, 0.3, 0.0], [1.0, 0.5, 0.0, 0.0]], dtype=torch.float64)

    def end(x: torch.Tensor, i: int) -> torch.Tensor:
        return x + (1.0 - 0.5 * i) * field(x, i, 1)

    def guided(x: torch.Tensor, i: int) -> torch.Tensor:
        error, pull, h = (wanted - end(x, i)) * weight[..., None], torch.zeros_like(x), 1e-6
        for place in np.ndindex(*x.shape):
            nudge = torch.zeros_like(x)
            nudge[place] = h
            pull[place] = ((end(x + nudge, i) - end(x - nudge, i)) / (2 * h) * error).sum()
        return field(x, i, 1) + 1.0 * pull  # at most ``steps``, and (t^2 + (1 - t)^2) / (t (1 - t)) is more

    middle = noise + 0.5 * guided(noise, 0)
    reference = noise + guided(middle, 1)
    answer = integrate_guided(lambda x, i: field(x, i, 1), noise, 1, wanted, weight)
    assert torch.allclose(answer, reference, atol=1e-7)
    assert not answer.requires_grad


def test_guidance_holds_what_is_going_on_and_nothing_without_weight() -> None:
    torch.manual_seed(1)
    noise, wanted = torch.randn(1, 4, 3, dtype=torch.float64), torch.randn(1, 4, 3, dtype=torch.float64)
    velocity = lambda x, i: field(x, i, 8)
    free = integrate(velocity, noise, 8)
    none = torch.zeros(1, 4, dtype=torch.float64)
    assert torch.allclose(integrate_guided(velocity, noise, 8, wanted, none), free)
    half = torch.tensor([[1.0, 1.0, 0.0, 0.0]], dtype=torch.float64)
    held = integrate_guided(velocity, noise, 8, wanted, half)
    assert (held - wanted)[:, :2].norm() < 0.2 * (free - wanted)[:, :2].norm()
    assert torch.allclose(held[:, 2:], free[:, 2:]), "rows are apart in this field, so the others stay"


def tiny_flow(**more) -> FlowPolicy:
    torch.manual_seed(0)
    made = FlowPolicy(replace(FlowConfig.tiny(), **more), SPEC)
    torch.nn.init.normal_(made.head.out.weight, std=0.3)
    for block in made.head.blocks:
        torch.nn.init.normal_(block.modulation.weight, std=0.05)
    return made.eval()


def test_a_policy_that_was_trained_so_begins_with_the_actions_it_is_given() -> None:
    batch = raw_batch()
    normaliser = Normaliser.fit(batch["state"].numpy(), batch["actions"].numpy(), SPEC)
    policy, encoded = tiny_flow(prefix=6), normaliser.encode(batch)
    wanted, weight = encoded["actions"], torch.zeros(4, 16)
    for row, sure in enumerate((0, 3, 4, 9)):
        weight[row, :sure] = 1.0
    more = {"pending": wanted, "pending_weight": weight, "pending_given": True}
    free = policy.sample(encoded, generators()).actions
    given = policy.sample({**encoded, **more}, generators()).actions
    for row, count in enumerate((0, 2, 4, 6)):  # whole tokens of two, and no more than was trained
        assert torch.equal(given[row, :count], wanted[row, :count])
        assert not torch.isclose(given[row, count:], wanted[row, count:]).all(dim=1).any()
    assert torch.allclose(given[0], free[0], atol=1e-5), "without a prefix it is what it was"
    assert not torch.allclose(given[2, 4:], free[2, 4:], atol=1e-3), "the rest goes on from it"
    with pytest.raises(VlaError, match=r"not trained to go on .*--policy\.prefix"):
        tiny_flow().sample({**encoded, **more}, generators())


def test_the_loss_leaves_out_what_is_given() -> None:
    batch = raw_batch()
    encoded = Normaliser.fit(batch["state"].numpy(), batch["actions"].numpy(), SPEC).encode(batch)
    policy, seen = tiny_flow(prefix=15), []
    velocity = policy.head.velocity

    def watched(x, *rest):
        seen.append(x)
        return 0.0 * velocity(x, *rest)

    policy.head.velocity = watched  # type: ignore[method-assign]
    torch.manual_seed(3)
    _, parts = policy.loss(encoded)
    clean = torch.isclose(seen[0], encoded["actions"].repeat_interleave(2, 0)).all(dim=-1)
    counts = clean.sum(dim=1)
    assert set(counts.tolist()) <= set(range(0, 16, 2)) and len(set(counts.tolist())) > 2
    # Of a velocity of zero the loss is the mean square of data - noise where the action is not given: about 1 + 1.
    assert 1.0 < float(parts["flow"]) < 3.0


def test_an_agent_can_be_guided_as_it_is() -> None:
    batch = raw_batch()
    normaliser = Normaliser.fit(batch["state"].numpy(), batch["actions"].numpy(), SPEC)
    agent = agents.Agent(tiny_flow(), normaliser, SPEC, "flow")
    images = {c.name: batch[f"images.{c.name}"][0].numpy() for c in SPEC.cameras}
    seen = Observation(images, batch["state"][0].numpy(), "tidy the desk")
    free = agent.act_batch([seen, seen], [1, 1])
    plan = Pending(batch["actions"][0].numpy(), 4, 8)
    none = Pending(np.zeros((16, 3), np.float32), 0, 0)
    guided, unguided = agent.act_batch([replace(seen, pending=plan), replace(seen, pending=none)], [1, 1])
    near = np.abs(guided.actions - plan.actions)[:4].mean()
    assert near < 0.8 * np.abs(unguided.actions - plan.actions)[:4].mean()
    assert np.abs(unguided.actions - free[0].actions).mean() < 0.2, "four steps or two are nearly the same path"
