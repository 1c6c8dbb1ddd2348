#!/usr/bin/env python3
"""Gradients of attention and MLP by PyTorch's autograd, for crepe's backward passes.

    python tools/golden_gradients.py model/testdata/gradients.json

For the first block of some of testdata/fixtures, in float64 and transformers' own
modules: x is the hidden states of the first golden sequence that enter the block. For
each branch, which adds f(x) to x, with w_t = 1/(t+1),

    loss = sum_t w_t * |x_t + f(x)_t - x_t / 2|^2

The file has the loss, and of every weight's gradient its norm and the first 16
elements of its first and last row. Made with torch 2.15.0, transformers 5.24.0.
"""

import json
import pathlib
import sys

import safetensors.torch
import torch
import transformers

FIXTURES = ["llama3-gqa", "mistral", "gemma3-text", "gemma2", "qwen2", "qwen3", "phi3"]
ROOT = pathlib.Path(__file__).parent.parent / "testdata" / "fixtures"


def branch(x, norm, f, post):
    y = f(norm(x))
    return x + (post(y) if post else y)


def gradients(folder):
    model = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float64, attn_implementation="eager")
    layer = model.model.layers[0]
    seen = {}
    layer.self_attn.register_forward_pre_hook(lambda _m, _a, kwargs: seen.update(kwargs), with_kwargs=True)
    layer.register_forward_pre_hook(lambda _m, args: seen.update(x=args[0].detach()))
    ids = safetensors.torch.load_file(folder / "golden.safetensors")["input_ids"][:1]
    with torch.no_grad():
        model(input_ids=ids, use_cache=False)
    x = seen.pop("x")
    seen.pop("hidden_states")
    gemma = hasattr(layer, "pre_feedforward_layernorm")
    branches = [
        ("self_attn", layer.input_layernorm, lambda h: layer.self_attn(hidden_states=h, **seen)[0], layer.post_attention_layernorm if gemma else None),
        ("mlp", layer.pre_feedforward_layernorm if gemma else layer.post_attention_layernorm, layer.mlp, layer.post_feedforward_layernorm if gemma else None),
    ]
    out = []
    for name, norm, f, post in branches:
        model.zero_grad()
        w = 1 / torch.arange(1, x.shape[1] + 1, dtype=torch.float64)
        loss = (w[None, :, None] * (branch(x, norm, f, post) - x / 2) ** 2).sum()
        loss.backward()
        linears = {}
        for n, p in getattr(layer, name).named_parameters():
            if p.dim() == 2:
                g = p.grad
                linears[n.removesuffix(".weight")] = {"norm": g.norm().item(), "first": g[0, :16].tolist(), "last": g[-1, :16].tolist()}
        out.append({"branch": name, "loss": loss.item(), "linears": linears})
    return out


def main():
    done = {name: gradients(ROOT / name) for name in FIXTURES}
    pathlib.Path(sys.argv[1]).write_text(json.dumps(done, indent=1) + "\n")


if __name__ == "__main__":
    main()
