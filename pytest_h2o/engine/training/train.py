"""Train the shipped model: a small Llama on documentation text, with PyTorch on the CPU.

Usage (the ``train`` extra installs PyTorch)::

    python -m pytest_h2o.engine.training.train corpus out --minutes 80

``corpus`` is what :mod:`pytest_h2o.engine.training.make_corpus` wrote. The run is seeded and ends
after the given time, the schedule stretched over it (the number of steps depends on the machine and
is recorded); ``out`` receives ``config.json``, ``model.safetensors`` (fp16), ``tokenizer.model``
and ``training.json`` (settings, losses, the unigram baseline).
"""

from __future__ import annotations

import argparse
import json
import math
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import sentencepiece as spm
import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from torch import Tensor, nn

CONFIG = {
    "architectures": ["LlamaForCausalLM"],
    "model_type": "llama",
    "hidden_size": 256,
    "intermediate_size": 704,
    "num_hidden_layers": 8,
    "num_attention_heads": 8,
    "num_key_value_heads": 4,
    "head_dim": 32,
    "vocab_size": 4096,
    "max_position_embeddings": 4096,
    "rms_norm_eps": 1e-5,
    "rope_theta": 10000.0,
    "rope_scaling": None,
    "hidden_act": "silu",
    "attention_bias": False,
    "mlp_bias": False,
    "attention_dropout": 0.0,
    "initializer_range": 0.02,
    "tie_word_embeddings": True,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "torch_dtype": "float16",
    "use_cache": True,
}
DIM, HEADS, KV_HEADS, HEAD_DIM = 256, 8, 4, 32
SEED = 20
BATCH_TOKENS = 8_192
# Long sequences come last: short ones teach words fast, long ones teach the cache to be worth
# reading.
SEQUENCE_PHASES = ((0.0, 256), (0.45, 512), (0.75, 1024), (0.92, 2048))
PEAK_LR, FINAL_LR_SHARE, WARMUP_STEPS, WEIGHT_DECAY = 3e-3, 0.02, 60, 0.1


def train_tokenizer(corpus: Path, out: Path) -> spm.SentencePieceProcessor:
    """Byte-fallback BPE; a newline is a piece of its own so that layout survives."""
    lines = corpus.joinpath("train.txt").read_text("utf-8").replace("\0", "\n").split("\n")
    sample = [line for line in lines if 10 < len(line) < 2000][::3]
    spm.SentencePieceTrainer.train(
        sentence_iterator=iter(sample),
        model_prefix=str(out / "tokenizer"),
        model_type="bpe",
        vocab_size=CONFIG["vocab_size"],
        byte_fallback=True,
        split_digits=True,
        normalization_rule_name="identity",
        remove_extra_whitespaces=False,
        allow_whitespace_only_pieces=True,
        user_defined_symbols=["\n"],
        character_coverage=0.9995,
        unk_id=0,
        bos_id=1,
        eos_id=2,
        pad_id=-1,
        minloglevel=1,
    )
    (out / "tokenizer.vocab").unlink()
    return spm.SentencePieceProcessor(model_file=str(out / "tokenizer.model"))


def encode_documents(tokenizer: spm.SentencePieceProcessor, path: Path) -> np.ndarray:
    """Token ids of all documents, each opened by BOS and closed by EOS, as one int64 vector."""
    documents = path.read_text("utf-8").split("\0")
    encoded = tokenizer.encode(documents, add_bos=True, add_eos=True, num_threads=2)
    return np.fromiter((token for document in encoded for token in document), dtype=np.int64)


class RMSNorm(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(DIM))

    def forward(self, x: Tensor) -> Tensor:
        return F.rms_norm(x.float(), (DIM,), self.weight, CONFIG["rms_norm_eps"])


def rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    first, second = x.chunk(2, dim=-1)
    return x * cos + torch.cat((-second, first), dim=-1) * sin


