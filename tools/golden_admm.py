#!/usr/bin/env python3
"""ADMM's masks and the least-squares refit in PyTorch, for crepe's goldens.

    python tools/golden_admm.py demo/data/model --pattern 2:4 \\
        --calibration testdata/golden/calibration.safetensors \\
        --golden testdata/golden/admm/2of4.json

Written from Boža 2024, algorithm 1, in float64: the two variables U and Z, the
inverse of the scaled Gram matrix and ρ = 1, the schedule of 20 iterations of
which 15 select. The weights that stay are then those that solve the normal
equations of each row. Model and Gram matrices are those of oracle_prune.py and
oracle_sparsegpt.py; every Linear is pruned with all before it dense. As crepe
decides: H + 0.01·mean(diag H) before the scaling; of the final number the
iterations prune what rounds up.

Made with torch 2.15.0, transformers 5.23.0, safetensors 0.8.0.
"""

import argparse
import base64
import fractions
import json
import math
import zlib

import torch

from oracle_prune import Model, packed, read_ids
from oracle_sparsegpt import grams

ITERATIONS, SELECTS = 20, 15


def lowest(size, k, of, keep):
    """True where a weight goes: the k smallest, of N:M among those that its
    groups would prune."""
    if of:
        best = size.reshape(-1, of).sort(dim=1, descending=True).indices[:, :keep]
        size = size.reshape(-1, of).scatter(1, best, torch.inf).reshape(size.shape)
    gone = torch.zeros(size.numel(), dtype=torch.bool)
    gone[size.flatten().sort(stable=True).indices[:k]] = True
    return gone.reshape(size.shape)


def admm(w, h, pattern):
    """The mask, True where kept. w and h are scaled, float64."""
    keep, of = map(int, pattern.split(":")) if ":" in pattern else (0, 0)
    share = 1 - fractions.Fraction(keep, of) if of else fractions.Fraction(pattern.rstrip("%")) / 100
    total = math.floor(w.numel() * share)
    inverse = torch.linalg.inv(h + torch.eye(len(h), dtype=torch.float64))
    hw, u, x = w @ h, torch.zeros_like(w), w.clone()
    for i in range(ITERATIONS):
        if i < SELECTS:
            k = math.ceil(total * (1 - (1 - fractions.Fraction(i + 1, SELECTS)) ** 3))
            kept = ~lowest((x + u).abs(), k, of, keep)
        z = (x + u) * kept
        u = u + x - z
        x = (hw + z - u) @ inverse
    return kept


def refit_loss(w, h, kept):
    """Σ over rows of the least (w−q)ᵀH(w−q), q zero where not kept."""
    m = kept.double()
    a = m[:, :, None] * h * m[:, None, :] + torch.diag_embed(1 - m)
    q = torch.linalg.solve(a, (w @ h) * m)
    return (((w - q) @ h) * (w - q)).sum().item()


@torch.no_grad()
def main():
    p = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    p.add_argument("model")
    p.add_argument("--calibration", required=True)
    p.add_argument("--pattern", default="50%")
    p.add_argument("--golden", required=True, help="the file to write")
    a = p.parse_args()
    torch.set_num_threads(1)
    model, linears = Model(a.model), []
    hidden = model.embed(read_ids(a.calibration))
    for b, block in enumerate(model.blocks):
        gram = grams(model, b, hidden)
        for name, m in model.linears(b):
            h, w = gram[name].double(), m.weight.double()
            h.diagonal().add_(0.01 * h.diagonal().mean())
            s = h.diagonal().sqrt()
            kept = admm(w * s, h / s / s[:, None], a.pattern)
            loss = sum(refit_loss(x, h, k) for x, k in zip(w.split(64), kept.split(64)))
            crc = base64.b64encode(bytes(zlib.crc32(packed(row)) & 255 for row in kept)).decode()
            one = {"name": name, "rows": w.shape[0], "cols": w.shape[1], "pruned": int((~kept).sum())}
            linears.append(one | {"row_crc": crc, "loss": loss})
        hidden = [model.forward(block, x) for x in hidden]
    with open(a.golden, "w") as f:
        head = json.dumps({"method": "admm", "pattern": a.pattern, "group": "matrix"}, indent=1)
        lines = ",\n  ".join(json.dumps(one) for one in linears)
        f.write(f'{head[:-2]},\n "linears": [\n  {lines}\n ]\n}}\n')


if __name__ == "__main__":
    main()
