"""Golden blocks for package gguf, by the Python library gguf (0.19.0).

    pip install gguf
    python tools/golden_gguf.py

writes gguf/testdata/blocks.gguf: for each type that is read a tensor of that
type, of random bytes, and what gguf.quants.dequantize makes of it as
"<type>.values"; and for the types that are written random values as
"<type>.source" beside what gguf.quants.quantize makes of them as "<type>.blocks".
Scales, which are binary16 numbers, are random bits, and in the first blocks
zero, the least and the largest subnormal and normal number, and infinite.
"""

import pathlib

import gguf
import numpy as np

READ = {  # offsets of the binary16 numbers in a block
    "F32": [], "F16": [], "BF16": [],
    "Q4_0": [0], "Q4_1": [0, 2], "Q5_0": [0], "Q5_1": [0, 2], "Q8_0": [0],
    "Q2_K": [80, 82], "Q3_K": [108], "Q4_K": [0, 2], "Q5_K": [0, 2], "Q6_K": [208],
    "IQ4_NL": [0], "IQ4_XS": [0],
}
EXTREME = np.array([0x0000, 0x8000, 0x0001, 0x83FF, 0x0400, 0x7BFF, 0xFBFF, 0x7C00, 0xFC00], np.uint16)
ROWS = 3


def main():
    rng = np.random.default_rng(0)
    out = pathlib.Path(__file__).parent.parent / "gguf/testdata/blocks.gguf"
    w = gguf.GGUFWriter(out, "blocks")
    for name, scales in READ.items():
        kind = gguf.GGMLQuantizationType[name]
        block, size = gguf.GGML_QUANT_SIZES[kind]
        count = 4 if block == 256 else max(4, 128 // block)  # blocks a row
        raw = rng.integers(0, 256, (ROWS * count, size), np.uint8)
        for at in scales:
            for i, bits in enumerate(EXTREME[: len(raw) - 2]):
                raw[(i + at) % len(raw), at : at + 2] = np.frombuffer(bits.tobytes(), np.uint8)
        raw = raw.reshape(ROWS, count * size)
        if name == "F32":
            raw = raw.view(np.float32)
        if name == "F16":
            raw = raw.view(np.float16)
        with np.errstate(all="ignore"):
            values = gguf.quants.dequantize(raw, kind)
        w.add_tensor(name, raw, raw_dtype=kind)
        w.add_tensor(name + ".values", values.astype(np.float32))
    for name in ["BF16", "Q8_0", "Q4_0"]:
        kind = gguf.GGMLQuantizationType[name]
        source = rng.standard_normal((4, 256)).astype(np.float32) * np.array([[1], [1e-3], [100], [1]], np.float32)
        source[3, :64] = 0
        source[3, 64:96] = 0.5  # all alike: ties
        source[3, 96:128] = np.arange(-16, 16) / 8
        source[3, 128:160] = -np.arange(32) / 31 * 7.5
        w.add_tensor(name + ".source", source)
        w.add_tensor(name + ".blocks", gguf.quants.quantize(source, kind), raw_dtype=kind)
    w.write_header_to_file()
    w.write_kv_data_to_file()
    w.write_tensors_to_file()
    w.close()


main()
