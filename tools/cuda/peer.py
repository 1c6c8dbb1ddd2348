"""Times crepe on a GPU beside PyTorch doing the same steps there, in one run.

    python tools/cuda/peer.py --crepe ./crepe --folder /dev/shm/bench [--shape llama2-7b]
        [--layers N] [--only crepe,peer] [--methods "wanda --sparsity 50%;..."] [--out results.json]

Writes a checkpoint of random weights of the shape into the folder (torch on the GPU),
with the demo's tokenizer and text, which crepe has inside, so that no network is needed.
The peer does what the methods' own programs do: the model on the GPU by transformers,
one sequence after another through each block with hooks that sum the squares of what
enters the Linears, a metric, a sort of each row, zeros, and through the block again.
Prints a line for each and writes all as JSON. Without a GPU, --device cpu --shape tiny
runs the same steps small."""

import argparse
import json
import os
import shutil
import subprocess
import time

import torch

SHAPES = {  # hidden, intermediate, heads, key/value heads, layers, vocabulary, samples, tokens
    "tiny": (64, 176, 4, 4, 2, 4096, 2, 64),
    "llama2-7b": (4096, 11008, 32, 32, 32, 32000, 128, 2048),
    "llama2-70b-block": (8192, 28672, 64, 8, 1, 32000, 128, 2048),
}


def config(shape, layers):
    h, m, heads, kv, n, vocab, _, tokens = SHAPES[shape]
    return {
        "architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_size": h, "intermediate_size": m,
        "num_attention_heads": heads, "num_key_value_heads": kv, "num_hidden_layers": layers or n, "vocab_size": vocab,
        "max_position_embeddings": max(tokens, 2048), "rms_norm_eps": 1e-5, "hidden_act": "silu", "tie_word_embeddings": False,
        "torch_dtype": "bfloat16", "bos_token_id": 1, "eos_token_id": 2,
    }


def make(folder, shape, layers, device):
    """Writes the checkpoint and the texts."""
    from safetensors.torch import save_file
    h, m, heads, kv, n, vocab, _, _ = SHAPES[shape]
    shutil.rmtree(folder, ignore_errors=True)
    os.makedirs(folder)
    conf = config(shape, layers)
    json.dump(conf, open(f"{folder}/config.json", "w"))
    g = torch.Generator(device=device).manual_seed(1)
    draw = lambda *size: (torch.randn(*size, generator=g, device=device) * 0.02).to(torch.bfloat16).cpu()
    index, part = {}, 0
    def write(tensors):
        nonlocal part
        part += 1
        name = f"model-{part:05d}.safetensors"
        save_file(tensors, f"{folder}/{name}", metadata={"format": "pt"})
        index.update({k: name for k in tensors})
    write({"model.embed_tokens.weight": draw(vocab, h), "model.norm.weight": torch.ones(h, dtype=torch.bfloat16), "lm_head.weight": draw(vocab, h)})
    d = h // heads
    for i in range(conf["num_hidden_layers"]):
        p = f"model.layers.{i}."
        write({
            p + "self_attn.q_proj.weight": draw(h, h), p + "self_attn.k_proj.weight": draw(kv * d, h),
            p + "self_attn.v_proj.weight": draw(kv * d, h), p + "self_attn.o_proj.weight": draw(h, h),
            p + "mlp.gate_proj.weight": draw(m, h), p + "mlp.up_proj.weight": draw(m, h), p + "mlp.down_proj.weight": draw(h, m),
            p + "input_layernorm.weight": torch.ones(h, dtype=torch.bfloat16),
            p + "post_attention_layernorm.weight": torch.ones(h, dtype=torch.bfloat16),
        })
    json.dump({"metadata": {}, "weight_map": index}, open(f"{folder}/model.safetensors.index.json", "w"))
    data = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "..", "demo", "data")
    for name in ("tokenizer.json", "tokenizer_config.json"):
        if os.path.exists(f"{data}/model/{name}"):
            shutil.copy(f"{data}/model/{name}", folder)


def run_crepe(args, folder, method, samples, seqlen):
    out = folder + "-pruned"
    shutil.rmtree(out, ignore_errors=True)
    command = [args.crepe, "prune", folder, "--method", *method.split(), "--samples", str(samples), "--seqlen", str(seqlen), "--calibration", args.text,
               "--eval", "none", "-o", out, "--overwrite", "--device", args.crepe_device, "--json"]
    began = time.time()
    p = subprocess.run(command, capture_output=True, text=True)
    took = time.time() - began
    if p.returncode:
        raise SystemExit(f"{' '.join(command)}: {p.stderr[-3000:]}")
    shutil.rmtree(out, ignore_errors=True)
    return {"what": "crepe " + method, "seconds": took, "report": {k: v for k, v in json.loads(p.stdout).items() if k in ("seconds", "peak_rss", "sparsity")}}


def run_eval(args, folder, windows, seqlen):
    command = [args.crepe, "eval", folder, "--data", args.text, "--seqlen", str(seqlen), "--device", args.crepe_device, "--json"]
    if windows:
        command += ["--windows", str(windows)]
    began = time.time()
    p = subprocess.run(command, capture_output=True, text=True)
    if p.returncode:
        raise SystemExit(f"{' '.join(command)}: {p.stderr[-3000:]}")
    return {"what": "crepe eval", "seconds": time.time() - began, "report": json.loads(p.stdout)}


