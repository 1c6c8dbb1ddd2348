"""Makes pho/testdata/gini.json: Gini_pruned of one small matrix by numpy, float64
sums over a full sort; numpy 2.4.6, seed 0.

    python tools/golden_gini.py > pho/testdata/gini.json
"""
import json
import numpy as np

ROWS, COLS = 24, 48
rng = np.random.default_rng(0)
w = (0.02 * rng.standard_normal((ROWS, COLS))).astype(np.float32)
colsq = 100 * rng.exponential(size=COLS)


def neighbourhood(a, k):
    r = k // 2
    p = np.pad(a, r)
    n = a.copy()
    for y in range(-r, r + 1):
        for x in range(-r, r + 1):
            if x and y:
                n += p[r + y : r + y + ROWS, r + x : r + x + COLS]
    return n


def gini(x):
    x = np.sort(x)
    n = len(x)
    return float(((2 * np.arange(1, n + 1) - n - 1) * x).sum() / (n * x.sum()))


def scores(a, b, g, k):
    m = np.abs(w.astype(np.float64))
    cri = a * m / m.sum(1, keepdims=True) + b * m / m.sum(0) + g * m / neighbourhood(m, k)
    return cri * colsq**0.25


def main():
    cases = []
    for pattern in ("50%", "70%", "2:4", "4:8"):
        for a, b, g, k in ((1, 1, 0, 9), (1, 1, 1, 9), (0.2, 0.1, 0.7, 5), (0, 0, 1, 3), (0.6, 0.3, 0.1, 11)):
            s = scores(a, b, g, k)
            if ":" in pattern:
                keep, of = map(int, pattern.split(":"))
                groups = np.sort(s.reshape(-1, of), axis=1)
                x = groups[:, : of - keep].ravel()
            else:
                x = np.sort(s.ravel())[: s.size * int(pattern[:-1]) // 100]
            cases.append({"pattern": pattern, "alpha": a, "beta": b, "gamma": g, "kernel": k, "gini": gini(x)})
    v = rng.exponential(size=1000).astype(np.float32)
    print(json.dumps({
        "rows": ROWS, "cols": COLS, "w": [float(x) for x in w.ravel()], "colsq": [float(x) for x in colsq],
        "cases": cases, "values": [float(x) for x in v], "values_gini": gini(v.astype(np.float64)),
    }))


if __name__ == "__main__":
    main()
