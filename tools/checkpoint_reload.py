"""Checks that folders which crepe has written hold what their inputs do.

    python tools/checkpoint_reload.py INPUT OUTPUT [--pruned]

Every tensor of INPUT must be in OUTPUT with the same dtype, shape and bytes;
with --pruned a matrix may differ in elements that OUTPUT has as zero. The index
must agree with the shards, and transformers must load OUTPUT without missing or
unexpected keys. Run by hand; used with safetensors 0.8.0, torch 2.15.0,
transformers 5.23.0.
"""

import json
import pathlib
import sys

import torch
from safetensors import safe_open
from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForImageTextToText


def load(folder):
    folder = pathlib.Path(folder)
    index = folder / "model.safetensors.index.json"
    if index.exists():
        index = json.loads(index.read_text())
        files = sorted(set(index["weight_map"].values()))
    else:
        index, files = None, ["model.safetensors"]
    tensors, where, size = {}, {}, 0
    for file in files:
        with safe_open(folder / file, "pt") as f:
            assert f.metadata().get("format") == "pt", f"{file}: metadata {f.metadata()}"
            for name in f.keys():
                tensors[name] = f.get_tensor(name)
                where[name] = file
                size += tensors[name].nbytes
    if index:
        assert index["weight_map"] == where, "weight_map does not agree with the shards"
        assert index["metadata"]["total_size"] == size, index["metadata"]
    return tensors


def same(a, b, pruned):
    if a.dtype != b.dtype or a.shape != b.shape:
        return False
    x, y = (t.reshape(-1).view(torch.uint8) if t.dim() else t.reshape(1).view(torch.uint8) for t in (a, b))
    if torch.equal(x, y):
        return True
    return pruned and a.dim() == 2 and bool(((b == 0) | (a == b)).all())


def main(source, target, *options):
    before, after = load(source), load(target)
    assert before.keys() == after.keys(), before.keys() ^ after.keys()
    for name, t in before.items():
        assert same(t, after[name], "--pruned" in options), name
    config = AutoConfig.from_pretrained(target)
    kind = AutoModelForCausalLM
    if any("ConditionalGeneration" in a for a in config.architectures):
        kind = AutoModelForImageTextToText
    outputs = []
    for folder in (source, target):
        model, info = kind.from_pretrained(folder, dtype=torch.float32, output_loading_info=True)
        assert not info["missing_keys"] and not info["mismatched_keys"], info
        ids = torch.arange(24)[None] % config.get_text_config().vocab_size
        with torch.no_grad():
            outputs.append(model(input_ids=ids).logits)
    if "--pruned" not in options:
        assert torch.equal(*outputs), "logits differ"
    print(f"{target}: {len(after)} tensors as in {source}, loads")


main(*sys.argv[1:])
