#!/usr/bin/env python3
"""Writes a Llama checkpoint of random weights, to measure time and memory on.

    python tools/bench_llama.py 7b OUT [--blocks 2]    # LLaMA-2-7B's shapes
    python tools/bench_llama.py 1b OUT [--blocks 16]   # Llama-3.2-1B's
    python tools/bench_llama.py 0.1b OUT               # 106 M, for the demo's tokenizer
    python tools/bench_llama.py 150k OUT               # narrow, with a vocabulary of 150 000

bfloat16, in shards with an index as transformers writes them; no tokenizer:
calibrate and evaluate on token ids (--ids writes some, random). A tensor at a
time is in memory, and each has its own seed, so blocks do not depend on their
number.

A Linear's weights are normal with standard deviation 1/sqrt(in), and every norm
brings its input to size 1; so a block adds what is of size 1 or less to the
residual stream, which grows like sqrt(blocks). lm_head, or the embeddings where
they are tied, have 1/sqrt(width), so logits are of size 1.
Every 97th input column of a Linear is 10 times larger, as in trained models
some are: scores are not all alike.

Made with torch 2.15.0.
"""

import argparse
import json
import os
import struct
import zlib

import torch

SHAPES = {
    "7b": {
        "hidden_size": 4096,
        "intermediate_size": 11008,
        "num_attention_heads": 32,
        "num_key_value_heads": 32,
        "head_dim": 128,
        "vocab_size": 32000,
        "max_position_embeddings": 4096,
        "rms_norm_eps": 1e-5,
        "rope_theta": 10000.0,
        "tie_word_embeddings": False,
        "blocks": 2,
    },
    "0.1b": {
        "hidden_size": 1024,
        "intermediate_size": 2816,
        "num_attention_heads": 16,
        "num_key_value_heads": 16,
        "head_dim": 64,
        "vocab_size": 4096,
        "max_position_embeddings": 1024,
        "rms_norm_eps": 1e-5,
        "rope_theta": 10000.0,
        "tie_word_embeddings": True,
        "blocks": 8,
    },
    "150k": {
        "hidden_size": 512,
        "intermediate_size": 1408,
        "num_attention_heads": 4,
        "num_key_value_heads": 4,
        "head_dim": 128,
        "vocab_size": 150000,
        "max_position_embeddings": 4096,
        "rms_norm_eps": 1e-5,
        "rope_theta": 10000.0,
        "tie_word_embeddings": False,
        "blocks": 2,
    },
    "1b": {
        "hidden_size": 2048,
        "intermediate_size": 8192,
        "num_attention_heads": 32,
        "num_key_value_heads": 8,
        "head_dim": 64,
        "vocab_size": 128256,
        "max_position_embeddings": 131072,
        "rms_norm_eps": 1e-5,
        "rope_theta": 500000.0,
        "rope_scaling": {
            "rope_type": "llama3",
            "factor": 32.0,
            "low_freq_factor": 1.0,
            "high_freq_factor": 4.0,
            "original_max_position_embeddings": 8192,
        },
        "tie_word_embeddings": True,
        "blocks": 16,
    },
}


def config(shape, blocks):
    rest = {k: v for k, v in shape.items() if k != "blocks"}
    return {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "torch_dtype": "bfloat16",
        "hidden_act": "silu",
        "attention_bias": False,
        "mlp_bias": False,
        "bos_token_id": 1,
        "eos_token_id": 2,
        "num_hidden_layers": blocks,
    } | rest


