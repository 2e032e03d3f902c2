"""Tokenisers both ways, the decoder with and without its cache, and what the tokens policy makes of them."""

import copy
import dataclasses

import numpy as np
import pytest
import torch

from policies.tokens import TokensPolicy, choose
from policies.tokens_config import BeastConfig, BinsConfig, FastConfig, TokensConfig
from tests.test_policies import SPEC, generators, normaliser, raw_batch
from vla.contracts import VlaError
from vla.nn.action_tokens import Beast, Bins, Fast, b_spline_basis
from vla.nn.context import Context
from vla.nn.decoder import Decoder

T, A = 16, 3


def chunks(count: int = 600, seed: int = 0) -> torch.Tensor:
    """Smooth walks in two dimensions and a gripper that closes at some step."""
    generator = torch.Generator().manual_seed(seed)
    walks = torch.randn(count, T, 2, generator=generator).cumsum(dim=1) / 3
    closes = torch.randint(T, (count, 1, 1), generator=generator)
    gripper = torch.where(torch.arange(T)[:, None] >= closes, -1.0, 1.0)
    return torch.cat((walks, gripper), dim=-1)


def made(kind: str):
    return {"bins": lambda: Bins(T, A), "beast": lambda: Beast(T, (3, 3, 0)), "fast": lambda: Fast(T, A, 512)}[kind]()


@pytest.fixture(params=["bins", "beast", "fast"])
def tokeniser(request: pytest.FixtureRequest):
    one = made(request.param)
    one.fit(chunks())
    return one


def within(tokeniser, actions: torch.Tensor) -> torch.Tensor:
    """Those chunks that nothing is clipped of."""
    return torch.stack([one for one in actions if tokeniser.outside(one[None]) == 0])


def test_bins_come_back_within_half_a_bin() -> None:
    bins = made("bins")
    bins.fit(chunks())
    actions = within(bins, chunks(100, seed=1))
    tokens = bins.encode(actions)
    again, malformed = bins.decode(tokens)
    width = (bins.quantiles.high - bins.quantiles.low) / 256
    assert ((again - actions).abs() <= 0.5001 * width).all() and not malformed.any()
    assert torch.equal(bins.encode(again), tokens)
    low, high = np.quantile(chunks().flatten(0, 1).numpy(), (0.01, 0.99), axis=0)
    np.testing.assert_allclose(bins.quantiles.low[:2], low[:2], rtol=1e-5)
    np.testing.assert_allclose(bins.quantiles.high[:2], high[:2], rtol=1e-5)


def test_a_chunk_that_is_a_spline_comes_back_within_half_a_bin_of_its_control_points() -> None:
    beast = made("beast")
    beast.fit(chunks())
    points = beast.control_points(within(beast, chunks(100, seed=1)))
    actions = torch.einsum("atp,bpa->bta", beast.basis, points)
    torch.testing.assert_close(beast.control_points(actions), points, atol=1e-4, rtol=1e-4)
    again, malformed = beast.decode(beast.encode(actions))
    width = (beast.bins.quantiles.high - beast.bins.quantiles.low) / 256
    assert ((again - actions).abs() <= 0.51 * width).all() and not malformed.any(), "its weights sum to one"
    assert beast.encode(actions).shape == (len(actions), 8 * A)


def test_the_spline_basis_is_scipys_and_the_best_fit() -> None:
    from scipy.interpolate import make_lsq_spline

    basis, times = b_spline_basis(T, 8, 3), np.linspace(0, 1, T)
    np.testing.assert_allclose(basis.sum(axis=1), 1.0)
    assert basis[0, 0] == 1.0 and basis[-1, -1] == 1.0
    knots = np.concatenate((np.zeros(3), np.linspace(0, 1, 6), np.ones(3)))
    curve = chunks(1)[0, :, 0].double().numpy()
    reference = make_lsq_spline(times, curve, knots, 3)
    np.testing.assert_allclose(np.linalg.pinv(basis) @ curve, reference.c, atol=1e-9)
    steps = b_spline_basis(T, 8, 0)
    assert (steps.sum(axis=1) == 1).all() and (steps.sum(axis=0) == 2).all()


