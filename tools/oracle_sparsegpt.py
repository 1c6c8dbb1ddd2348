#!/usr/bin/env python3
"""SparseGPT in PyTorch on a Llama, to compare crepe's output with.

    python tools/oracle_sparsegpt.py demo/data/model --pattern 60% \\
        --calibration testdata/golden/calibration.safetensors \\
        --eval testdata/golden/evaluation.safetensors [--crepe FOLDER | --golden FILE]

Written from the paper's algorithm 1 with tools/oracle_prune.py's model: the
Gram matrix by a hook, cholesky_inverse, its upper factor, blocks of 128 columns
whose errors are spread to all columns on the right. Weights are rounded to
bfloat16 when a Linear is done, as they are stored. Through column b exactly
⌊out·b·s⌋ weights are gone.

With --crepe it prints the share of equal mask bits and the perplexity of that
folder, pruned with --fit-to own --fit-tokens equal. With --golden it writes a file of testdata/golden/sparsegpt and prints
the noise: the share of bits that float32 and float64 sweeps decide alike, of
the same inputs, and of a whole run each.

Made with torch 2.15.0, transformers 5.23.0, safetensors 0.8.0.
"""

import argparse
import base64
import fractions
import json
import zlib

import torch

from oracle_prune import Model, packed, read_ids

BLOCK = 128


def sweep(w, h, pattern):
    """w's type decides. Returns what w becomes and what is kept of it."""
    w, dead = w.clone(), h.diagonal() == 0
    h = h.to(w.dtype, copy=True)
    kept = torch.ones(w.shape, dtype=torch.bool)
    h[dead, dead] = 1
    w[:, dead] = 0
    h.diagonal().add_(0.01 * h.diagonal().mean())
    u = torch.linalg.cholesky(torch.cholesky_inverse(torch.linalg.cholesky(h)), upper=True)
    keep, of = map(int, pattern.split(":")) if ":" in pattern else (0, 0)
    d = u.diagonal()
    for lo in range(0, w.shape[1], BLOCK):
        hi = min(lo + BLOCK, w.shape[1])
        gone = torch.zeros(w.shape[0], hi - lo, dtype=torch.bool)
        if not of:
            s = (w[:, lo:hi] / d[lo:hi]).square().flatten()
            share = fractions.Fraction(pattern.rstrip("%")) / 100
            k = int(len(w) * hi * share) - int(len(w) * lo * share)
            gone.view(-1)[s.sort(stable=True).indices[:k]] = True
        error = torch.zeros(w.shape[0], hi - lo, dtype=w.dtype)
        for j in range(lo, hi):
            if of and j % of == 0:
                s = (w[:, j : j + of] / d[j : j + of]).square()
                gone.scatter_(1, j - lo + s.sort(dim=1, stable=True).indices[:, : of - keep], True)
            e = torch.where(gone[:, j - lo], w[:, j], 0) / d[j]
            w[:, j:hi] -= e[:, None] * u[j, j:hi]
            w[gone[:, j - lo], j] = 0
            error[:, j - lo] = e
        kept[:, lo:hi] = ~gone
        w[:, hi:] -= error @ u[lo:hi, hi:]
    return w.bfloat16().float(), kept


def grams(model, b, hidden):
    h, handles = {}, []
    for name, m in model.linears(b):
        h[name] = torch.zeros(m.in_features, m.in_features, dtype=torch.float64)

        def add(_, args, total=h[name]):
            for x in args[0]:
                total += (x.T @ x).double()

        handles.append(m.register_forward_pre_hook(add))
    for x in hidden:
        model.forward(model.blocks[b], x)
    for one in handles:
        one.remove()
    n = sum(len(x) for x in hidden)
    return {name: (t * 2 / n).float() for name, t in h.items()}


def prune(model, ids, pattern, dtype=torch.float32):
    """Prunes model block by block; the sweeps are in dtype. Returns the masks."""
    masks, hidden = {}, model.embed(ids)
    for b, block in enumerate(model.blocks):
        h = grams(model, b, hidden)
        for name, m in model.linears(b):
            w, masks[name] = sweep(m.weight.to(dtype), h[name], pattern)
            m.weight.copy_(w)
        hidden = [model.forward(block, x) for x in hidden]
    return masks


def from_dense(model, ids, pattern):
    """What float32 and float64 keep of every Linear where all before it are
    dense, so that no decision depends on another Linear's."""
    single, double, hidden = {}, {}, model.embed(ids)
    for b, block in enumerate(model.blocks):
        h = grams(model, b, hidden)
        for name, m in model.linears(b):
            _, single[name] = sweep(m.weight, h[name], pattern)
            _, double[name] = sweep(m.weight.double(), h[name], pattern)
        hidden = [model.forward(block, x) for x in hidden]
    return single, double


def equal(a, b):
    """The share of equal bits: of all, of the worst Linear."""
    same = {n: int((a[n] == b[n]).sum()) for n in a}
    return sum(same.values()) / sum(m.numel() for m in a.values()), min(same[n] / a[n].numel() for n in a)


def golden(a, ids, windows):
    single, double = from_dense(Model(a.model), ids, a.pattern)
    model = Model(a.model)
    masks = prune(model, ids, a.pattern)
    other = prune(Model(a.model), ids, a.pattern, torch.float64)
    noise = {"same_inputs": equal(single, double), "whole_run": equal(masks, other)}
    print(json.dumps({"pattern": a.pattern} | {k: dict(zip(("all", "worst_linear"), v)) for k, v in noise.items()}))
    linears = [
        {
            "name": n,
            "rows": k.shape[0],
            "cols": k.shape[1],
            "pruned": int((~k).sum()),
            "row_crc": base64.b64encode(bytes(zlib.crc32(packed(row)) & 255 for row in k)).decode(),
        }
        for n, k in single.items()
    ]
    with open(a.golden, "w") as f:
        head = json.dumps({"method": "sparsegpt", "pattern": a.pattern, "group": "matrix", "pruned_perplexity": model.perplexity(windows)}, indent=1)
        lines = ",\n  ".join(json.dumps(one) for one in linears)
        f.write(f'{head[:-2]},\n "linears": [\n  {lines}\n ]\n}}\n')


@torch.no_grad()
def main():
    p = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    p.add_argument("model")
    p.add_argument("--calibration", required=True)
    p.add_argument("--eval", required=True)
    p.add_argument("--pattern", default="50%")
    p.add_argument("--crepe", help="folder of crepe's output for the same")
    p.add_argument("--golden", help="write masks and perplexity to this file")
    a = p.parse_args()
    torch.set_num_threads(1)
    ids, windows = read_ids(a.calibration), read_ids(a.eval)
    if a.golden:
        golden(a, ids, windows)
        return
    model = Model(a.model)
    masks = prune(model, ids, a.pattern)
    report = {"pattern": a.pattern, "perplexity": model.perplexity(windows)}
    if a.crepe:
        other = Model(a.crepe)
        theirs = {n: m.weight != 0 for b in range(len(other.blocks)) for n, m in other.linears(b)}
        report["equal"], report["equal_worst_linear"] = equal(masks, theirs)
        report["crepe_perplexity"] = other.perplexity(windows)
    print(json.dumps(report))


if __name__ == "__main__":
    main()
