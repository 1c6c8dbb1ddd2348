#!/usr/bin/env python3
"""testdata/golden/*.json: masks and perplexities of the demo model.

    python tools/golden_masks.py [NAME…]   # from the root of the repository

The format is described in testdata/golden/README.md. Every mask is made in
float32 and once more in float64 with the float32 masks applied, and the run
stops if the two differ outside the near ties.
"""

import base64
import dataclasses
import hashlib
import json
import sys
import zlib

import torch

from oracle_prune import Config, Model, packed, prune, read_ids

MODEL = "demo/data/model"
OUT = "testdata/golden"
TOLERANCE = 1e-5

PATTERNS = {"50": "50%", "60": "60%", "70": "70%", "2of4": "2:4", "4of8": "4:8"}
METHODS = {
    "magnitude": Config("magnitude", ""),
    "wanda": Config("wanda", ""),
    "ria": Config("ria", ""),
    "crepe": Config("crepe", ""),
    "crepe-other": Config("crepe", "", alpha=0.7, beta=0.4, gamma=1.3, kernel=5, power=0.8),
}
CONFIGS = {f"{m}-{p}": dataclasses.replace(c, pattern=pattern) for m, c in METHODS.items() for p, pattern in PATTERNS.items()}
CONFIGS |= {
    "magnitude-row-70": Config("magnitude", "70%", group="row"),
    "wanda-matrix-60": Config("wanda", "60%", group="matrix"),
    "ria-row-50": Config("ria", "50%", group="row"),
    "crepe-row-60": Config("crepe", "60%", group="row"),
}


def digest(kept):
    """A byte a row: the low byte of the CRC-32 of the row's packed bits."""
    return base64.b64encode(bytes(zlib.crc32(packed(row)) & 255 for row in kept)).decode()


def linear(name, r):
    return {
        "name": name,
        "rows": r.kept.shape[0],
        "cols": r.kept.shape[1],
        "pruned": int((~r.kept).sum()),
        "sha256": hashlib.sha256(packed(r.kept)).hexdigest(),
        "row_crc": digest(r.kept),
        "near_kept": (r.near & r.kept).reshape(-1).nonzero()[:, 0].tolist(),
        "near_pruned": (r.near & ~r.kept).reshape(-1).nonzero()[:, 0].tolist(),
    }


def check(name, c, ids, result):
    """Compares result with masks in float64. Returns the largest relative
    difference of a colSq and the number of weights decided otherwise."""
    exact = prune(Model(MODEL, torch.float64), ids, c, masks={n: r.kept for n, r in result.items()})
    worst, flips = 0.0, 0
    for n, r in result.items():
        other = exact[n]
        worst = max(worst, ((r.colsq - other.colsq).abs() / other.colsq).max().item())
        differ = r.kept != other.kept
        flips += int(differ.sum())
        if (differ & ~r.near).any():
            raise SystemExit(f"{name}: {n}: float32 and float64 differ outside the near ties")
    return worst, flips


def make(name, c, ids, windows, dense):
    # Magnitude has no rounding, so it has no near ties, only exact ones.
    tolerance = 0 if c.method == "magnitude" else TOLERANCE
    model = Model(MODEL)
    result = prune(model, ids, c, tolerance)
    if tolerance == 0:
        for r in result.values():
            r.near[:] = False
    golden = dataclasses.asdict(c) | {"group": c.own_group(), "tolerance": tolerance}
    golden |= {"dense_perplexity": dense, "pruned_perplexity": model.perplexity(windows)}
    golden["linears"] = [linear(n, r) for n, r in result.items()]
    worst, flips = check(name, c, ids, result)
    with open(f"{OUT}/{name}.json", "w") as f:
        head = json.dumps({k: v for k, v in golden.items() if k != "linears"}, indent=1)
        lines = ",\n  ".join(json.dumps(one) for one in golden["linears"])
        f.write(f'{head[:-2]},\n "linears": [\n  {lines}\n ]\n}}\n')
    ties = sum(len(one["near_kept"]) + len(one["near_pruned"]) for one in golden["linears"])
    print(f"{name}: perplexity {golden['pruned_perplexity']:.4f}, near ties {ties}, float64 differs at {flips}, colSq by {worst:.1e}", flush=True)


@torch.no_grad()
def main():
    torch.set_num_threads(1)
    transformers_quiet()
    ids = read_ids(f"{OUT}/calibration.safetensors")
    windows = read_ids(f"{OUT}/evaluation.safetensors")
    dense = Model(MODEL).perplexity(windows)
    for name in sys.argv[1:] or CONFIGS:
        make(name, CONFIGS[name], ids, windows, dense)


def transformers_quiet():
    import transformers

    transformers.utils.logging.disable_progress_bar()


if __name__ == "__main__":
    main()