def test_fast_comes_back_within_half_a_step_of_each_frequency() -> None:
    from scipy.fft import dct

    fast = made("fast")
    fast.fit(chunks())
    actions = within(fast, chunks(100, seed=1))
    scaled = 2 * fast.quantiles.scale(actions).numpy() - 1
    np.testing.assert_allclose(fast.frequencies(actions), 10 * dct(scaled, axis=1, norm="ortho"), atol=1e-4)
    tokens = fast.encode(actions)
    again, malformed = fast.decode(tokens)
    assert not malformed.any()
    assert (
        fast.frequencies(again.clamp(fast.quantiles.low, fast.quantiles.high)) - fast.frequencies(again)
    ).abs().max() < 99
    error = torch.einsum(
        "ft,bta->bfa", fast.transform, 2 * (again - actions) / (fast.quantiles.high - fast.quantiles.low)
    )
    assert error.abs().max() <= 0.5001 / 10
    lengths = (tokens >= 0).sum(dim=1)
    assert lengths.float().mean() < T * A / 2, "what often stands together is one token"
    symbols = torch.stack([fast.symbols[row[row >= 0]].sum() for row in tokens])
    assert (symbols == T * A).all()


def test_what_is_outside_the_quantiles_is_clipped_and_counted(tokeniser) -> None:
    actions = within(tokeniser, chunks(50, seed=2))[:4].clone()
    assert tokeniser.outside(actions) == 0.0
    actions[0, :, 0] = 1e4
    assert 0.0 < tokeniser.outside(actions) <= 0.25
    again, malformed = tokeniser.decode(tokeniser.encode(actions))
    assert torch.isfinite(again).all() and again[..., 0].abs().max() < 100 and not malformed.any()


def test_a_malformed_sequence_still_gives_a_chunk(tokeniser) -> None:
    tokens = tokeniser.encode(chunks(3, seed=3))
    whole, _ = tokeniser.decode(tokens)
    for bad in (
        tokens[:, :2],
        torch.cat((tokens, tokens.clamp(min=0)), dim=1),
        tokens.index_fill(1, torch.tensor([1]), 10**6),
        torch.full((3, 1), -1),
    ):
        actions, malformed = tokeniser.decode(bad)
        assert actions.shape == whole.shape and torch.isfinite(actions).all() and malformed.all()


def test_a_codebook_goes_with_the_weights() -> None:
    fast, other = made("fast"), made("fast")
    fast.fit(chunks())
    actions = chunks(20, seed=4)
    other.encode(actions)
    other.load_state_dict(fast.state_dict())
    assert torch.equal(other.encode(actions), fast.encode(actions))
    assert torch.equal(copy.deepcopy(fast).encode(actions), fast.encode(actions))
    other.merges[0] = 10**6
    with pytest.raises(VlaError, match="codebook"):
        other.encode(actions)
    with pytest.raises(VlaError, match="larger than 81"):
        Fast(T, A, 60)


def test_control_points_must_fit() -> None:
    with pytest.raises(VlaError, match="control points"):
        Beast(8, (3, 3, 0), points=9)


# ------------------------------------------------------------------ the decoder


