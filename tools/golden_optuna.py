"""Makes search/testdata/optuna.json: the best value of 60 trials of Optuna's
samplers on smooth functions over the unit cube, by seed; optuna 5.0.0, cmaes
0.13.1, numpy 2.4.6.

    python tools/golden_optuna.py > search/testdata/optuna.json

The functions are those of search/optuna_test.go.
"""
import json

import optuna

SEEDS, TRIALS = 20, 60


def sphere(x):
    return sum((v - c) ** 2 for v, c in zip(x, (0.3, 0.8, 0.6)))


def ellipsoid(x):
    return sum(100 ** (i / (len(x) - 1)) * (v - c) ** 2 for i, (v, c) in enumerate(zip(x, (0.3, 0.8, 0.6))))


def rosenbrock(x):
    y = [4 * v - 2 for v in x]
    return sum(100 * (b - a * a) ** 2 + (1 - a) ** 2 for a, b in zip(y, y[1:]))


def best(make, function, dim, seed):
    study = optuna.create_study(sampler=make(seed))
    study.optimize(lambda t: function([t.suggest_float(f"x{i}", 0, 1) for i in range(dim)]), n_trials=TRIALS)
    return study.best_value


def main():
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    samplers = {
        "cmaes": lambda seed: optuna.samplers.CmaEsSampler(seed=seed),
        "tpe": lambda seed: optuna.samplers.TPESampler(seed=seed),
    }
    out = {"optuna": optuna.__version__, "trials": TRIALS, "best": []}
    for name, make in samplers.items():
        for function in (sphere, ellipsoid, rosenbrock):
            for dim in (2, 3):
                values = [best(make, function, dim, seed) for seed in range(SEEDS)]
                out["best"].append({"sampler": name, "function": function.__name__, "dim": dim, "values": values})
    print(json.dumps(out))


if __name__ == "__main__":
    main()
