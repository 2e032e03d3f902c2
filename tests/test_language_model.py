"""The trunk with a language model, on a tiny one of random weights; and that SmolLM2 comes out of its package whole."""

from __future__ import annotations

import copy
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import nn

from policies.flow import FlowPolicy
from policies.flow_config import FlowConfig
from tests.fake_env import DotEnv
from vla.bundle import bases, own_tensors, put
from vla.contracts import VlaError
from vla.nn.config import LanguageModelTrunkConfig, TrunkConfig
from vla.nn.language_model import KNOWN_NEXT, load_language_model, next_token_probabilities
from vla.nn.language_trunk import LanguageModelTrunk, Memory
from vla.nn.projector import Projector
from vla.nn.trunk import make_trunk

SPEC = DotEnv().env_spec
SENTENCES = ["tidy the desk", "请整理桌面, please", "put the red pen in the tray next to it", ""]
TINY = LanguageModelTrunkConfig(
    model="tiny", layers=2, vision="tiny", pixels=(32,), map_dim=16, tokens=4, slots=3, read=(1, 2)
)


def observations(count: int = len(SENTENCES)) -> dict:
    generator = torch.Generator().manual_seed(1)
    images = {
        f"images.{camera.name}": torch.rand(count, 3, camera.height, camera.width, generator=generator) * 2 - 1
        for camera in SPEC.cameras
    }
    state = torch.randn(count, len(SPEC.state), generator=generator)
    return {**images, "state": state, "instruction": SENTENCES[:count]}


def trunk(**changes: object) -> LanguageModelTrunk:
    """One whose gates are open, as they are once it has learnt."""
    torch.manual_seed(0)
    made = make_trunk(replace(TINY, **changes), 32, SPEC)  # type: ignore[arg-type]
    assert isinstance(made, LanguageModelTrunk)
    nn.init.constant_(made.gate, 1.0)
    for name, parameter in made.named_parameters():
        if "lora_B" in name:  # zero at first, as LoRA has it
            nn.init.normal_(parameter, std=0.05)
    return made.eval()


def rows(batch: dict, *which: int) -> dict:
    return {
        name: [value[i] for i in which] if name == "instruction" else value[list(which)]
        for name, value in batch.items()
    }


def test_smollm2_says_what_it_is_known_to_say() -> None:
    """Its tokenizer, its weights and the order of its rows are right, or these would not come out."""
    model = load_language_model("smollm2")
    for (text, token), least in zip(KNOWN_NEXT, (0.7, 0.5), strict=True):
        probabilities = next_token_probabilities(model, text)
        best = int(probabilities.argmax())
        assert model.tokenizer.decode([best]) == token and probabilities[best] > least
    assert model.tokenizer.encode("in 2026").tokens == ["in", "Ġ", "2", "0", "2", "6"]  # digits alone
    assert len(load_language_model("smollm2", 3).model.layers) == 3


def test_a_model_that_cannot_be_had_says_which_can(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(VlaError, match=r"no language model 'nobody/nothing' .* smollm2 .*, tiny, or a folder"):
        load_language_model("nobody/nothing")
    with pytest.raises(VlaError, match=r"holds no language model: config\.json, model\.safetensors, tokenizer\.json"):
        load_language_model(str(tmp_path))


@pytest.mark.parametrize("kind", ["linear", "shuffle", "perceiver", "queries"])
@pytest.mark.parametrize("grid", [8, 5])
def test_projectors_give_tokens_that_depend_on_the_map(kind: str, grid: int) -> None:
    torch.manual_seed(0)
    project = Projector(kind, 16, grid, 9, 24, 10)  # type: ignore[arg-type]
    features, words = torch.randn(2, grid * grid, 16, requires_grad=True), torch.randn(4, 10)
    tokens = project(features, words)
    assert tokens.shape == (4, 9, 24)
    alike = torch.allclose(tokens[0], tokens[1])  # the same map, another sentence
    assert alike != (kind == "queries") and not torch.allclose(tokens[0], tokens[2])
    tokens.square().sum().backward()
    assert features.grad is not None and (features.grad.abs().sum(-1) > 0).all()  # nothing of the map is left out
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in project.parameters())


@torch.no_grad()
def test_a_sentence_is_read_once_and_the_same_alone_in_a_batch_and_from_the_cache() -> None:
    ours, batch = trunk(), observations()
    together = ours.encode(batch)
    again = ours.encode(batch)
    assert torch.equal(together.tokens, again.tokens) and len(ours._sentences) == len(SENTENCES)
    for i in range(len(SENTENCES)):
        ours.train().eval()  # forgets
        alone = ours.encode(rows(batch, i))
        for one, other in zip(alone.extras["layers"], together.extras["layers"], strict=True):
            torch.testing.assert_close(one[0], other[i], atol=1e-5, rtol=1e-4)


@torch.no_grad()
def test_who_may_look_at_what() -> None:
    ours, batch = trunk(), observations(2)
    seen = ours.perceive(batch)
    other = ours.perceive({**batch, **{name: -value for name, value in batch.items() if name.startswith("images")}})
    assert torch.equal(seen.words, other.words)  # the sentence does not see the cameras
    longer = ours.perceive({**batch, "instruction": [f"{one} now" for one in batch["instruction"]]})
    count = int(seen.memory.mask[0].sum())
    for (keys, _), (later, _) in zip(seen.memory.layers, longer.memory.layers, strict=True):
        torch.testing.assert_close(keys[0, :, :count], later[0, :, :count])  # nor what comes after in it
    hidden, _ = ours.understand(seen)
    changed = replace(seen, state=seen.state + 1.0)  # the last token
    for before, after in zip(hidden[-1:], ours.understand(changed)[0][-1:], strict=True):
        assert not torch.allclose(before[:, 0], after[:, 0])  # the first camera token sees it: both ways


