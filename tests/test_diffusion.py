"""The diffusion policy: schedules and samplers, its two networks, history, and one network for several arms."""

import dataclasses
import sys

import pytest
import torch

from policies.diffusion import DiffusionPolicy
from policies.diffusion_config import DiffusionConfig, TransformerConfig, UNetConfig
from tests.test_policies import SPEC, generators, normaliser, raw_batch
from vla.agent import Agent
from vla.contracts import EnvSpec, Observation, VlaError
from vla.contracts.spec import Group
from vla.nn.context import Context, look
from vla.nn.diffusion import ChunkTransformer, ChunkUNet, Denoiser, make_scheduler
from vla.nn.flow import ddim, dpm_solver
from vla.nn.unified import WIDTH, Unified
from vla.normalise import Normaliser

PREDICTIONS = ("epsilon", "sample", "v_prediction")


def policy_of(**more) -> DiffusionPolicy:
    torch.manual_seed(0)
    return DiffusionPolicy(dataclasses.replace(DiffusionConfig.tiny(), **more), SPEC)


def stirred(module):
    """With weights that no gate or output hides."""
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return module


def on_its_context(policy, batch: dict) -> dict:
    """The batch with the trunk's context, worked out once: what the head alone has to learn from."""
    with torch.no_grad():
        return {**batch, "context": policy.look(batch)}


def batch_of(count: int = 4) -> dict:
    return normaliser(raw_batch(count)).encode(raw_batch(count))


# ------------------------------------------------------------------ schedules


def test_the_schedule_is_the_squared_cosine() -> None:
    """Nichol and Dhariwal, 2021, equation 17."""
    t = torch.arange(101, dtype=torch.float64) / 100
    f = torch.cos((t + 0.008) / 1.008 * torch.pi / 2) ** 2
    alphas = 1 - (1 - f[1:] / f[:-1]).clamp(max=0.999)
    scheduler = make_scheduler("ddpm", 100, "epsilon")
    torch.testing.assert_close(scheduler.alphas_cumprod.double(), alphas.cumprod(0), atol=1e-6, rtol=1e-4)
    x, noise, level = torch.randn(3, 4), torch.randn(3, 4), torch.tensor([0, 40, 99])
    a = scheduler.alphas_cumprod[level][:, None]
    torch.testing.assert_close(scheduler.add_noise(x, noise, level), a.sqrt() * x + (1 - a).sqrt() * noise)
    torch.testing.assert_close(scheduler.get_velocity(x, noise, level), a.sqrt() * noise - (1 - a).sqrt() * x)


@pytest.mark.parametrize("prediction", PREDICTIONS)
@pytest.mark.parametrize(("sampler", "steps"), [("ddpm", 100), ("ddim", 25), ("dpm_solver++", 15), ("unipc", 15)])
def test_every_sampler_reaches_a_known_distribution(sampler: str, steps: int, prediction: str) -> None:
    """Data of N(0.7, 0.3²): the best predictions are known, and what comes out must be that again."""
    mean, spread = 0.7, 0.3
    scheduler = make_scheduler(sampler, 100, prediction, clip=6.0)
    scheduler.set_timesteps(steps)
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(4000, 1, generator=generator, dtype=torch.float64)
    for t in scheduler.timesteps:
        a = scheduler.alphas_cumprod[t].double()
        clean = mean + a.sqrt() * spread**2 / (a * spread**2 + 1 - a) * (x - a.sqrt() * mean)
        noise = (x - a.sqrt() * clean) / (1 - a).sqrt()
        given = {"epsilon": noise, "sample": clean, "v_prediction": a.sqrt() * noise - (1 - a).sqrt() * clean}
        more = {"generator": generator} if sampler == "ddpm" else {}
        x = scheduler.step(given[prediction], t, x, return_dict=False, **more)[0]
    assert abs(float(x.mean()) - mean) < 0.05 and abs(float(x.std()) - spread) < 0.05


