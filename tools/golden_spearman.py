"""Makes pho/testdata/proxies.json: Spearman's rho and p by scipy, and the five
proxies of one small matrix by numpy in float64; numpy 2.4.6, scipy 1.17.1, seed 0.

    python tools/golden_spearman.py > pho/testdata/proxies.json
"""
import json
import numpy as np
from scipy.stats import spearmanr

from golden_gini import gini, scores, w, colsq, ROWS, COLS

rng = np.random.default_rng(1)
pairs = []
for n in (3, 5, 10, 40):
    for noise in (0.0, 0.5, 3.0):
        x = rng.standard_normal(n)
        y = x + noise * rng.standard_normal(n)
        if n == 10:  # ties
            x, y = np.round(x, 1), np.round(y)
        r = spearmanr(x, y)
        pairs.append({"x": x.tolist(), "y": y.tolist(), "rho": float(r.statistic), "p": float(r.pvalue)})


def outliers(x):
    return float((x > 5 * x.mean()).mean())


cases = []
for pattern in ("50%", "90%", "2:4"):
    for a, b, g, k in ((1, 1, 0, 9), (0.2, 0.1, 0.7, 5), (0, 0, 1, 3)):
        s = scores(a, b, g, k)
        if ":" in pattern:
            keep, of = map(int, pattern.split(":"))
            groups = np.sort(s.reshape(-1, of), axis=1)
            pruned, kept = groups[:, : of - keep].ravel(), groups[:, of - keep :].ravel()
        else:
            n = s.size * int(pattern[:-1]) // 100
            x = np.sort(s.ravel())
            pruned, kept = x[:n], x[n:]
        cases.append({
            "pattern": pattern, "alpha": a, "beta": b, "gamma": g, "kernel": k,
            "outliers_all": outliers(s.ravel()), "outliers_retained": outliers(kept), "outliers_pruned": outliers(pruned),
            "gini_retained": gini(kept), "gini_pruned": gini(pruned),
        })
print(json.dumps({"pairs": pairs, "cases": cases}))
