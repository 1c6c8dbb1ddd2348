#!/usr/bin/env python3
"""Checks a folder that crepe wrote: does transformers load it, and is it right?

    python tools/oracle_output.py OUTPUT --input MODEL \\
        --ids IDS.safetensors [--logits LOGITS.safetensors] [--windows N]

--input    every tensor that is no Linear of a block must equal the input's byte
           for byte; a Linear's must equal it where it is not zero
--logits   tensor "logits" [n, seqlen, vocab], float32: of the first n windows,
           compared with transformers' in float32
--ids      int64 input_ids [windows, seqlen]; their perplexity is printed

Prints sparsity per Linear as counted here, not as reported. Exit status 1 if
anything differs.

Made with torch 2.15.0, transformers 5.23.0, safetensors 0.8.0.
"""

import argparse
import json
import os
import sys

import safetensors
import safetensors.torch
import torch
import transformers

from oracle_prune import Model, read_ids


def tensors(folder):
    """name → file of every tensor in the folder. The index, where there is one,
    must say what the files hold."""
    index = f"{folder}/model.safetensors.index.json"
    weight_map = None
    names = ["model.safetensors"]
    if os.path.exists(index):
        with open(index) as f:
            weight_map = json.load(f)["weight_map"]
        names = sorted(set(weight_map.values()))
    out = {}
    for path in (f"{folder}/{n}" for n in names):
        with safetensors.safe_open(path, "pt") as f:
            for name in f.keys():
                if name in out:
                    raise SystemExit(f"{folder}: tensor {name} is in {out[name]} and in {path}")
                out[name] = path
    if weight_map is not None and {n: f"{folder}/{f}" for n, f in weight_map.items()} != out:
        raise SystemExit(f"{index}: does not say what the files hold")
    return out


def read(where, name):
    with safetensors.safe_open(where[name], "pt") as f:
        return f.get_tensor(name)


def same_bytes(a, b):
    return a.dtype == b.dtype and a.shape == b.shape and torch.equal(a.reshape(-1).view(torch.uint8), b.reshape(-1).view(torch.uint8))


def compare_weights(output, source, pruned):
    """Prints each pruned tensor's sparsity; returns the number of wrong ones."""
    got, want = tensors(output), tensors(source)
    wrong = 0
    if got.keys() != want.keys():
        print(f"tensors differ in name: {sorted(got.keys() ^ want.keys())}")
        wrong += 1
    zeros = total = same = 0
    for name in sorted(got.keys() & want.keys()):
        a, b = read(got, name), read(want, name)
        if same_bytes(a, b):
            same += 1
        elif name not in pruned:
            print(f"{name}: no Linear of a block, but differs from the input")
            wrong += 1
        elif a.dtype != b.dtype or a.shape != b.shape or not same_bytes(torch.where(a == 0, a, b), a):
            print(f"{name}: differs from the input where it is not zero")
            wrong += 1
        if name in pruned:
            n = int((a == 0).sum())
            zeros, total = zeros + n, total + a.numel()
            print(f"{name}: {n} of {a.numel()} zero, {n / a.numel():.6f}")
    if total:
        print(f"all pruned: {zeros} of {total} zero, {zeros / total:.6f}")
    print(f"{same} tensors are the input's byte for byte")
    return wrong


def linears(model):
    """Names of the weights that may be pruned: every Linear of a block."""
    return {f"{name}.weight" for b in range(len(model.blocks)) for name, _ in model.linears(b)}


def compare_logits(model, ids, path, tolerance):
    """Returns 1 if the logits are farther from transformers' than tolerance,
    as a share of the largest absolute logit."""
    want = safetensors.torch.load_file(path)["logits"].float()
    got = torch.stack([model.lm(ids[i][None]).logits[0] for i in range(len(want))])
    if got.shape != want.shape:
        print(f"logits: shape {list(want.shape)}, transformers' are {list(got.shape)}")
        return 1
    scale, worst = got.abs().max(), (got - want).abs().max()
    print(f"logits: at most {worst:.3g} apart where the largest is {scale:.4g}; same top token {(got.argmax(-1) == want.argmax(-1)).float().mean():.6f}")
    return 0 if worst <= tolerance * scale else 1


@torch.no_grad()
def main():
    p = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    p.add_argument("output")
    p.add_argument("--input", help="the folder that was pruned")
    p.add_argument("--ids", help="safetensors with int64 input_ids")
    p.add_argument("--logits", help="safetensors with float32 logits [n, seqlen, vocab] of the first n windows")
    p.add_argument("--windows", type=int, help="perplexity of the first N windows only")
    p.add_argument("--tolerance", type=float, default=1e-4, help="of logits, as a share of the largest")
    p.add_argument("--threads", type=int, default=1)
    a = p.parse_args()
    torch.set_num_threads(a.threads)
    transformers.utils.logging.disable_progress_bar()
    model = Model(a.output)
    _, info = transformers.LlamaForCausalLM.from_pretrained(a.output, output_loading_info=True)
    wrong = 0
    for what in ("missing_keys", "unexpected_keys", "mismatched_keys"):
        if info[what]:
            print(f"transformers: {what} {info[what]}")
            wrong += 1
    if a.input:
        wrong += compare_weights(a.output, a.input, linears(model))
    if a.ids:
        ids = read_ids(a.ids)
        if a.logits:
            wrong += compare_logits(model, ids, a.logits, a.tolerance)
        print(f"perplexity {model.perplexity(ids[: a.windows]):.6f} over {len(ids[: a.windows])} windows of {ids.shape[1]}, float32")
    print("wrong" if wrong else "right")
    sys.exit(bool(wrong))


if __name__ == "__main__":
    main()