@pytest.mark.parametrize("steps", [1, 2, 9])
def test_samplers_of_the_straight_path_are_those_of_diffusers(steps: int) -> None:
    from diffusers import DPMSolverMultistepScheduler, FlowMatchEulerDiscreteScheduler

    solver = DPMSolverMultistepScheduler(
        use_flow_sigmas=True,
        prediction_type="flow_prediction",
        algorithm_type="dpmsolver++",
        euler_at_final=True,
        final_sigmas_type="zero",
    )
    torch.manual_seed(0)
    noise, weights = torch.randn(5, 3, dtype=torch.float64), torch.randn(3, 3, dtype=torch.float64)

    def guess(x: torch.Tensor, t: float) -> torch.Tensor:
        return torch.tanh(x @ weights + t)

    for scheduler, own in ((FlowMatchEulerDiscreteScheduler(), ddim), (solver, dpm_solver)):
        shares = [1.0 - i / steps for i in range(steps)]  # of the noise
        scheduler.set_timesteps(steps)
        scheduler.sigmas = torch.tensor([*shares, 0.0], dtype=torch.float64)  # theirs are other ones, and float32
        scheduler.timesteps = 1000.0 * scheduler.sigmas[:-1]
        x = noise
        for i, step in enumerate(scheduler.timesteps):
            velocity = (x - guess(x, i / steps)) / shares[i]  # towards noise, as they have it
            x = scheduler.step(velocity, step, x).prev_sample
        found = own(lambda x, i: guess(x, i / steps), noise, steps)
        torch.testing.assert_close(found, x.double(), atol=1e-5, rtol=1e-5)


def test_the_policy_samples_as_diffusers_does_step_by_step() -> None:
    from diffusers import DDIMScheduler

    policy, batch = stirred(policy_of(sampler="ddim", prediction="v_prediction", clip=0.0)).eval(), batch_of()
    reference = DDIMScheduler(
        20,
        beta_schedule="squaredcos_cap_v2",
        prediction_type="v_prediction",
        clip_sample=False,
        timestep_spacing="trailing",
    )
    reference.set_timesteps(3)
    with torch.no_grad():
        context = policy.trunk.encode(batch)
        x = torch.stack([torch.randn(16, 3, generator=one) for one in generators()])
        for t in reference.timesteps:
            given = policy.head(x, torch.full((4,), float(t) / 20), context)
            x = reference.step(given, t, x).prev_sample
    torch.testing.assert_close(policy.sample(batch, generators()).actions, x, atol=1e-4, rtol=1e-4)


def test_without_diffusers_one_line_says_what_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "diffusers", None)
    with pytest.raises(VlaError, match="uv sync --extra generation"):
        policy_of()


# ------------------------------------------------------------------ what it learns


