#!/usr/bin/env python3
"""Writes tokenizer/classes.bin: what tokenizers 0.23.3 takes each code point for.

    python tools/golden_unicode.py tokenizer/classes.bin

Its regular expressions (Oniguruma) have Unicode 16.0, Rust's is_numeric 17.0, the
Punctuation pre-tokenizer about 8.0: so the library itself is asked. The file is
a list of runs of equal class: length and class bits, both varints. The bits are
those of type class in runes.go.
"""
import sys

from tokenizers import Regex, pre_tokenizers as P

POINTS = [c for c in range(0x110000) if not 0xD800 <= c < 0xE000]
BELL = "\x07"  # of no class below


def members(pre):
    """Code points that pre isolates."""
    found = set()
    for i in range(0, len(POINTS), 20000):
        text = "".join(chr(c) + BELL for c in POINTS[i:i + 20000])
        for piece, _ in pre.pre_tokenize_str(text):
            if len(piece) == 1 and piece != BELL:
                found.add(ord(piece))
    return found


def words():
    """Code points of \\w: those that go together with a letter."""
    found = set()
    for i in range(0, len(POINTS), 20000):
        part = POINTS[i:i + 20000]
        ends = {a: b for _, (a, b) in P.Whitespace().pre_tokenize_str("".join("a" + chr(c) + "\n" for c in part))}
        found.update(c for j, c in enumerate(part) if ends.get(3 * j) == 3 * j + 2)
    return found


def varint(n):
    out = b""
    while n > 127:
        out += bytes([n & 127 | 128])
        n >>= 7
    return out + bytes([n])


def main(path):
    split = lambda p: members(P.Split(Regex(p), "isolated"))
    sets = [split(p) for p in (r"\p{L}", r"\p{N}", r"\s", r"\p{M}", r"\p{P}", r"\p{S}",
                               r"[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]", r"[\p{Ll}\p{Lm}\p{Lo}\p{M}]")]
    sets += [words(), members(P.Digits(True)), members(P.Punctuation("isolated"))]
    out, start, current = b"", 0, 0
    for c in range(0x110001):
        k = sum(1 << i for i, s in enumerate(sets) if c in s) if c < 0x110000 else -1
        if k != current:
            out += varint(c - start) + varint(current)
            start, current = c, k
    open(path, "wb").write(out)
    print([len(s) for s in sets], len(out))


if __name__ == "__main__":
    main(sys.argv[1])
