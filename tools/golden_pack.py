"""A folder of packed weights that compressed-tensors wrote, for checkpoint's tests.

Writes checkpoint/testdata/packed: model.safetensors in the form sparse-bitmask, with
weights of three types, odd widths, an empty row, an empty matrix and a full one;
config.json as update_config of the library writes it; and plain.safetensors, the
weights as the library decompresses them again from that folder.

Made with compressed-tensors 0.14.0, torch 2.15.0, transformers 4.57.6, safetensors
0.8.0, seed 0:
    python tools/golden_pack.py
"""

import json
import pathlib

import safetensors.torch
import torch
from compressed_tensors.compressors import BaseCompressor, ModelCompressor
from compressed_tensors.config import BitmaskConfig

OUT = pathlib.Path(__file__).parent.parent / "checkpoint/testdata/packed"


def main():
    gen = torch.Generator().manual_seed(0)

    def sparse(rows, cols, dtype, density):
        w = torch.randn(rows, cols, generator=gen)
        return torch.where(torch.rand(rows, cols, generator=gen) < density, w, 0).to(dtype)

    weights = {
        "a.weight": sparse(5, 13, torch.bfloat16, 0.5),
        "b.weight": sparse(3, 300, torch.bfloat16, 0.3),
        "c.weight": sparse(4, 7, torch.float16, 0.6),
        "d.weight": sparse(2, 17, torch.float32, 0.5),
        "empty.weight": torch.zeros(2, 9, dtype=torch.bfloat16),
        "full.weight": sparse(2, 16, torch.bfloat16, 2.0),
    }
    weights["b.weight"][1] = 0
    config = BitmaskConfig(targets=["Linear"], ignore=["lm_head"], global_sparsity=0.5)
    compressor = BaseCompressor.load_from_registry("sparse-bitmask", config=config)
    state = compressor.compress(weights)
    state["norm.weight"] = torch.ones(7, dtype=torch.bfloat16)

    OUT.mkdir(parents=True, exist_ok=True)
    safetensors.torch.save_file(state, OUT / "model.safetensors", metadata={"format": "pt"})
    (OUT / "config.json").write_text(json.dumps({"model_type": "llama", "hidden_size": 64}, indent=2))
    ModelCompressor(sparsity_config=config).update_config(str(OUT))

    plain = dict(compressor.decompress(str(OUT)))
    for name, want in weights.items():
        assert torch.equal(plain[name], want), name
    plain = {name: t.contiguous() for name, t in plain.items()}
    safetensors.torch.save_file(plain, OUT / "plain.safetensors.golden", metadata={"format": "pt"})


if __name__ == "__main__":
    main()
