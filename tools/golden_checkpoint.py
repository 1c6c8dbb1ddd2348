"""Safetensors files made by the Python library, for checkpoint's tests.

Writes checkpoint/testdata/golden: a folder with model.safetensors, which holds
a tensor of each element type, empty and scalar ones, and names that need
escaping; and expected.json, what the library reads from it.

Made with safetensors 0.8.0, torch 2.15.0, seed 0:
    python tools/golden_checkpoint.py
"""

import hashlib
import json
import pathlib

import safetensors
import safetensors.torch
import torch

OUT = pathlib.Path(__file__).parent.parent / "checkpoint/testdata/golden"

TYPES = {
    "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16, "F64": torch.float64,
    "I64": torch.int64, "I32": torch.int32, "I16": torch.int16, "I8": torch.int8,
    "U64": torch.uint64, "U32": torch.uint32, "U16": torch.uint16, "U8": torch.uint8,
    "BOOL": torch.bool, "F8_E4M3": torch.float8_e4m3fn, "F8_E5M2": torch.float8_e5m2,
    "F8_E8M0": torch.float8_e8m0fnu, "C64": torch.complex64,
}


def raw(t):
    return t.contiguous().view(torch.uint8) if t.dim() else t.reshape(1).view(torch.uint8)


def main():
    gen = torch.Generator().manual_seed(0)
    tensors = {}
    for name, dtype in TYPES.items():
        size = torch.empty(0, dtype=dtype).element_size()
        data = torch.randint(0, 2 if dtype == torch.bool else 256, (3, 5 * size), generator=gen, dtype=torch.uint8)
        tensors["type." + name] = data.view(dtype)
    tensors["scalar"] = torch.tensor(1.5)
    tensors["empty"] = torch.zeros(0, 7)
    tensors["cube"] = torch.randn(2, 3, 4, generator=gen)
    tensors['quote " backslash \\ newline \n bell \a tab \t delete \x7f snowman ☃ 𝄞'] = torch.ones(2)

    OUT.mkdir(parents=True, exist_ok=True)
    path = OUT / "model.safetensors"
    safetensors.torch.save_file(tensors, path, metadata={"format": "pt", "näme": 'v"\\\u2028</x>'})
    expected = {}
    with safetensors.safe_open(path, "pt") as f:
        metadata = f.metadata()
        for name in f.keys():
            t = f.get_tensor(name)
            data = bytes(raw(t).flatten().tolist())
            expected[name] = {
                "dtype": f.get_slice(name).get_dtype(),
                "shape": list(t.shape),
                "sha256": hashlib.sha256(data).hexdigest(),
            }
    text = json.dumps({"metadata": metadata, "tensors": expected}, indent=1, sort_keys=True)
    (OUT / "expected.json").write_text(text + "\n")
    (OUT / "config.json").write_text("{}\n")


main()
