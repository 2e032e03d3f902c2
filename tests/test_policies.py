"""One battery over every policy of ``policies/``."""

import copy
import dataclasses
import math
import random

import numpy as np
import pytest
import torch

from tests import contributing
from vla import agent as agents
from vla import registry
from vla.contracts import BadObservationError, CameraSpec, EnvSpec, Observation, VlaError
from vla.nn.language import tokenize, with_unknown_words
from vla.nn.mobilenet import MobileNet
from vla.nn.resampler import offset_loss, pointing_accuracy, yaw_loss
from vla.nn.vision import Glimpse, _timm_network, cell_centres
from vla.normalise import Normaliser

SPEC = EnvSpec(
    "tiny",
    (CameraSpec("scene", 64, 64), CameraSpec("wrist", 32, 32)),
    ("x [m]", "y [m]", "gripper"),
    ("x [m]", "y [m]", "gripper"),
    dt=0.1,
    episode_steps=20,
    relative=((0, 0), (1, 1)),
)


def tiny_config(name: str):
    """The policy's own ``tiny()``, or a small one through the fields that most have."""
    kind = registry.load_config(name)
    if hasattr(kind, "tiny"):
        return kind.tiny()
    config = kind()
    small: dict = {key: value for key, value in {"dim": 32, "depth": 2}.items() if hasattr(config, key)}
    if hasattr(config, "trunk"):
        small["trunk"] = dataclasses.replace(config.trunk, vision="tiny", pixels=(64, 32), map_dim=16, glimpse=8)
    return dataclasses.replace(config, **small)


def generators(count: int = 4, seed: int = 0) -> list[torch.Generator]:
    return [torch.Generator().manual_seed(seed + row) for row in range(count)]


def raw_batch(n: int = 4, chunk: int = 16) -> dict:
    generator = torch.Generator().manual_seed(1)
    batch = {
        f"images.{c.name}": torch.randint(0, 256, (n, c.height, c.width, 3), dtype=torch.uint8, generator=generator)
        for c in SPEC.cameras
    }
    batch["state"] = torch.rand(n, 3, generator=generator)
    batch["actions"] = torch.rand(n, chunk, 3, generator=generator)
    batch["valid"] = torch.ones(n, chunk, dtype=torch.bool)
    batch["instruction"] = ["tidy the desk", "请整理桌面", "put the red pen in the tray", "把纸团扔进垃圾桶"][:n]
    for camera in SPEC.cameras:
        batch[f"points.{camera.name}"] = torch.rand(n, 6, generator=generator)
    batch["doing"] = ["put the red pen in the tray", "把纸团扔进垃圾桶", "take the blue block", "放下"][:n]
    return batch


def normaliser(batch: dict) -> Normaliser:
    return Normaliser.fit(batch["state"].numpy(), batch["actions"].numpy(), SPEC)


