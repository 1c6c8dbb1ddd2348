#!/usr/bin/env python3
"""Makes the fixtures of rotary embeddings that stretch the context.

    python tools/golden_rope.py testdata/fixtures
    python tools/golden_rope.py --rope testdata/rope.json

The first writes folders in the form of the others there (their README): a tiny
random model, and what transformers computes with it in float32, eager attention.
The sequences, or long.input_ids, are longer than the context that the model was
made for. Ids are drawn again until float32 rounding moves no logit by more than
2e-4. Without greedy.ids: with dynamic scaling transformers turns a decoded token
by the length so far, crepe by that of the whole sequence.

The second writes frequencies and scales of the embeddings themselves, for
configs that no fixture has.

Made with torch 2.15.0, transformers 5.23.0, safetensors 0.8.0; seed 1.
"""

import argparse
import copy
import json
import pathlib

import safetensors.torch
import torch
import transformers

SIZES = dict(
    vocab_size=320, hidden_size=64, intermediate_size=152, num_hidden_layers=3, num_attention_heads=4,
    num_key_value_heads=2, rms_norm_eps=1e-6, tie_word_embeddings=False, pad_token_id=None, bos_token_id=None, eos_token_id=None,
)  # fmt: skip

FIXTURES = {
    "qwen2-yarn": (
        "Qwen2",
        dict(max_position_embeddings=64, rope_theta=10000.0, use_sliding_window=False),
        {"type": "yarn", "factor": 4.0, "original_max_position_embeddings": 16},
    ),
    "llama-dynamic": (
        "Llama",
        dict(max_position_embeddings=24, rope_theta=10000.0),
        {"type": "dynamic", "factor": 2.0},
    ),
}


def randomise(model):
    """Draws weights that give hidden states a size near 1, and rounds them to bfloat16."""
    gen = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for name, p in model.named_parameters():
            if name.endswith("norm.weight"):
                p.copy_(1 + 0.2 * torch.randn(p.shape, generator=gen))
            elif p.dim() == 1:
                p.copy_(0.5 * torch.randn(p.shape, generator=gen))
            elif "embed" in name:
                p.copy_(torch.randn(p.shape, generator=gen))
            else:
                gain = 2.0 if "q_proj" in name or "k_proj" in name else 1.0
                p.copy_(gain * torch.randn(p.shape, generator=gen) / p.shape[1] ** 0.5)
            p.copy_(p.bfloat16().float())


def observe(model, ids):
    """Logits, hidden states entering each block and leaving the last, and what enters each Linear."""
    hidden, sums, hooks = [], {}, []
    layers = model.model.layers
    for layer in layers:
        hooks.append(layer.register_forward_pre_hook(lambda m, a: hidden.append(a[0].detach().clone())))
    hooks.append(layers[-1].register_forward_hook(lambda m, a, out: hidden.append((out if torch.is_tensor(out) else out[0]).detach().clone())))
    linears = {n: m for n, m in model.named_modules() if isinstance(m, torch.nn.Linear) and n.startswith("model.layers.")}
    for name, m in linears.items():
        def count(m, a, name=name):
            sums[name] = a[0].double().pow(2).sum(dim=(0, 1)) / len(ids)
        hooks.append(m.register_forward_pre_hook(count))
    with torch.no_grad():
        logits = model(input_ids=ids, use_cache=False).logits
    for h in hooks:
        h.remove()
    return logits, hidden, sums, linears


def make(root, name):
    kind, extra, scaling = FIXTURES[name]
    config = getattr(transformers, kind + "Config")(**SIZES, **extra, rope_scaling=scaling, attn_implementation="eager")
    model = getattr(transformers, kind + "ForCausalLM")(config).float().eval()
    randomise(model)
    double = copy.deepcopy(model).double()
    gen = torch.Generator().manual_seed(1)
    for attempt in range(100):
        ids = torch.randint(0, SIZES["vocab_size"], (2, 24), generator=gen)
        logits, hidden, sums, linears = observe(model, ids)
        exact, exact_hidden, _, _ = observe(double, ids)
        apart = (logits - exact).abs().max().item()
        if apart <= 2e-4:
            break
    long = torch.randint(0, SIZES["vocab_size"], (2, 40), generator=gen)
    long_logits = observe(model, long)[0]
    unscaled = getattr(transformers, kind + "Config")(**SIZES, **extra, attn_implementation="eager")
    plain = getattr(transformers, kind + "ForCausalLM")(unscaled).float().eval()
    plain.load_state_dict(model.state_dict())

    folder = pathlib.Path(root) / name
    folder.mkdir(parents=True, exist_ok=True)
    weights = {n: t.bfloat16().contiguous() for n, t in model.state_dict().items()}
    safetensors.torch.save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    golden = {"input_ids": ids, "logits": logits, "long.input_ids": long, "long.logits": long_logits}
    golden |= {f"hidden.{i}": h for i, h in enumerate(hidden)}
    golden |= {f"sqnorm.{n}": s.float() for n, s in sums.items()}
    safetensors.torch.save_file({k: v.contiguous() for k, v in golden.items()}, folder / "golden.safetensors")
    published = {
        "architectures": [kind + "ForCausalLM"], "model_type": kind.lower(), "hidden_act": "silu", "torch_dtype": "bfloat16",
        **SIZES, **extra, "rope_scaling": scaling, "transformers_version": transformers.__version__,
    }  # fmt: skip
    (folder / "config.json").write_text(json.dumps(published, indent=2, sort_keys=True) + "\n")
    meta = {
        "model_class": kind + "ForCausalLM", "model_type": kind.lower(), "seed": 1, "input_attempt": attempt,
        "transformers": transformers.__version__, "torch": torch.__version__, "attention": "eager",
        "config_spelling": "before transformers 5", "num_hidden_layers": SIZES["num_hidden_layers"],
        "sqnorm_divisor": 2, "f32_vs_f64_max_abs": apart,
        "f32_vs_f64_hidden_max_abs": [(a - b).abs().max().item() for a, b in zip(hidden, exact_hidden)],
        "logits_std": logits.std().item(),
        "sensitivity": {"rope scaling ignored": (long_logits - observe(plain, long)[0]).abs().max().item()},
        "prunable_linears": [
            {"name": n, "layer": int(n.split(".")[2]), "out_features": m.out_features, "in_features": m.in_features,
             "bias": m.bias is not None, "tokens": ids.numel()} for n, m in linears.items()
        ],
    }  # fmt: skip
    (folder / "meta.json").write_text(json.dumps(meta, indent=1) + "\n")
    print(f"{name}: float32 off by {apart:.1e}, without scaling {meta['sensitivity']}, logits' deviation {meta['logits_std']:.2f}")


