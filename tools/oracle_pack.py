"""Opens folders that crepe packed with compressed-tensors, and packs one for crepe.

    python tools/oracle_pack.py PACKED --plain PLAIN
    python tools/oracle_pack.py --write PLAIN OUT

The first loads PACKED by ModelCompressor and PLAIN by transformers: every parameter
and the logits of 32 tokens must be equal. With --auto PACKED goes through
transformers' from_pretrained instead, which takes transformers 4.49 and
compressed-tensors 0.9: the quantizer of later ones asks for the data of weights that
have none yet, whoever wrote the folder. The second writes PLAIN as OUT by
compressed-tensors: crepe unpack must give PLAIN's weights.

Made with compressed-tensors 0.14.0, transformers 4.57.6, torch 2.15.0; --auto with
compressed-tensors 0.9.4, transformers 4.49.0.
"""

import argparse
import sys

import torch
from compressed_tensors.compressors import ModelCompressor
from compressed_tensors.config import BitmaskConfig
from transformers import AutoConfig, AutoModelForCausalLM


def unpacked(folder):
    """The model of a packed folder, its weights decompressed from the files."""
    config = AutoConfig.from_pretrained(folder)
    compressor = ModelCompressor.from_compression_config(config.quantization_config)
    del config.quantization_config
    model = AutoModelForCausalLM.from_config(config, torch_dtype=torch.bfloat16)
    compressor.decompress(folder, model)
    model.tie_weights()
    return model.eval()


def check(packed, plain, auto):
    want = AutoModelForCausalLM.from_pretrained(plain, torch_dtype="auto").eval()
    got = AutoModelForCausalLM.from_pretrained(packed, torch_dtype=want.dtype).eval() if auto else unpacked(packed)
    mine = dict(got.named_parameters(remove_duplicate=False))
    differing = [n for n, p in want.named_parameters() if not torch.equal(p, mine[n])]
    ids = torch.arange(1, 33)[None]
    with torch.no_grad():
        same = torch.equal(want(ids).logits, got(ids).logits)
    zeros = sum((p == 0).sum().item() for p in want.parameters())
    print(f"{packed}: {len(differing)} of {len(list(want.parameters()))} parameters differ, "
          f"logits equal: {same}; {zeros} zeros")
    return not differing and same


def write(plain, out):
    model = AutoModelForCausalLM.from_pretrained(plain, torch_dtype="auto")
    compressor = ModelCompressor(sparsity_config=BitmaskConfig(targets=["Linear"], ignore=["lm_head"]))
    model.save_pretrained(out, state_dict=compressor.compress(model))
    compressor.update_config(out)


def main():
    args = argparse.ArgumentParser()
    args.add_argument("packed", nargs="?")
    args.add_argument("--plain")
    args.add_argument("--auto", action="store_true")
    args.add_argument("--write", nargs=2)
    args = args.parse_args()
    if args.write:
        write(*args.write)
        return
    sys.exit(0 if check(args.packed, args.plain, args.auto) else 1)


if __name__ == "__main__":
    main()
