"""Scores and masks by the definitions, for score/testdata/scores.safetensors.

    python tools/golden_scores.py        (from the repository's root)

Float64 NumPy: the neighbourhood is summed offset by offset, masks come from
stable sorts. The same in float32 PyTorch, with conv2d for the neighbourhood,
must give the same masks, and no limit may lie within 1e-5 of a score on its
other side, so that masks can be compared bit by bit; the seed was chosen so.
Made with numpy 2.4.6, torch 2.15.0, safetensors 0.8.0.
"""

import numpy as np
import torch
import torch.nn.functional as F
from safetensors.numpy import save_file

SEED = 5
METHODS = {
    "magnitude": {},
    "wanda": {},
    "ria": {},
    "crepe3": dict(k=3),
    "crepe5": dict(k=5),
    "crepe7": dict(k=7),
    "crepe9": dict(k=9),
    "crepe11": dict(k=11),
    "crepe9b": dict(k=9, alpha=0.5, beta=2.0, gamma=0.25, power=1.0),
}
TARGETS = [(s, g) for s in (50, 60, 70) for g in ("matrix", "row")] + [(2, 4), (4, 8), (1, 4)]


def over(a, b):
    """a/b, 0/0 being 0"""
    return np.divide(a, b, out=np.zeros_like(a), where=b != 0)


def neighbourhood(a, k):
    r = k // 2
    padded = np.pad(a, r)
    n = a.copy()
    for p in range(-r, r + 1):
        for q in range(-r, r + 1):
            if p and q:
                n += padded[r + p : r + p + a.shape[0], r + q : r + q + a.shape[1]]
    return n


def score(method, w, colsq, k=9, alpha=1.0, beta=1.0, gamma=1.0, power=0.5):
    a = np.abs(w.astype(np.float64))
    if method == "magnitude":
        return a
    if method == "wanda":
        return a * np.sqrt(colsq)
    row = np.broadcast_to(a.sum(axis=1, keepdims=True), a.shape)
    col = np.broadcast_to(a.sum(axis=0, keepdims=True), a.shape)
    norm = np.where(colsq > 0, np.sqrt(colsq) ** power, 0)
    if method == "ria":
        return (over(a, row) + over(a, col)) * norm
    return (alpha * over(a, row) + beta * over(a, col) + gamma * over(a, neighbourhood(a, k))) * norm


def score32(method, w, colsq, k=9, alpha=1.0, beta=1.0, gamma=1.0, power=0.5):
    a = torch.from_numpy(w).float().abs()
    c = torch.from_numpy(colsq).float()
    if method == "magnitude":
        return a.numpy()
    if method == "wanda":
        return (a * c.sqrt()).numpy()
    ri = lambda sums: torch.nan_to_num(a / sums)
    row, col = ri(a.sum(1, keepdim=True)), ri(a.sum(0))
    norm = c.sqrt() ** power
    if method == "ria":
        return ((row + col) * norm).numpy()
    r = k // 2
    kernel = torch.ones(1, 1, k, k)
    kernel[0, 0, r, :] = 0
    kernel[0, 0, :, r] = 0
    kernel[0, 0, r, r] = 1
    n = F.conv2d(a[None, None], kernel, padding=r)[0, 0]
    return ((alpha * row + beta * col + gamma * ri(n)) * norm).numpy()


def kept(s, target):
    """mask by stable sorts, and the least relative gap at a limit"""
    first, group = target
    if group == "matrix":
        groups, k = s.reshape(1, -1), s.size * first // 100
    elif group == "row":
        groups, k = s, s.shape[1] * first // 100
    else:
        groups, k = s.reshape(-1, group), group - first
    order = np.argsort(groups, axis=1, kind="stable")
    ranked = np.take_along_axis(groups, order, axis=1)
    mask = np.ones(groups.shape, dtype=bool)
    np.put_along_axis(mask, order[:, :k], False, axis=1)
    lo, hi = ranked[:, k - 1], ranked[:, k]
    gap = np.where(lo == hi, 1, (hi - lo) / np.where(hi > 0, hi, 1)).min()
    return mask.reshape(s.shape), gap


def weight(rng, rows, cols, dtype):
    w = rng.standard_normal((rows, cols)) * 0.05 * np.exp(rng.standard_normal((1, cols)))
    w[3, 5] = 4.0  # an outlier, whose row and column the neighbourhood leaves out
    w[7] = 0
    w[:, 9] = -0.0
    w[9:, 20:] *= rng.random((rows - 9, cols - 20)) > 0.2
    w = torch.from_numpy(w).to(dtype)
    raw = w.view(torch.int32 if dtype == torch.float32 else torch.int16).numpy().tobytes()
    return w.float().numpy(), np.frombuffer(raw, dtype=np.uint8)


def main():
    rng = np.random.default_rng(SEED)
    out = {}
    worst = 1.0
    for name, dtype, rows, cols in (
        ("BF16", torch.bfloat16, 24, 64),
        ("F16", torch.float16, 17, 40),
        ("F32", torch.float32, 40, 48),
    ):
        w, raw = weight(rng, rows, cols, dtype)
        colsq = rng.standard_exponential(cols) * 100
        colsq[11] = 0
        out[f"{name}.raw"] = raw
        out[f"{name}.colsq"] = colsq
        out[f"{name}.shape"] = np.array(w.shape, dtype=np.int64)
        for method, params in METHODS.items():
            base = method if method in ("magnitude", "wanda", "ria") else "crepe"
            s = score(base, w, colsq, **params)
            s32 = score32(base, w, colsq, **params)
            out[f"{name}.{method}.score"] = s.astype(np.float32)
            for target in TARGETS:
                mask, gap = kept(s, target)
                assert (mask == kept(s32, target)[0]).all(), (name, method, target)
                worst = min(worst, gap)
                key = f"{name}.{method}.{target[0]}{':' if isinstance(target[1], int) else '% '}{target[1]}"
                out[key] = np.packbits(mask, axis=None, bitorder="little")
    assert worst > 1e-5, f"a limit is near a score: {worst}"
    save_file(out, "score/testdata/scores.safetensors")
    print(f"{len(out)} arrays, least gap {worst:.2e}")


if __name__ == "__main__":
    main()