def plan(c):
    """(name, shape, standard deviation or None for ones) in the file's order."""
    width, inner = c["hidden_size"], c["intermediate_size"]
    q, kv = c["num_attention_heads"] * c["head_dim"], c["num_key_value_heads"] * c["head_dim"]
    linears = {
        "self_attn.q_proj": (q, width),
        "self_attn.k_proj": (kv, width),
        "self_attn.v_proj": (kv, width),
        "self_attn.o_proj": (width, q),
        "mlp.gate_proj": (inner, width),
        "mlp.up_proj": (inner, width),
        "mlp.down_proj": (width, inner),
    }
    yield "model.embed_tokens.weight", (c["vocab_size"], width), width**-0.5 if c["tie_word_embeddings"] else 1.0
    for b in range(c["num_hidden_layers"]):
        for name, shape in linears.items():
            yield f"model.layers.{b}.{name}.weight", shape, shape[1] ** -0.5
        for norm in ("input_layernorm", "post_attention_layernorm"):
            yield f"model.layers.{b}.{norm}.weight", (width,), None
    yield "model.norm.weight", (width,), None
    if not c["tie_word_embeddings"]:
        yield "lm_head.weight", (c["vocab_size"], width), width**-0.5


def make(name, shape, std):
    if std is None:
        return torch.ones(shape, dtype=torch.bfloat16)
    gen = torch.Generator().manual_seed(zlib.crc32(name.encode()))
    t = torch.empty(shape).normal_(0, std, generator=gen)
    if "layers" in name:
        t[:, ::97] *= 10
        t *= (1 + 99 / 97) ** -0.5  # variance of an output as without them
    return t.to(torch.bfloat16)


def shards(tensors, limit):
    """Consecutive tensors of at most limit bytes together."""
    out, size = [[]], 0
    for t in tensors:
        n = 2 * torch.Size(t[1]).numel()
        if out[-1] and size + n > limit:
            out.append([])
            size = 0
        out[-1].append(t)
        size += n
    return out


def write(path, tensors):
    """One safetensors file, tensor by tensor. Returns its bytes of data."""
    header, at = {"__metadata__": {"format": "pt"}}, 0
    for name, shape, _ in tensors:
        n = 2 * torch.Size(shape).numel()
        header[name] = {"dtype": "BF16", "shape": list(shape), "data_offsets": [at, at + n]}
        at += n
    head = json.dumps(header, separators=(",", ":")).encode()
    head += b" " * (-len(head) % 8)
    with open(path, "wb") as f:
        f.write(struct.pack("<Q", len(head)) + head)
        for t in tensors:
            f.write(memoryview(make(*t).view(torch.uint8).numpy()).cast("B"))
    return at


def main():
    p = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    p.add_argument("shape", choices=SHAPES)
    p.add_argument("out")
    p.add_argument("--blocks", type=int)
    p.add_argument("--shard", type=float, default=0.5, help="GB in a shard at most")
    p.add_argument("--ids", nargs=2, type=int, metavar=("SAMPLES", "SEQLEN"), help="also write random token ids to OUT-ids.safetensors")
    a = p.parse_args()
    torch.set_num_threads(1)
    c = config(SHAPES[a.shape], a.blocks or SHAPES[a.shape]["blocks"])
    os.makedirs(a.out)
    with open(f"{a.out}/config.json", "w") as f:
        json.dump(c, f, indent=2)
    files = shards(plan(c), int(a.shard * 1e9))
    where, total = {}, 0
    for i, tensors in enumerate(files, 1):
        name = f"model-{i:05}-of-{len(files):05}.safetensors" if len(files) > 1 else "model.safetensors"
        total += write(f"{a.out}/{name}", tensors)
        where |= {t[0]: name for t in tensors}
    if len(files) > 1:
        with open(f"{a.out}/model.safetensors.index.json", "w") as f:
            json.dump({"metadata": {"total_size": total}, "weight_map": where}, f, indent=2)
    if a.ids:
        import safetensors.torch

        ids = torch.randint(3, c["vocab_size"], a.ids, generator=torch.Generator().manual_seed(0))
        safetensors.torch.save_file({"input_ids": ids}, f"{a.out}-ids.safetensors")
    print(f"{a.out}: {len(where)} tensors, {total / 1e9:.2f} GB in {len(files)} files")


if __name__ == "__main__":
    main()