BASE = {"architectures": ["LlamaForCausalLM"], "hidden_size": 64, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 64,
        "vocab_size": 64, "max_position_embeddings": 128}  # fmt: skip

# Each is config.json keys beside BASE's, and the lengths of sequences.
ROPES = [
    ({"rope_scaling": {"type": "linear", "factor": 4.0}, "rope_theta": 100000.0}, [5]),
    ({"rope_scaling": {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
                       "original_max_position_embeddings": 64}, "rope_theta": 500000.0}, [5]),
    ({"rope_scaling": {"type": "yarn", "factor": 4.0, "original_max_position_embeddings": 32}, "rope_theta": 1000000.0}, [5]),
    ({"rope_parameters": {"rope_type": "yarn", "factor": 8.0, "original_max_position_embeddings": 16, "rope_theta": 10000.0}}, [5]),
    ({"rope_scaling": {"type": "yarn", "factor": 2.5}, "rope_theta": 10000.0}, [5]),
    ({"rope_scaling": {"type": "yarn", "factor": 40.0, "original_max_position_embeddings": 4096, "beta_fast": 16, "beta_slow": 2}}, [5]),
    ({"rope_scaling": {"type": "yarn", "factor": 40.0, "original_max_position_embeddings": 4096, "mscale": 1.0, "mscale_all_dim": 0.8}}, [5]),
    ({"rope_scaling": {"type": "yarn", "factor": 40.0, "original_max_position_embeddings": 4096, "mscale": 0.7}}, [5]),
    ({"rope_scaling": {"type": "yarn", "factor": 40.0, "original_max_position_embeddings": 4096, "mscale": 1.0, "mscale_all_dim": 0}}, [5]),
    ({"rope_scaling": {"type": "yarn", "factor": 40.0, "original_max_position_embeddings": 4096, "mscale": 0.0, "mscale_all_dim": 0.5}}, [5]),
    ({"rope_scaling": {}, "rope_parameters": {"rope_type": "linear", "factor": 4.0, "rope_theta": 50000.0}}, [5]),
    ({"rope_parameters": {"full_attention": {"rope_type": "linear", "factor": 4.0, "rope_theta": 50000.0}}}, [5]),
    ({"rope_scaling": {"type": "yarn", "factor": 16.0, "original_max_position_embeddings": 4096, "attention_factor": 1.25, "truncate": False}}, [5]),
    ({"rope_scaling": {"type": "yarn", "factor": 0.5, "original_max_position_embeddings": 4096}}, [5]),
    ({"rope_scaling": {"type": "dynamic", "factor": 2.0}}, [5, 128, 129, 500]),
    ({"rope_scaling": {"type": "dynamic", "factor": 8.0}, "rope_theta": 500000.0, "head_dim": 24}, [100, 1000]),
]


def ropes(path):
    out = []
    for keys, lengths in ROPES:
        kwargs = {k: v for k, v in (BASE | copy.deepcopy(keys)).items() if k != "architectures"}
        for n in lengths:
            rope = transformers.models.llama.modeling_llama.LlamaRotaryEmbedding(transformers.LlamaConfig(**copy.deepcopy(kwargs)))
            rope(torch.zeros(1), torch.arange(n)[None])
            out.append({"config": BASE | keys, "tokens": n, "inv_freq": rope.inv_freq.tolist(), "scale": float(rope.attention_scaling)})
    pathlib.Path(path).write_text("[\n" + ",\n".join(json.dumps(o) for o in out) + "\n]\n")


def main():
    p = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    p.add_argument("root", nargs="?", help="folder to write fixtures to")
    p.add_argument("--rope", help="file to write frequencies to")
    a = p.parse_args()
    torch.set_num_threads(1)
    transformers.utils.logging.set_verbosity_error()
    for name in FIXTURES if a.root else ():
        make(a.root, name)
    if a.rope:
        ropes(a.rope)


if __name__ == "__main__":
    main()
