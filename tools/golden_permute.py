#!/usr/bin/env python3
"""Write linalg/testdata/assignment.json and permute/testdata/permute.json.

    python tools/golden_permute.py

Assignments by scipy.optimize.linear_sum_assignment: random matrices, and those
with ties, of constants, of integers, of negative numbers, of products (long
augmenting paths). Only the
least cost is kept: of several best assignments any will do.

Orders of columns by channel permutation and linear sum assignment, written from
the paper on NumPy float64: every candidate column is put into every group, the
group sorted, and its N largest summed.

Made with Python 3.11, numpy 2.4.6, scipy 1.17.1.
"""

import json
import pathlib

import numpy as np
from scipy.optimize import linear_sum_assignment

ROOT = pathlib.Path(__file__).resolve().parent.parent


def assignments(rng):
    def case(name, m):
        rows, cols = linear_sum_assignment(m)
        return {"name": name, "n": len(m), "cost": m.flatten().tolist(), "least": float(m[rows, cols].sum())}

    yield case("one", np.array([[3.5]]))
    for n in (2, 3, 7, 20, 45):
        yield case("uniform", np.round(rng.random((n, n)), 6))
        yield case("normal, negative", np.round(rng.normal(size=(n, n)) - 3, 6))
        yield case("integers with ties", rng.integers(0, 4, (n, n)).astype(float))
        yield case("constant", np.full((n, n), 2.25))
        yield case("zero", np.zeros((n, n)))
        yield case("products", np.outer(np.arange(1, n + 1), np.arange(1, n + 1)).astype(float))
        yield case("sums", np.add.outer(np.arange(n), rng.integers(-9, 9, n)).astype(float))
        yield case("two values", np.where(rng.random((n, n)) < 0.1, -1.0, 1.0))
        yield case("large and small", np.round(10 ** rng.uniform(-3, 6, (n, n)), 6))


def retained(s, order, keep, of):
    g = np.sort(s[:, order].reshape(len(s), -1, of), axis=2)
    return float(g[:, :, of - keep :].sum())


def deal(s, of):
    by_sum = np.argsort(s.sum(0), kind="stable")
    order = np.zeros_like(by_sum)
    n = len(by_sum)
    for k in range(of):
        part = by_sum[n * k // of : n * (k + 1) // of]
        order[k::of] = part[::-1] if k % 2 else part
    return order


def lsa(s, order, keep, of):
    order = order.copy()
    groups = len(order) // of
    for c in range(of):
        gain = np.zeros((groups, groups))
        for g in range(groups):
            others = [order[g * of + k] for k in range(of) if k != c]
            for x in range(groups):
                columns = s[:, others + [order[x * of + c]]]
                gain[g, x] = np.sort(columns, axis=1)[:, of - keep :].sum()
        _, to = linear_sum_assignment(gain, maximize=True)
        order[c::of] = order[c::of][to]
    return order


def orders(rng):
    for rows, cols, keep, of in ((70, 24, 2, 4), (90, 48, 2, 4), (70, 32, 4, 8), (90, 20, 1, 4), (80, 30, 2, 3), (100, 12, 3, 4), (60, 8, 1, 2)):
        scale = np.exp(0.3 * rng.normal(size=cols))  # alike enough that no two assignments gain the same
        s = np.round(np.abs(rng.normal(size=(rows, cols)) * scale), 4).astype(np.float32)
        exact = s.astype(np.float64)
        cp = deal(exact, of)
        best = lsa(exact, cp, keep, of)
        plain = np.arange(cols)
        yield {
            "rows": rows, "cols": cols, "keep": keep, "of": of, "scores": [round(float(v), 4) for v in s.flatten()],
            "before": retained(exact, plain, keep, of),
            "cp": cp.tolist(), "cp_after": retained(exact, cp, keep, of),
            "lsa": best.tolist(), "lsa_after": retained(exact, best, keep, of),
        }  # fmt: skip


def main():
    rng = np.random.default_rng(0)
    for path, cases in (("linalg/testdata/assignment.json", assignments(rng)), ("permute/testdata/permute.json", orders(rng))):
        to = ROOT / path
        to.parent.mkdir(exist_ok=True)
        to.write_text("[\n" + ",\n".join(json.dumps(c) for c in cases) + "\n]\n")


if __name__ == "__main__":
    main()
