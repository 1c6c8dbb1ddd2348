#!/usr/bin/env python3
"""Checks that what crepe makes of every fixture is what transformers reads.

    python tools/oracle_fixtures.py [FIXTURE...]

Prunes each folder of testdata/fixtures in two ways, its own sequences being the
calibration text, and for each output demands that
- transformers loads it, with no tensor missing, unexpected or of another shape
  (mtp.* excepted: transformers ignores them),
- tensors that transformers does not read are there, byte for byte,
- transformers' logits, float32, are those that crepe computes, to --tolerance.

Prints the largest difference of logits for each, and for comparison how far
pruning moved them. Exit status 1 if anything is wrong.

Made with torch 2.15.0, transformers 5.23.0, safetensors 0.8.0.
"""

import argparse
import json
import pathlib
import subprocess
import sys
import tempfile

import safetensors.torch
import torch
import transformers

ROOT = pathlib.Path(__file__).resolve().parents[1]
FIXTURES = ROOT / "testdata" / "fixtures"

WAYS = {
    "crepe 50%": [],
    "wanda 2:4 split": ["--method", "wanda", "--pattern", "2:4", "--fused", "split"],
}


def tensors(folder):
    """Every tensor in the folder's safetensors files."""
    out = {}
    for path in sorted(folder.glob("model*.safetensors")):
        out.update(safetensors.torch.load_file(path))
    return out


def same_bytes(a, b):
    return a.dtype == b.dtype and a.shape == b.shape and torch.equal(a.reshape(-1).view(torch.uint8), b.reshape(-1).view(torch.uint8))


def load(folder):
    """transformers' model in float32, and what was wrong with the folder."""
    name = json.loads((folder / "config.json").read_text())["architectures"][0]
    model, info = getattr(transformers, name).from_pretrained(folder, dtype=torch.float32, attn_implementation="eager", output_loading_info=True)
    wrong = [f"{what}: {sorted(info[what])}" for what in ("missing_keys", "mismatched_keys") if info[what]]
    unexpected = [k for k in info["unexpected_keys"] if not k.startswith("mtp.")]
    if unexpected:
        wrong.append(f"unexpected_keys: {unexpected}")
    return model.eval(), wrong


def check(folder, way, tools, work, tolerance):
    """Prints a line; returns the number of things that are wrong."""
    golden, out, logits = folder / "golden.safetensors", work / "out", work / "logits.safetensors"
    subprocess.run(
        [tools / "crepe", "prune", folder, "-o", out, "--calibration", golden, "--eval", "none", "--compute", "f32", "--overwrite", "--json", *WAYS[way]],
        check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    want = safetensors.torch.load_file(golden)
    subprocess.run([tools / "logits", out, golden, str(len(want["input_ids"])), logits], check=True)
    ours = safetensors.torch.load_file(logits)["logits"]
    model, wrong = load(out)
    with torch.no_grad():
        theirs = model(input_ids=want["input_ids"], use_cache=False).logits.float()
    if ours.shape != theirs.shape:
        wrong.append(f"logits of shape {list(ours.shape)}, want {list(theirs.shape)}")
    else:
        apart = (ours - theirs).abs().max().item()
        if not apart <= tolerance:
            wrong.append(f"logits are {apart} apart")
        print(f"{folder.name:16}{way:18}{apart:9.1e}{(theirs - want['logits']).abs().max().item():9.2f}")
    was, now = tensors(folder), tensors(out)
    if was.keys() != now.keys():
        wrong.append(f"tensors differ in name: {sorted(was.keys() ^ now.keys())}")
    for name in json.loads((folder / "meta.json").read_text()).get("unused_tensors", []):
        if not same_bytes(was[name], now[name]):
            wrong.append(f"{name} differs, though it is not pruned")
    for line in wrong:
        print(f"{folder.name}, {way}: {line}")
    return len(wrong)


def main():
    p = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    p.add_argument("fixtures", nargs="*", help="folders of testdata/fixtures; all unless given")
    p.add_argument("--tolerance", type=float, default=2e-4, help="of logits; TestGolden's of package model")
    a = p.parse_args()
    torch.set_num_threads(1)
    transformers.utils.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    folders = [FIXTURES / f for f in a.fixtures] or sorted(f for f in FIXTURES.iterdir() if f.is_dir())
    wrong = 0
    with tempfile.TemporaryDirectory() as work:
        work = pathlib.Path(work)
        for name in ("cmd/crepe", "tools/logits"):
            subprocess.run(["go", "build", "-o", work, f"./{name}"], cwd=ROOT, check=True)
        print(f"{'fixture':16}{'pruned by':18}{'apart':>9}{'moved':>9}")
        for folder in folders:
            for way in WAYS:
                wrong += check(folder, way, work, work, a.tolerance)
    print(f"{wrong} wrong" if wrong else f"{len(folders)} fixtures are right")
    sys.exit(bool(wrong))


if __name__ == "__main__":
    main()