def causal_attention(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """The fused CPU kernel has a slow backward pass: below 1024 tokens three plain operations beat
    it.
    """
    length = q.shape[2]
    if length >= 1024:
        return F.scaled_dot_product_attention(q, k, v, is_causal=True)
    future = torch.full((length, length), float("-inf"), dtype=q.dtype).triu(1)
    return torch.softmax((q * HEAD_DIM**-0.5) @ k.transpose(-1, -2) + future, dim=-1) @ v


class SelfAttention(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.q_proj = nn.Linear(DIM, HEADS * HEAD_DIM, bias=False)
        self.k_proj = nn.Linear(DIM, KV_HEADS * HEAD_DIM, bias=False)
        self.v_proj = nn.Linear(DIM, KV_HEADS * HEAD_DIM, bias=False)
        self.o_proj = nn.Linear(HEADS * HEAD_DIM, DIM, bias=False)

    def forward(self, x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        batch, length, _ = x.shape
        q = self.q_proj(x).view(batch, length, HEADS, HEAD_DIM).transpose(1, 2)
        k = self.k_proj(x).view(batch, length, KV_HEADS, HEAD_DIM).transpose(1, 2)
        v = self.v_proj(x).view(batch, length, KV_HEADS, HEAD_DIM).transpose(1, 2)
        q, k = rotate(q, cos, sin).to(v.dtype), rotate(k, cos, sin).to(v.dtype)
        group = HEADS // KV_HEADS
        k, v = k.repeat_interleave(group, dim=1), v.repeat_interleave(group, dim=1)
        y = causal_attention(q, k, v)
        return self.o_proj(y.transpose(1, 2).reshape(batch, length, DIM))


class MLP(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        hidden = CONFIG["intermediate_size"]
        self.gate_proj = nn.Linear(DIM, hidden, bias=False)
        self.up_proj = nn.Linear(DIM, hidden, bias=False)
        self.down_proj = nn.Linear(hidden, DIM, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.down_proj(F.silu(self.gate_proj(x)) * self.up_proj(x))


class DecoderLayer(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.input_layernorm, self.self_attn = RMSNorm(), SelfAttention()
        self.post_attention_layernorm, self.mlp = RMSNorm(), MLP()

    def forward(self, x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        x = x + self.self_attn(self.input_layernorm(x), cos, sin)
        return x + self.mlp(self.post_attention_layernorm(x))


class Llama(nn.Module):
    """Parameter names are those of the usual Llama checkpoints, below ``model.``."""

    def __init__(self) -> None:
        super().__init__()
        self.embed_tokens = nn.Embedding(CONFIG["vocab_size"], DIM)
        self.layers = nn.ModuleList(DecoderLayer() for _ in range(CONFIG["num_hidden_layers"]))
        self.norm = RMSNorm()
        self.apply(self._initialise)
        for layer in self.layers:
            for projection in (layer.self_attn.o_proj, layer.mlp.down_proj):
                nn.init.normal_(projection.weight, std=0.02 / math.sqrt(2 * len(self.layers)))

    @staticmethod
    def _initialise(module: nn.Module) -> None:
        if isinstance(module, nn.Linear | nn.Embedding):
            nn.init.normal_(module.weight, std=0.02)

    def forward(self, tokens: Tensor, targets: Tensor) -> Tensor:
        length = tokens.shape[1]
        frequency = CONFIG["rope_theta"] ** (-torch.arange(0, HEAD_DIM, 2).float() / HEAD_DIM)
        angle = torch.outer(torch.arange(length).float(), frequency)
        cos, sin = torch.cat((angle, angle), -1).cos(), torch.cat((angle, angle), -1).sin()
        x = self.embed_tokens(tokens)
        for layer in self.layers:
            x = layer(x, cos, sin)
        logits = F.linear(self.norm(x), self.embed_tokens.weight)
        return F.cross_entropy(logits.view(-1, logits.shape[-1]).float(), targets.reshape(-1))


def batches(tokens: np.ndarray, seconds: float) -> Iterator[tuple[float, Tensor, Tensor]]:
    """Random windows until the time is up, each with the progress in [0, 1); lengths follow
    :data:`SEQUENCE_PHASES`.
    """
    rng = np.random.default_rng(SEED)
    started = time.monotonic()
    while (progress := (time.monotonic() - started) / seconds) < 1:
        length = [size for start, size in SEQUENCE_PHASES if progress >= start][-1]
        starts = rng.integers(0, len(tokens) - length - 1, BATCH_TOKENS // length)
        windows = torch.from_numpy(np.stack([tokens[s : s + length + 1] for s in starts]))
        yield progress, windows[:, :-1], windows[:, 1:]


def make_optimizers(model: Llama) -> list[torch.optim.Optimizer]:
    """Muon for the hidden matrices, AdamW for the embedding and the norms."""
    matrices = [p for p in model.layers.parameters() if p.dim() == 2]
    vectors = [p for p in model.parameters() if p.dim() == 1]
    muon = torch.optim.Muon(
        matrices, lr=PEAK_LR, weight_decay=WEIGHT_DECAY, adjust_lr_fn="match_rms_adamw"
    )
    embedding = {"params": [model.embed_tokens.weight], "weight_decay": WEIGHT_DECAY}
    groups = [embedding, {"params": vectors, "weight_decay": 0.0}]
    return [muon, torch.optim.AdamW(groups, lr=PEAK_LR, betas=(0.9, 0.95))]


def learning_rate(step: int, progress: float) -> float:
    """Linear warm-up, then a cosine over the time budget."""
    decay = FINAL_LR_SHARE + (1 - FINAL_LR_SHARE) * 0.5 * (1 + math.cos(math.pi * progress))
    return PEAK_LR * min(1.0, (step + 1) / WARMUP_STEPS) * decay


def validation_loss(model: Llama, tokens: np.ndarray, length: int, windows: int) -> float:
    """Mean cross entropy in nats per token over evenly spaced windows."""
    starts = np.linspace(0, len(tokens) - length - 2, windows).astype(int)
    losses = []
    with torch.no_grad(), torch.autocast("cpu", dtype=torch.bfloat16):
        for start in starts:
            window = torch.from_numpy(tokens[start : start + length + 1])[None]
            losses.append(model(window[:, :-1], window[:, 1:]).item())
    return float(np.mean(losses))


def unigram_loss(train: np.ndarray, valid: np.ndarray) -> float:
    """Cross entropy of the add-one unigram model, nats per token."""
    counts = np.bincount(train, minlength=CONFIG["vocab_size"]) + 1.0
    return float(-np.log(counts / counts.sum())[valid].mean())


def save(model: Llama, out: Path) -> None:
    tensors = {
        f"model.{name}": p.detach().to(torch.float16).contiguous()
        for name, p in model.named_parameters()
    }
    save_file(tensors, out / "model.safetensors", metadata={"format": "pt"})
    (out / "config.json").write_text(json.dumps(CONFIG, indent=2) + "\n")


def train(corpus: Path, out: Path, minutes: float) -> None:
    out.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(SEED)
    tokenizer = train_tokenizer(corpus, out)
    train_tokens = encode_documents(tokenizer, corpus / "train.txt")
    valid_tokens = encode_documents(tokenizer, corpus / "valid.txt")
    print(f"{len(train_tokens)} training tokens, {len(valid_tokens)} validation tokens", flush=True)
    model = Llama()
    parameters = sum(p.numel() for p in model.parameters())
    optimizers = make_optimizers(model)
    compute_loss = torch.compile(model)
    started = time.monotonic()
    for step, (progress, inputs, targets) in enumerate(batches(train_tokens, minutes * 60)):
        with torch.autocast("cpu", dtype=torch.bfloat16):
            loss = compute_loss(inputs, targets)
        model.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        for optimizer in optimizers:
            for group in optimizer.param_groups:
                group["lr"] = learning_rate(step, progress)
            optimizer.step()
        if step % 20 == 0:
            print(f"step {step} {progress:.1%} loss {loss.item():.3f}", flush=True)
        if step and step % 200 == 0:
            print(
                f"validation at 512: {validation_loss(model, valid_tokens, 512, 40):.4f}",
                flush=True,
            )
            save(model, out)
    save(model, out)
    unigram = unigram_loss(train_tokens, valid_tokens)
    losses = {
        length: validation_loss(model, valid_tokens, length, 131_072 // length)
        for length in (512, 2048)
    }
    record = {
        "seed": SEED,
        "steps": step + 1,
        "batch_tokens": BATCH_TOKENS,
        "sequence_phases": SEQUENCE_PHASES,
        "peak_lr": PEAK_LR,
        "parameters": parameters,
        "train_tokens": len(train_tokens),
        "validation_tokens": len(valid_tokens),
        "torch": torch.__version__,
        "minutes": round((time.monotonic() - started) / 60, 1),
        "validation_loss": losses,
        "validation_perplexity": {n: math.exp(v) for n, v in losses.items()},
        "unigram_loss": unigram,
        "unigram_perplexity": math.exp(unigram),
    }
    (out / "training.json").write_text(json.dumps(record, indent=2) + "\n")
    print(json.dumps(record, indent=2))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("corpus", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--minutes", type=float, default=80.0)
    arguments = parser.parse_args()
    train(arguments.corpus, arguments.out, arguments.minutes)