@pytest.fixture(params=[*registry.names("policy"), contributing.POLICY])
def policy(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("VLA_ALLOW", contributing.POLICY)  # code from outside, which bundles may not name by themselves
    torch.manual_seed(0)
    made = agents.build_policy(request.param, tiny_config(request.param), SPEC)
    made.registry_name = request.param
    return made


def test_loss_falls_on_a_tiny_batch(policy) -> None:
    batch = raw_batch()
    encoded = normaliser(batch).encode(batch)
    optimiser = torch.optim.AdamW(policy.parameter_groups(0.0), lr=3e-3)
    losses = []
    for _ in range(40):
        each, parts = policy.loss(encoded)
        assert each.shape == (4,) and all(value.shape == () for value in parts.values())
        loss = each.mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(float(loss.detach()))
    assert np.mean(losses[-5:]) < 0.8 * np.mean(losses[:3])


def test_grounding_is_learned_from_stills(policy) -> None:
    """One picture, two sentences, two places: only the words tell them apart."""
    batch = raw_batch()
    encoded = normaliser(batch).encode(batch)
    stills = {key: value[:1] for key, value in encoded.items() if key.startswith("images.") or key == "state"}
    stills["instruction"] = ["put the red pen in the tray", "把纸团扔进垃圾桶"]
    there, here = [0.6, 0.6, 1.0] * 2, [-0.6, -0.4, 1.0] * 2
    stills |= {f"points.{camera.name}": torch.tensor([there, here]) for camera in SPEC.cameras}
    stills["yaws"] = torch.tensor([[0.6, torch.pi, 0.0, 0.0], [-0.3, torch.pi / 2, 1.2, torch.pi]])
    stills["offsets"] = torch.tensor([[0.03, -0.01, -0.1, 0.2, 0.1, -0.1], [-0.02, 0.04, 0.0, *[torch.nan] * 3]])
    _, before = policy.loss({**encoded, "stills": stills})
    if "grounding" not in before:
        pytest.skip("this policy leaves stills alone")
    optimiser = torch.optim.AdamW(policy.parameter_groups(0.0), lr=3e-3)
    for _ in range(60):
        loss, parts = policy.loss({**encoded, "stills": stills})
        optimiser.zero_grad()
        loss.mean().backward()
        optimiser.step()
    assert parts["grounding"] < before["grounding"] - 1.0
    with torch.no_grad():
        losses, scores = policy.eval().trunk.grounding_losses(stills)
    assert scores["grounding_accuracy"] == 1.0
    assert losses["yaw"] < 0.2 * before["yaw"] and scores["yaw_error_deg"] < 8.0 < before["yaw_error_deg"]
    assert losses["offset"] < 0.2 * before["offset"] and scores["offset_error_mm"] < 6.0 < before["offset_error_mm"]


def test_each_weight_of_the_losses_turns_off_its_own(policy) -> None:
    batch = raw_batch()
    encoded = normaliser(batch).encode(batch)
    stills = {name: encoded[name] for name in encoded if name.startswith(("images.", "points.", "state", "instr"))}
    stills |= {"yaws": torch.tensor([[0.6, torch.pi, 0.0, 0.0]] * 4), "offsets": torch.full((4, 6), 0.1)}
    names = {"pointing_weight": "grounding", "yaw_weight": "yaw", "offset_weight": "offset"}
    config = policy.config
    if not all(hasattr(config, name) for name in names):
        pytest.skip("this policy has one loss")
    for kept in names:
        policy.config = dataclasses.replace(config, **{name: float(name == kept) for name in names})
        torch.manual_seed(0)
        loss, parts = policy.train().loss({**encoded, "stills": stills})
        of_head = next(iter(parts.values()))
        told = of_head + parts[names[kept]] + parts.get("pointing", 0.0)
        told = told + parts.get("words", 0.0) * getattr(config, "words_weight", 0.0)
        assert float(loss.detach().mean()) == pytest.approx(float(told), rel=1e-5) and parts[names[kept]] > 0
        assert ("pointing" in parts) == (kept == "pointing_weight")


def test_offsets_are_read_in_millimetres_where_they_are_small() -> None:
    offsets = torch.tensor([[0.01, -0.02, 0.3, 0.0, 0.4, -0.1]]).repeat(3, 1)
    tokens = torch.zeros(3, 2, 8)
    tokens[:, :, 4:7] = torch.asinh(offsets.view(3, 2, 3) / 0.02)
    assert offset_loss(tokens, offsets) == (pytest.approx(0.0, abs=1e-6), pytest.approx(0.0, abs=1e-3))
    tokens[:2, 0, 4] = math.asinh(0.016 / 0.02)  # 6 mm beside
    loss, error = offset_loss(tokens, offsets)
    assert float(loss) > 0.01 and error == pytest.approx(6.0, abs=1e-3)
    far = offsets + torch.tensor([0.1, 0.0, 0.0, 0.0, 0.0, 0.0])
    assert offset_loss(tokens, far)[1] == 0.0, "only what is near is told in millimetres"
    unknown = offsets.clone()
    unknown[:, 0] = torch.nan
    loss, error = offset_loss(tokens, unknown)
    assert float(loss) == pytest.approx(0.0, abs=1e-6) and error == 0.0


def test_a_yaw_counts_where_the_symmetry_leaves_it_alone() -> None:
    angles = torch.tensor([0.4, 0.4 + torch.pi / 2, -1.0, 2.0])
    tokens = torch.zeros(4, 2, 8)
    tokens[:, 0, :4] = torch.stack([f(n * angles) for n in (2.0, 4.0) for f in (torch.cos, torch.sin)], dim=-1)
    square = torch.tensor([[0.4, torch.pi / 2, 0.0, 0.0]]).repeat(4, 1)
    loss, error = yaw_loss(tokens[:2], square[:2])  # a quarter turn leaves a square as it was
    assert float(loss) == pytest.approx(0.0, abs=1e-6) and error == pytest.approx(0.0, abs=1e-3)
    _, error = yaw_loss(tokens[1:2], torch.tensor([[0.4, torch.pi, 0.0, 0.0]]))
    assert error == pytest.approx(90.0, abs=1e-3)
    loss, error = yaw_loss(tokens, torch.zeros(4, 4))  # round things: nothing to tell
    assert float(loss) == 0.0 and error == 0.0


def test_pointing_accuracy_counts_visible_items_within_reach() -> None:
    logits = torch.zeros(4, 2, 64)
    peaks = cell_centres(8)
    logits[:, 0, 9] = 5.0
    right, wrong, hidden = [*peaks[9].tolist(), 1.0], [*peaks[12].tolist(), 1.0], [*peaks[12].tolist(), 0.0]
    points = torch.tensor([[*row, 0.0, 0.0, 1.0] for row in (right, wrong, hidden, right)])
    assert pointing_accuracy(logits, points) == pytest.approx(2 / 3)


def test_a_glimpse_sees_the_pixels_around_its_place_and_no_others() -> None:
    glimpse = Glimpse(8, dim=5)
    glimpse.see = glimpse.out = torch.nn.Identity()
    image = torch.rand(2, 3, 32, 48)
    places = torch.tensor([(24, 16), (12, 10), (24, 4), (48, 32)]) / torch.tensor([24, 16]) - 1.0  # pixels to -1..1
    seen = glimpse(image, places.view(2, 2, 2)).reshape(2, 2, 3, 8, 8)
    assert torch.allclose(seen[0, 0], image[0, :, 12:20, 20:28], atol=1e-5)
    assert torch.allclose(seen[0, 1], image[0, :, 6:14, 8:16], atol=1e-5)
    assert torch.allclose(seen[1, 0], image[1, :, 0:8, 20:28], atol=1e-5)
    assert torch.allclose(seen[1, 1, :, :4, :4], image[1, :, 28:, 44:], atol=1e-5)
    assert not seen[1, 1, :, 4:].any(), "grey beyond the edge"
    with pytest.raises(VlaError, match="multiple of 4"):
        Glimpse(10, dim=5)


def test_our_mobilenet_is_timms_to_the_bit() -> None:
    own = MobileNet("mobilenetv4_conv_small")
    network, taken = _timm_network("mobilenetv4_conv_small", pretrained=False)
    assert list(own.state_dict()) == list(network.state_dict())
    own.load_state_dict(network.state_dict())
    image = torch.rand(2, 3, 64, 96)
    for training in (True, False):
        theirs = network.train(training).forward_intermediates(image, taken, intermediates_only=True)
        ours = own.train(training)(image)
        assert all(torch.equal(a, b) for a, b in zip(ours, theirs, strict=True))
    assert [m.shape[1] for m in ours] == own.channels


def test_an_insulated_trunk_learns_nothing_from_actions() -> None:
    torch.manual_seed(0)
    config = dataclasses.replace(tiny_config("flow"), insulated=True)
    policy = registry.load_policy("flow")(config, SPEC)
    torch.nn.init.normal_(policy.head.out.weight)
    encoded = {key: value for key, value in normaliser(raw_batch()).encode(raw_batch()).items() if "points" not in key}
    policy.loss(encoded)[0].mean().backward()
    assert all(p.grad is None for p in policy.trunk.parameters())
    assert policy.head.embed.weight.grad.abs().sum() > 0


def test_what_the_sampler_works_out_once_is_what_the_head_gives_step_by_step() -> None:
    torch.manual_seed(0)
    policy = registry.load_policy("flow")(tiny_config("flow"), SPEC).eval()
    with torch.no_grad():
        for p in policy.parameters():  # gates and outputs start at zero
            p.add_(0.1 * torch.randn_like(p))
        encoded = normaliser(raw_batch()).encode(raw_batch())
        context = policy.trunk.encode(encoded)
        noise = torch.stack([torch.randn(policy.config.chunk, 3, generator=one) for one in generators()])
        steps = policy.config.sample_steps
        x, h = policy.config.noise_scale * noise, 1.0 / steps
        for i in range(steps):
            t = torch.full((len(x),), i * h)
            middle = x + 0.5 * h * policy.head(x, t, context)
            x = x + h * policy.head(middle, t + 0.5 * h, context)
        torch.testing.assert_close(policy.sample(encoded, generators()).actions, x, atol=1e-5, rtol=1e-4)


def test_every_parameter_gets_a_gradient(policy) -> None:
    batch = raw_batch()
    encoded = normaliser(batch).encode(batch)
    # Gates and outputs start at zero and hide what is behind them until they have moved.
    with torch.no_grad():
        for p in policy.parameters():
            p.add_(0.02 * torch.randn_like(p))
    policy.loss(encoded)[0].mean().backward()
    idle = [name for name, p in policy.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0]
    assert not idle


def test_groups_hold_each_parameter_once(policy) -> None:
    grouped = [id(p) for group in policy.parameter_groups(0.1) for p in group["params"]]
    assert sorted(grouped) == sorted(id(p) for p in policy.parameters())


def test_inputs_are_not_mutated(policy) -> None:
    batch = raw_batch()
    before = copy.deepcopy(batch)
    encoder = normaliser(batch)
    encoded = encoder.encode(batch)
    kept = copy.deepcopy(encoded)
    policy.loss(encoded)
    policy.eval().sample(encoded, generators())
    policy.prepare(batch)
    for key, value in before.items():
        assert torch.equal(value, batch[key]) if torch.is_tensor(value) else value == batch[key], key
    for key, value in kept.items():
        assert torch.equal(value, encoded[key]) if torch.is_tensor(value) else value == encoded[key], key


def test_samples_depend_on_the_image_the_sentence_and_the_state(policy) -> None:
    batch = raw_batch()
    with torch.no_grad():
        for p in policy.parameters():
            p.add_(0.05 * torch.randn_like(p))
    encoded = normaliser(batch).encode(batch)
    policy.eval()
    answer = policy.sample(encoded, generators()).actions
    assert answer.shape == (4, policy.config.chunk, 3)
    assert torch.equal(answer, policy.sample(encoded, generators()).actions)
    for key, other in (
        ("images.scene", -encoded["images.scene"]),
        ("images.wrist", -encoded["images.wrist"]),
        ("state", encoded["state"] + 1),
        ("instruction", encoded["instruction"][::-1]),
    ):
        assert (policy.sample({**encoded, key: other}, generators()).actions - answer).abs().max() > 1e-5, key


def test_sentence_cache_gives_what_encoding_anew_gives(policy) -> None:
    sentences = ["tidy the desk", "把纸团扔进垃圾桶"]
    language = policy.eval().trunk.language
    with torch.no_grad():
        one = [language([s])[0][0] for s in sentences]
        both, mask = language(sentences)
    for row, kept, alone in zip(both, mask, one, strict=True):
        assert torch.allclose(row[kept], alone, atol=1e-6)


def observation(seed: int = 0) -> Observation:
    rng = np.random.default_rng(seed)
    images = {c.name: rng.integers(0, 256, (c.height, c.width, 3), dtype=np.uint8) for c in SPEC.cameras}
    return Observation(images, rng.random(3).astype(np.float32), "tidy the desk", 0.5)


def sealed(policy, folder) -> agents.Agent:
    with torch.no_grad():  # outputs start at zero, where every policy would give the same chunk
        for p in policy.parameters():
            p.add_(0.05 * torch.randn_like(p))
    made = agents.Agent(policy, normaliser(raw_batch()), SPEC, policy.registry_name, {"recipe": "none"})
    made.save(folder / "agent", golden=observation())
    return made


def test_save_and_load_give_the_same_chunk_and_golden_trace(policy, tmp_path) -> None:
    made = sealed(policy, tmp_path)
    loaded = agents.load(tmp_path / "agent")
    before, after = made.act(observation(3), 7), loaded.act(observation(3), 7)
    assert np.array_equal(before.actions, after.actions)
    assert after.time == 0.5 and after.dt == SPEC.dt
    assert loaded.replay_golden_trace() <= agents.GOLDEN_TOLERANCE
    assert loaded.provenance == {"recipe": "none"} and loaded.name == "agent"
    assert agents.load(tmp_path).name == tmp_path.name  # as a run's folder holds it
    for p in loaded.policy.parameters():  # all, since tokens are the same until the likeliest one changes
        p.data.neg_()
    loaded.policy.train().eval()
    assert loaded.replay_golden_trace() > agents.GOLDEN_TOLERANCE


def test_batched_and_single_answers_agree(policy, tmp_path) -> None:
    made = sealed(policy, tmp_path)
    together = made.act_batch([observation(1), observation(2)], [5, 6])
    assert np.allclose(together[1].actions, made.act(observation(2), 6).actions, atol=1e-4)


def test_an_agent_asked_again_draws_the_next_noise(policy, tmp_path) -> None:
    sealed(policy, tmp_path)
    one, two = agents.load(tmp_path / "agent"), agents.load(tmp_path / "agent")
    first, second = one.act(observation(3)), one.act(observation(3))
    noisy = not np.array_equal(one.act(observation(3), 1).actions, one.act(observation(3), 2).actions)
    assert np.array_equal(first.actions, second.actions) != noisy, "the same noise again and again is a trap"
    assert noisy or policy.registry_name in (contributing.POLICY, "hierarchical"), "those two are plain regression"
    for chunk in (first, second):
        assert np.array_equal(chunk.actions, two.act(observation(3)).actions)
        assert chunk.execute == one.config.execute
    assert np.array_equal(one.runner().act(observation(3)), first.actions[: one.config.execute])


def test_an_agent_acts_on_one_thread_whatever_torch_was_told(policy, tmp_path, monkeypatch) -> None:
    made, counts = sealed(policy, tmp_path), []
    sample = made.policy.sample

    def counted(*arguments):
        counts.append(torch.get_num_threads())
        return sample(*arguments)

    monkeypatch.setattr(made.policy, "sample", counted)
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(3)
        made.act(observation())
        made.threads = None
        made.act(observation())
        assert counts == [1, 3] and torch.get_num_threads() == 3
    finally:
        torch.set_num_threads(before)


@pytest.mark.parametrize("damage", ["truncate", "flip", "format", "config", "absent"])
def test_a_damaged_bundle_is_refused(policy, tmp_path, damage: str) -> None:
    sealed(policy, tmp_path)
    weights, about = tmp_path / "agent" / "model.safetensors", tmp_path / "agent" / "agent.json"
    if damage == "truncate":
        weights.write_bytes(weights.read_bytes()[:1000])
    elif damage == "flip":
        data = bytearray(weights.read_bytes())
        data[-1] ^= 1
        weights.write_bytes(bytes(data))
    elif damage == "format":
        about.write_text(about.read_text().replace('"format_version": 1', '"format_version": 99'))
    elif damage == "config":
        about.write_text(about.read_text().replace('"chunk"', '"chunks"'))
    else:
        about.unlink()
    with pytest.raises(VlaError):
        agents.load(tmp_path / "agent")


def test_a_bundle_may_not_name_code_from_elsewhere(policy, tmp_path) -> None:
    sealed(policy, tmp_path)
    about = tmp_path / "agent" / "agent.json"
    name = policy.registry_name
    about.write_text(about.read_text().replace(f'"policy": "{name}"', '"policy": "os.path:join"'))
    with pytest.raises(VlaError, match="policies"):
        agents.load(tmp_path / "agent")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda o: o.images.pop("wrist"), "wrist"),
        (lambda o: o.images.update(scene=o.images["scene"][:32]), "64, 64"),
        (lambda o: o.images.update(scene=o.images["scene"].astype(np.float32)), "uint8"),
        (lambda o: o.state.fill(np.nan), "NaN"),
    ],
)
def test_a_bad_observation_is_refused(policy, tmp_path, change, message: str) -> None:
    made, seen = sealed(policy, tmp_path), observation()
    change(seen)
    with pytest.raises(BadObservationError, match=message):
        made.act(seen)