@torch.no_grad()
def test_answers_with_a_memory_are_those_without() -> None:
    ours, batch = trunk(), observations()
    for name, parameter in ours.named_parameters():
        if "rarity" in name:
            nn.init.constant_(parameter, 0.0)
    answers = ours.answer(batch, most=5)
    assert len(answers) == len(SENTENCES)
    # Greedy tokens are the likeliest at each place when the whole answer is given at once.
    seen, reader = ours.perceive(batch), ours.reader
    _, memory = ours.understand(seen)
    tokens = torch.full((len(SENTENCES), 1), reader.end)
    for _ in range(5):
        count = tokens.shape[1]
        causal = torch.ones(count, count, dtype=torch.bool).tril().expand(len(tokens), -1, -1)
        visible = torch.cat((memory.mask[:, None].expand(-1, count, -1), causal), dim=2)
        (states,), _ = reader.run(reader.embed(tokens), visible, Memory(memory.layers, memory.mask), (2,))
        tokens = torch.cat((tokens, reader.logits(states[:, -1:]).argmax(-1)), dim=1)
    whole = []
    for row in tokens[:, 1:].tolist():
        whole.append(reader.text(row[: row.index(reader.end)] if reader.end in row else row))
    assert answers == whole


def test_likelihood_counts_the_answers_tokens_alone_and_is_learnt() -> None:
    ours, batch = trunk(tune="full"), observations()
    answers = ["a pen", "笔筒里有一支笔", "yes, in the tray behind the box", "no"]
    with torch.no_grad():
        together = ours.likelihood(batch, answers)
        for i, answer in enumerate(answers):
            torch.testing.assert_close(ours.likelihood(rows(batch, i), [answer])[0], together[i], atol=1e-4, rtol=1e-4)
    optimizer = torch.optim.Adam([p for p in ours.train().parameters() if p.requires_grad], lr=1e-2)
    for _ in range(60):
        optimizer.zero_grad()
        ours.likelihood(batch, answers).mean().backward()
        optimizer.step()
    with torch.no_grad():
        assert ours.eval().likelihood(batch, answers).mean() < 0.2 * together.mean()
    assert ours.answer(batch)[1] == answers[1]  # and Chinese comes out as it went in


def test_adapters_merged_are_those_beside() -> None:
    ours, batch = trunk(tune="lora"), observations()
    with torch.no_grad():
        beside = ours.encode(batch).tokens
        merged = copy.deepcopy(ours)
        layers = [one for one in merged.reader.model.modules() if hasattr(one, "merge") and hasattr(one, "lora_A")]
        assert len(layers) == 4 * 2
        for layer in layers:
            layer.merge()
        merged.train().eval()
        torch.testing.assert_close(merged.encode(batch).tokens, beside, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize(("tune", "stored"), [("frozen", 0), ("lora", 16), ("full", 20)])
def test_a_bundle_holds_what_was_trained_and_names_the_base(tune: str, stored: int) -> None:
    torch.manual_seed(0)
    config = FlowConfig(trunk=replace(TINY, tune=tune), dim=32, depth=2, heads=4)  # type: ignore[arg-type]
    policy = FlowPolicy(config, SPEC).eval()
    tensors = own_tensors(policy)
    assert sum(name.startswith("trunk.reader.model.") for name in tensors) == stored
    found = bases(policy)["trunk.reader.model"]
    assert (found["source"], found["version"]) == ("tiny", "1") and (found["parameters"] > 0) == (tune != "full")
    torch.manual_seed(1)
    other = FlowPolicy(config, SPEC).eval()
    put(other, tensors)
    generators = [torch.Generator().manual_seed(i) for i in range(len(SENTENCES))]
    first = policy.sample(observations(), generators).actions
    generators = [torch.Generator().manual_seed(i) for i in range(len(SENTENCES))]
    torch.testing.assert_close(other.sample(observations(), generators).actions, first)


def test_it_starts_as_the_compact_trunk_and_takes_over_its_eyes() -> None:
    """Shut gates leave slots and state as they are; and the names of what both trunks have are the same."""
    compact = make_trunk(TrunkConfig(vision="tiny", pixels=(32,), map_dim=16, slots=3, language_depth=0), 32, SPEC)
    names = {name for name in compact.state_dict() if not name.startswith("language.")}
    assert names <= set(trunk().state_dict())
    shut = make_trunk(TINY, 32, SPEC).eval()
    with torch.no_grad():
        context = shut.encode(observations())
    assert torch.equal(context.extras["layers"][0], context.extras["layers"][1])


def test_heads_read_the_layers_one_each() -> None:
    policy = FlowPolicy(FlowConfig(trunk=TINY, dim=32, depth=2, heads=4), SPEC)
    context = policy.trunk.encode(observations())
    marked = replace(context, extras={"layers": [torch.zeros_like(context.tokens), torch.ones_like(context.tokens)]})
    keys = policy.head.remember(marked)
    assert torch.equal(keys[0][1], torch.zeros_like(keys[0][1])) and keys[1][1].abs().sum() > 0
    with pytest.raises(VlaError, match=r"goes beyond --policy\.trunk\.layers 2"):
        replace(TINY, read=(1, 3)).check("policy.trunk.")
    with pytest.raises(VlaError, match="cannot be cut to 99"):
        load_language_model("smollm2", 99)