@pytest.mark.parametrize("masked", [False, True])
def test_one_by_one_with_a_cache_is_all_at_once_without(masked: bool) -> None:
    torch.manual_seed(0)
    decoder = Decoder(32, 3, 4).eval()
    mask = torch.tensor([[True] * 5, [True, True, False, True, False]]) if masked else None
    context, x = Context(torch.randn(2, 5, 32), mask), torch.randn(2, 7, 32)
    with torch.no_grad():
        whole, _ = decoder(x, decoder.remember(context), mask, causal=True)
        cache, steps = decoder.remember(context), []
        for place in range(7):
            seen, cache = decoder(x[:, place : place + 1], cache, mask, causal=True)
            steps.append(seen)
        torch.testing.assert_close(torch.cat(steps, dim=1), whole, atol=1e-5, rtol=1e-4)
        # The reference: no cache, one sequence of context and tokens, one matrix of what sees what.
        x_all, sees = torch.cat((context.tokens, x), dim=1), torch.ones(2, 12, 12, dtype=torch.bool)
        sees[:, :5, 5:] = False
        sees[:, 5:, 5:] = torch.ones(7, 7).tril().bool()
        if mask is not None:
            sees[:, :, :5] &= mask[:, None]
        for block in decoder.blocks:
            seen = block.norm_self(x_all)
            x_all = x_all + block.attend_self(seen, mask=sees)
            x_all = x_all + block.mlp(block.norm_mlp(x_all))
        torch.testing.assert_close(decoder.norm(x_all)[:, 5:], whole, atol=1e-5, rtol=1e-4)


def test_who_sees_whom() -> None:
    torch.manual_seed(0)
    decoder = Decoder(32, 2, 4).eval()
    mask = torch.tensor([[True, True, False]])
    tokens, x = torch.randn(1, 3, 32, requires_grad=True), torch.randn(1, 4, 32, requires_grad=True)
    for causal in (True, False):
        seen, _ = decoder(x, decoder.remember(Context(tokens, mask)), mask, causal)
        of_x, of_tokens = torch.autograd.grad(seen[0, 1] @ torch.arange(32.0), (x, tokens))
        touched = of_x[0].abs().sum(dim=1) > 0
        assert touched.tolist() == ([True, True, False, False] if causal else [True] * 4)
        assert (of_tokens[0].abs().sum(dim=1) > 0).tolist() == [True, True, False]


def test_a_draw_follows_the_probabilities() -> None:
    logits = torch.tensor([[0.0, 1.0, -torch.inf, 2.0]])
    uniform = (torch.arange(10_000) + 0.5) / 10_000
    tokens, likely = choose(logits.expand(10_000, -1), uniform, 0.5)
    shares = torch.bincount(tokens, minlength=4) / 10_000
    torch.testing.assert_close(shares, (logits[0] / 0.5).softmax(dim=0), atol=2e-4, rtol=0)
    torch.testing.assert_close(likely, logits[0].log_softmax(dim=0)[tokens])
    assert choose(logits, None, 0.0)[0] == 3
    assert choose(logits, torch.zeros(1), 1.0)[0] == 0 and choose(logits.roll(1), torch.zeros(1), 1.0)[0] == 0


# ------------------------------------------------------------------ the policy

KINDS = [
    (BinsConfig(), "autoregressive"),
    (BinsConfig(bins=64), "parallel"),
    (BeastConfig(points=6), "autoregressive"),
    (BeastConfig(), "parallel"),
    (FastConfig(vocabulary=256), "autoregressive"),
    (BinsConfig(), "l1"),
]


def policy_of(kind, decoding: str, **more) -> TokensPolicy:
    torch.manual_seed(0)
    config = dataclasses.replace(TokensConfig.tiny(), tokeniser=kind, decoding=decoding, temperature=0.0, **more)
    policy = TokensPolicy(config, SPEC)
    encoded = normaliser(raw_batch()).encode(raw_batch())
    policy.fit(encoded["state"], encoded["actions"])
    return policy