class Oracle(Denoiser):
    """Knows the clean chunks, and predicts what is asked for without an error."""

    def __init__(self, policy: DiffusionPolicy, clean: torch.Tensor) -> None:
        super().__init__()
        self.config, self.alphas, self.clean = policy.config, policy.noising.alphas_cumprod, clean

    def prepare(self, context: Context, times: torch.Tensor) -> torch.Tensor:
        return (times * self.config.train_steps).round().long()

    def denoise(self, x: torch.Tensor, prepared: torch.Tensor, step: int) -> torch.Tensor:
        a = self.alphas[prepared[step]].view(-1, 1, 1)
        clean = self.clean.repeat_interleave(len(x) // len(self.clean), dim=0)
        noise = (x - a.sqrt() * clean) / (1 - a).sqrt()
        velocity = a.sqrt() * noise - (1 - a).sqrt() * clean
        return {"epsilon": noise, "sample": clean, "v_prediction": velocity}[self.config.prediction]


@pytest.mark.parametrize("prediction", PREDICTIONS)
def test_who_knows_the_answer_has_no_loss_and_samples_it(prediction: str) -> None:
    policy, batch = policy_of(prediction=prediction), batch_of()
    batch = on_its_context(policy.eval(), batch)
    policy.head = Oracle(policy, batch["actions"])
    assert policy.loss(batch)[1]["diffusion"] < 1e-6
    for sampler in ("ddpm", "ddim", "dpm_solver++", "unipc"):
        policy.config = dataclasses.replace(policy.config, sampler=sampler, sample_steps=4)
        torch.testing.assert_close(policy.sample(batch, generators()).actions, batch["actions"], atol=1e-3, rtol=1e-3)


@pytest.mark.parametrize("network", [TransformerConfig(depth=2), UNetConfig(widths=(16, 32))])
def test_each_network_learns_a_batch_by_heart(network) -> None:
    policy = policy_of(network=network)
    batch = on_its_context(policy.eval(), batch_of())
    optimiser = torch.optim.AdamW(policy.parameter_groups(0.0), lr=3e-3)
    for _ in range(100):
        loss, _ = policy.loss(batch)
        optimiser.zero_grad()
        loss.mean().backward()
        optimiser.step()
    error = (policy.sample(batch, generators()).actions - batch["actions"]).abs().mean()
    assert float(error) < 0.5  # of chunks whose numbers have a spread of 1


def test_draws_of_one_observation_share_its_context() -> None:
    for network in (
        ChunkTransformer(8, 3, 3, 32, 3, 4, 2, True),
        ChunkUNet(8, 3, 3, 32, (16, 32)),
    ):
        stirred(network).eval()
        x, t = torch.randn(6, 8, 3), torch.rand(6)
        context = Context(torch.randn(2, 5, 32), torch.tensor([[True] * 5, [True] * 3 + [False] * 2]))
        each = Context(context.tokens.repeat_interleave(3, 0), context.mask.repeat_interleave(3, 0))
        with torch.no_grad():
            shared = network(x, t, context)
            torch.testing.assert_close(shared, network(x, t, each), atol=1e-5, rtol=1e-4)
            hidden = Context(context.tokens.clone(), context.mask)
            hidden.tokens[1, 3:] = 9.0
            torch.testing.assert_close(shared, network(x, t, hidden), atol=1e-5, rtol=1e-4)
            hidden.tokens[1, 0] = 9.0
            assert not torch.allclose(shared[3:], network(x, t, hidden)[3:])


def test_blocks_read_pictures_and_sentence_in_turn() -> None:
    network = ChunkTransformer(8, 3, 3, 32, 3, 4, 2, alternate=True)
    text = torch.tensor([False, False, True, True])
    pictures, sentence, again = network.masks(Context(torch.zeros(2, 4, 32), text=text))
    assert torch.equal(pictures, ~text.expand(2, -1)) and torch.equal(sentence, text.expand(2, -1))
    assert torch.equal(again, pictures)
    mask = torch.tensor([[True, False, True, True]] * 2)
    masked = network.masks(Context(torch.zeros(2, 4, 32), mask, text=text))
    assert masked[0].tolist() == [[True, False, False, False]] * 2
    assert network.masks(Context(torch.zeros(2, 4, 32), mask)) == [mask] * 3
    one = torch.tensor([False, False, True, False])  # a sentence in one token: attention would have no choice
    assert network.masks(Context(torch.zeros(2, 4, 32), text=one)) == [None] * 3
    assert ChunkTransformer(8, 3, 3, 32, 3, 4, 2, False).masks(Context(torch.zeros(2, 4, 32), text=text)) == [None] * 3


# ------------------------------------------------------------------ history


def test_it_sees_the_observations_that_it_declares_and_tells_them_apart() -> None:
    policy = stirred(policy_of(observation_steps=(-2, 0))).eval()
    batch = batch_of()
    past = {**batch, "state": torch.stack((batch["state"] + 1, batch["state"]), dim=1)}
    past |= {
        f"images.{name}": torch.stack((-batch[f"images.{name}"], batch[f"images.{name}"]), 1)
        for name in ("scene", "wrist")
    }
    with torch.no_grad():
        context = look(policy.trunk, past)
        earlier = policy.trunk.encode(
            {
                name: past[name] if name == "instruction" else past[name][:, 0]
                for name in past
                if name.startswith(("images", "state", "instr"))
            }
        )
        torch.testing.assert_close(
            context.tokens, torch.cat((earlier.tokens, policy.trunk.encode(batch).tokens), 1), atol=1e-5, rtol=1e-4
        )
        answer = policy.sample(past, generators()).actions
        for name in ("state", "images.scene", "images.wrist"):
            swapped = policy.sample({**past, name: past[name].flip(1)}, generators()).actions
            assert (swapped - answer).abs().max() > 1e-4, name
    loss, parts = policy.train().loss(past)
    loss.mean().backward()
    assert policy.age_position.grad.abs().sum() > 0 and parts["pointing"] > 0


def test_an_agent_with_history_acts() -> None:
    policy = stirred(policy_of(observation_steps=(-1, 0)))
    agent = Agent(policy, normaliser(raw_batch()), SPEC, "diffusion")
    raw = raw_batch()
    seen = [
        Observation(
            {c.name: raw[f"images.{c.name}"][i].numpy() for c in SPEC.cameras}, raw["state"][i].numpy(), "tidy up"
        )
        for i in range(2)
    ]
    alone = agent.act(seen[1], 0).actions
    before = agent.act(dataclasses.replace(seen[1], past=(seen[0],)), 0).actions
    assert alone.shape == before.shape == (16, 3) and abs(alone - before).max() > 1e-4


# ------------------------------------------------------------------ one network for several arms


def arm(joints: int) -> EnvSpec:
    """An arm that is steered by its joints, or with none by its tool, and a gripper."""
    names = tuple(f"q{i} [rad]" for i in range(joints)) or ("x [m]", "y [m]", "z [m]")
    group = Group("joints", 0, joints, "joint", "rad") if joints else Group("tool", 0, 3, "position", "m")
    groups = (group, Group("gripper", len(names), len(names) + 1, "gripper"))
    return dataclasses.replace(
        SPEC,
        state=(*names, "gripper"),
        action=(*names, "gripper"),
        relative=(),
        state_groups=groups,
        action_groups=groups,
    )


def data_of(spec: EnvSpec, seed: int) -> dict:
    raw, generator = raw_batch(), torch.Generator().manual_seed(seed)
    raw["state"] = torch.rand(4, len(spec.state), generator=generator)
    raw["actions"] = torch.rand(4, 16, len(spec.action), generator=generator)
    return Normaliser.fit(raw["state"].numpy(), raw["actions"].numpy(), spec).encode(raw)


def test_every_kind_has_places_of_its_own() -> None:
    seven, six, tool = (Unified(arm(n).groups("action")) for n in (7, 6, 0))
    assert seven.places[:6].tolist() == six.places[:6].tolist() and seven.places[7] == six.places[6] == tool.places[3]
    assert not set(tool.places[:3].tolist()) & set(seven.places.tolist())
    x = torch.randn(2, 16, 7)
    spread = six.spread(x)
    assert spread.shape == (2, 16, WIDTH) and torch.equal(six.gather(spread), x)
    assert torch.equal((spread != 0).any(dim=0).any(dim=0), six.mask.bool()) and six.mask.sum() == 7
    moved = Unified((Group("tool", 0, 3, "position", "m", delta=True),))
    assert not set(moved.places.tolist()) & set(tool.places.tolist())
    with pytest.raises(VlaError, match="20 places for joint"):
        Unified((Group("many", 0, 21, "joint"),))


@pytest.mark.parametrize("network", [TransformerConfig(depth=2), UNetConfig(widths=(32, 64))])
def test_one_network_serves_a_seven_joint_arm_and_a_six_joint_one(network) -> None:
    torch.manual_seed(0)
    config = dataclasses.replace(DiffusionConfig.tiny(), unified=True, network=network)
    seven = DiffusionPolicy(config, arm(7))
    six = seven.for_arm(arm(6))
    assert all(one is other for one, other in zip(seven.parameters(), six.parameters(), strict=True))
    tasks = [(seven, data_of(arm(7), 1)), (six, data_of(arm(6), 2))]
    tasks = [(policy, on_its_context(policy.eval(), batch)) for policy, batch in tasks]
    optimiser = torch.optim.AdamW(seven.parameter_groups(0.0), lr=3e-3)
    for _ in range(100):
        loss = sum(policy.loss(batch)[0].mean() for policy, batch in tasks)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    for policy, batch in tasks:
        policy.config = dataclasses.replace(config, sample_steps=10)
        answer = policy.sample(batch, generators()).actions
        assert answer.shape == batch["actions"].shape
        assert float((answer - batch["actions"]).abs().mean()) < 0.35
    fresh = DiffusionPolicy(config, arm(6))
    fresh.load_state_dict(seven.state_dict())
    fresh.config = six.config
    torch.testing.assert_close(fresh.eval().sample(tasks[1][1], generators()).actions, answer)


def test_only_the_common_vector_and_the_same_cameras_serve_another_arm() -> None:
    with pytest.raises(VlaError, match="unified"):
        policy_of().for_arm(arm(6))
    other = dataclasses.replace(arm(6), cameras=SPEC.cameras[:1])
    with pytest.raises(VlaError, match="scene, wrist"):
        DiffusionPolicy(dataclasses.replace(DiffusionConfig.tiny(), unified=True), arm(7)).for_arm(other)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"sample_steps": 21}, "sample_steps"),
        ({"observation_steps": (-1,)}, "ascend"),
        ({"network": TransformerConfig(heads=5)}, "heads"),
        ({"network": TransformerConfig(actions_per_token=3)}, "divide"),
        ({"network": UNetConfig(widths=(8,) * 6)}, "halve"),
        ({"network": UNetConfig(kernel=4)}, "odd"),
        ({"network": UNetConfig(widths=(12,))}, "groups"),
    ],
)
def test_impossible_settings_are_refused(change: dict, message: str) -> None:
    with pytest.raises(VlaError, match=message):
        dataclasses.replace(DiffusionConfig.tiny(), **change).check("policy.")
