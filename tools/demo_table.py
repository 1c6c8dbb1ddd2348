#!/usr/bin/env python3
"""Print the README's table: perplexity of the demo model, method × pattern.

    go build ./cmd/crepe && python3 tools/demo_table.py ./crepe [more flags of prune]

Every cell is a whole run with the demo's defaults (128 calibration sequences
of 512 tokens, seed 0; the first 64 windows of 512 tokens).
"""

import json
import subprocess
import sys
import tempfile

METHODS = ["magnitude", "wanda", "ria", "crepe"]
PATTERNS = [["--sparsity", "50%"], ["--sparsity", "60%"], ["--sparsity", "70%"], ["--pattern", "2:4"], ["--pattern", "4:8"]]


def run(crepe, *flags):
    with tempfile.TemporaryDirectory() as dir:
        cmd = [crepe, "prune", "demo", "-o", dir + "/out", "--json", *flags]
        done = subprocess.run(cmd, check=True, capture_output=True, text=True)
        return json.loads(done.stdout)


def main():
    crepe, *extra = sys.argv[1:]
    print("| method | " + " | ".join(p[1] for p in PATTERNS) + " |")
    print("|---|" + "---:|" * len(PATTERNS))
    dense = None
    for method in METHODS:
        cells = []
        for p in PATTERNS:
            report = run(crepe, "--method", method, *p, *extra)
            dense = report["dense"]["perplexity"]
            cells.append(f"{report['pruned']['perplexity']:.2f}")
        print(f"| {method} | " + " | ".join(cells) + " |", flush=True)
    print(f"\ndense: {dense:.2f}")


if __name__ == "__main__":
    main()