@pytest.mark.parametrize(("kind", "decoding"), KINDS)
def test_each_kind_learns_a_batch_by_heart(kind, decoding: str) -> None:
    policy, batch = policy_of(kind, decoding).eval(), normaliser(raw_batch()).encode(raw_batch())
    batch["context"] = Context(policy.trunk.encode(batch).tokens.detach())  # what the head alone has to learn from
    optimiser = torch.optim.AdamW(policy.parameter_groups(0.0), lr=3e-3)
    for _ in range(100):
        loss, parts = policy.loss(batch)
        optimiser.zero_grad()
        loss.mean().backward()
        optimiser.step()
    assert float(parts.get("clipped", 0.0)) <= 0.09
    answer = policy.sample(batch, generators())
    wanted = batch["actions"]
    if policy.tokeniser is not None:
        wanted, _ = policy.tokeniser.decode(policy.tokeniser.encode(wanted))
        assert answer.log_probability.shape == (4,) and policy.counts == {"chunks": 4, "malformed": 0}
    assert float((answer.actions - wanted).abs().mean()) < 0.15


@pytest.mark.parametrize(("kind", "decoding"), [KINDS[0], KINDS[4]])
def test_the_likelihood_of_what_was_decoded_is_what_training_gives_it(kind, decoding: str) -> None:
    policy, batch = policy_of(kind, decoding).eval(), normaliser(raw_batch()).encode(raw_batch())
    policy.config = dataclasses.replace(policy.config, temperature=1.0)
    with torch.no_grad():
        for parameter in policy.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
        context = policy.trunk.encode(batch)
        tokens, likely = policy._one_by_one(context, generators())
        logits = policy._taught(context, tokens)
        used = torch.zeros(len(tokens), dtype=torch.long)
        for place in range(tokens.shape[1]):  # of which the constraint leaves only those that still fit
            fits = policy.tokeniser.symbols <= (policy.tokeniser.total - used)[:, None]
            logits[:, place] = logits[:, place].masked_fill(~fits & fits.any(dim=1, keepdim=True), -torch.inf)
            used += torch.where(tokens[:, place] >= 0, policy.tokeniser.symbols[tokens[:, place].clamp(min=0)], 0)
        of_each = logits.log_softmax(dim=-1).gather(-1, tokens.clamp(min=0)[..., None])[..., 0]
        torch.testing.assert_close(likely, of_each.masked_fill(tokens < 0, 0.0).sum(dim=1), atol=1e-3, rtol=1e-4)
        assert (used == policy.tokeniser.total).all(), "every chunk is whole"
        assert not policy.tokeniser.decode(tokens)[1].any()


def test_a_smoothed_target_counts_its_neighbours() -> None:
    policy = policy_of(BinsConfig(bins=8), "parallel", smoothing=1.0)
    tokens, logits = torch.full((1, 2), 3), torch.zeros(1, 2, 8)
    near, far = logits.clone(), logits.clone()
    near[..., 4] = far[..., 7] = 1.0
    assert (policy._cross_entropy(near, tokens) < policy._cross_entropy(logits, tokens)).all()
    assert (policy._cross_entropy(far, tokens) > policy._cross_entropy(logits, tokens)).all()


def test_what_is_past_the_end_is_not_learnt() -> None:
    batch = normaliser(raw_batch()).encode(raw_batch())
    for kind, decoding in (KINDS[0], KINDS[1], KINDS[5]):
        policy = policy_of(kind, decoding).eval()  # in training the sentence is varied
        cut = {**batch, "valid": torch.arange(16).expand(4, -1) < 9}
        other = {**cut, "actions": torch.where(cut["valid"][..., None], batch["actions"], 0.3)}
        torch.testing.assert_close(policy.loss(cut)[1]["tokens"], policy.loss(other)[1]["tokens"])


def test_impossible_settings_are_refused() -> None:
    for change, message in (
        ({"tokeniser": FastConfig(), "decoding": "parallel"}, "equal length"),
        ({"tokeniser": BeastConfig(points=3)}, "points 3"),
        ({"tokeniser": BeastConfig(points=17)}, "points 17"),
        ({"heads": 5}, "multiple"),
    ):
        with pytest.raises(VlaError, match=message):
            dataclasses.replace(TokensConfig.tiny(), **change).check("policy.")
