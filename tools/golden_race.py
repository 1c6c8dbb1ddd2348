"""Chances of candidates in stage 2 of a search, by NumPy and SciPy.

    python tools/golden_race.py > pho/testdata/race.json

Made with Python 3.11, numpy 2.4.6, scipy 1.17.1.
"""

import json

import numpy as np
from scipy import stats

rng = np.random.default_rng(4)
SPREAD, PRIOR = 0.005, 4  # as in pho/race.go


def chances(windows, full, screened):
    known = [i for i in range(len(full)) if full[i] is not None]
    best = full[min(known, key=lambda i: np.mean(full[i]))]
    r = [np.mean(full[i]) - np.mean(screened[i]) for i in known if len(screened[i]) == windows]
    k, common, nu = len(r), np.mean(r), PRIOR + len(r) - 1
    q = (PRIOR * SPREAD**2 + np.sum(np.square(r - common))) / nu * (1 + 1 / k)
    out = []
    for i, s in enumerate(screened):
        if full[i] is not None:
            out.append(0.0)
            continue
        n = len(s)
        d = np.subtract(s, best[:n])
        lag, v, g = d.mean(), stats.sem(d) ** 2 * (1 - n / windows), n - 1
        for c in screened:
            if n < windows and len(c) == windows:
                z = np.subtract(c, best)
                fit = stats.linregress(z[:n], d)
                rest = d - fit.intercept - fit.slope * z[:n]
                u = rest @ rest / (n - 2) / n * (1 - n / windows)
                if u < v:
                    lag, v, g = fit.intercept + fit.slope * z.mean(), u, n - 2
        f = (v + q) ** 2 / (v**2 / g + q**2 / nu)
        out.append(float(stats.t.sf((lag + common) / np.sqrt(v + q), f)))
    return out


cases = []
for k, windows, scale in ((1, 20, 1.0), (2, 20, 0.1), (3, 54, 0.01), (5, 54, 3.0)):
    count = k + 5
    text = rng.normal(4, 0.5, windows)
    common = rng.normal(0, 0.01, windows)  # what all but the first do badly on
    full, screened = [], []
    for i in range(count):
        true = text + rng.normal(0.002 * i, 0.01, windows) + (i > 0) * common
        guess = true + rng.normal(0, 0.002 * scale) + rng.normal(0, 0.001, windows)
        screened.append([] if i == 0 else guess.tolist())
        full.append(true.tolist() if i <= k else None)
    for i in range(k + 2, count):
        screened[i] = screened[i][: windows // 2]
    cases.append({"windows": windows, "full": full, "screened": screened, "chances": chances(windows, full, screened)})
print(json.dumps(cases))