@torch.no_grad()
def run_peer(folder, device, samples, seqlen, vocab, pattern, write):
    """Wanda as its program does it, the model on the device."""
    from transformers import LlamaForCausalLM
    began = time.time()
    sync = torch.cuda.synchronize if device == "cuda" else lambda: None
    m = LlamaForCausalLM.from_pretrained(folder, dtype=torch.bfloat16).to(device).eval()
    sync()
    loaded = time.time() - began
    ids = torch.randint(0, vocab, (samples, seqlen), device=device)
    states = torch.stack([m.model.embed_tokens(ids[i]) for i in range(samples)])
    position = torch.arange(seqlen, device=device)[None]
    rotary = m.model.rotary_emb(states[:1], position)
    calibrate = select = 0.0
    for block in m.model.layers:
        at = time.time()
        linears = {n: l for n, l in block.named_modules() if isinstance(l, torch.nn.Linear)}
        sums = {n: torch.zeros(l.in_features, device=device) for n, l in linears.items()}
        def hook(name):
            def f(_, inputs, __):
                sums[name].add_(inputs[0].reshape(-1, inputs[0].shape[-1]).float().pow(2).sum(0))
            return f
        handles = [l.register_forward_hook(hook(n)) for n, l in linears.items()]
        for i in range(samples):
            block(states[i:i + 1], position_embeddings=rotary, position_ids=position, attention_mask=None)
        for h in handles:
            h.remove()
        sync()
        calibrate += time.time() - at
        at = time.time()
        for n, l in linears.items():
            metric = l.weight.abs().float() * sums[n].sqrt()
            if pattern == "2:4":
                groups = metric.view(metric.shape[0], -1, 4)
                mask = torch.zeros_like(groups, dtype=torch.bool).scatter_(2, groups.topk(2, dim=2, largest=False).indices, True).view_as(metric)
            else:
                order = torch.sort(metric, dim=1, stable=True).indices[:, :metric.shape[1] // 2]
                mask = torch.zeros_like(metric, dtype=torch.bool).scatter_(1, order, True)
            l.weight[mask] = 0
        sync()
        select += time.time() - at
        at = time.time()
        for i in range(samples):
            out = block(states[i:i + 1], position_embeddings=rotary, position_ids=position, attention_mask=None)
            states[i] = (out[0] if isinstance(out, tuple) else out).reshape(seqlen, -1)
        sync()
        calibrate += time.time() - at
    at = time.time()
    if write:
        m.save_pretrained(folder + "-peer")
        shutil.rmtree(folder + "-peer")
    saved = time.time() - at
    total = time.time() - began
    return {"what": f"PyTorch wanda {pattern or '50%'}", "seconds": total, "report": {"load": loaded, "calibrate": calibrate, "select": select, "write": saved}}


@torch.no_grad()
def peaks(device):
    """The card's measured bf16 product and copy."""
    if device != "cuda":
        return {}
    a, b = (torch.randn(8192, 8192, device=device).bfloat16() for _ in range(2))
    def best(f, n=10):
        for _ in range(3):
            f()
        torch.cuda.synchronize()
        times = []
        for _ in range(n):
            s, e = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
            s.record()
            f()
            e.record()
            torch.cuda.synchronize()
            times.append(s.elapsed_time(e) / 1e3)
        return sorted(times)[n // 2]
    t = best(lambda: a @ b)
    x = torch.empty(1 << 30, dtype=torch.uint8, device=device)
    y = torch.empty_like(x)
    c = best(lambda: y.copy_(x))
    return {"card": torch.cuda.get_device_name(), "bf16_tflops": 2 * 8192**3 / t / 1e12, "copy_tbps": 2 * x.numel() / c / 1e12}


if __name__ == "__main__":
    p = argparse.ArgumentParser()
    p.add_argument("--crepe", required=True)
    p.add_argument("--folder", required=True)
    p.add_argument("--shape", default="llama2-7b")
    p.add_argument("--layers", type=int, default=0)
    p.add_argument("--samples", type=int, default=0)
    p.add_argument("--device", default="cuda")
    p.add_argument("--crepe-device", default="cuda")
    p.add_argument("--text", default="demo")
    p.add_argument("--only", default="crepe,peer,eval")
    p.add_argument("--windows", type=int, default=0)
    p.add_argument("--methods", default="wanda --sparsity 50%;wanda --pattern 2:4")
    p.add_argument("--out")
    args = p.parse_args()
    _, _, _, _, _, vocab, samples, seqlen = SHAPES[args.shape]
    samples = args.samples or samples
    results = [peaks(args.device)]
    print(results[0], flush=True)
    began = time.time()
    make(args.folder, args.shape, args.layers, args.device)
    print(f"checkpoint written in {time.time() - began:.1f} s", flush=True)
    def note(r):
        results.append(r)
        print(f"{r['seconds']:8.2f} s  {r['what']}  {json.dumps(r['report'])[:600]}", flush=True)
    only = args.only.split(",")
    if "crepe" in only:
        for method in args.methods.split(";"):
            note(run_crepe(args, args.folder, method.strip(), samples, seqlen))
    if "eval" in only:
        note(run_eval(args, args.folder, args.windows, seqlen))
    if "peer" in only:
        for pattern in ("", "2:4"):
            note(run_peer(args.folder, args.device, samples, seqlen, vocab, pattern, True))
    if args.out:
        json.dump(results, open(args.out, "w"), indent=1)