def test_less_noise_gives_chunks_that_differ_less() -> None:
    torch.manual_seed(0)
    policy = registry.load_policy("flow")(tiny_config("flow"), SPEC).eval()
    torch.nn.init.normal_(policy.head.out.weight, std=0.2)
    batch = raw_batch()
    encoded = {key: value[:1] for key, value in normaliser(batch).encode(batch).items()}
    spreads = []
    for scale in (1.0, 0.5, 0.0):
        policy.config = dataclasses.replace(policy.config, noise_scale=scale)
        answers = [policy.sample(encoded, [one]).actions for one in generators(6, seed=3)]
        spreads.append(float(torch.cat(answers).std(dim=0).mean()))
    assert spreads[0] > 1.5 * spreads[1] > 0.0 == spreads[2]


def test_words_that_mean_nothing_come_between_the_others() -> None:
    rng, tokens = random.Random(0), tokenize("put the red pen in the tray", 4096)
    mixed = [with_unknown_words(tokens, 4096, rng) for _ in range(400)]
    longer = [one for one in mixed if len(one) > len(tokens)]
    assert 80 < len(longer) < 200
    for one in longer:
        rest = iter(one)
        assert all(token in rest for token in tokens), "the sentence's own words, in their order"
        assert all(0 < gram < 4096 for token in one for gram in token)
    full = tokenize("go " * 28, 4096)
    assert all(with_unknown_words(full, 4096, rng) == full for _ in range(50)), "nothing is cut off for their sake"
