#!/usr/bin/env python3
"""Writes internal/onig/unicode.bin.gz: the character properties and case folds
of Oniguruma 6.9.10 (Unicode 16.0), the regular expressions of tokenizers 0.23.3.

    git clone --branch v6.9.10 https://github.com/kkos/oniguruma
    python tools/golden_properties.py oniguruma/src internal/onig/unicode.bin.gz

The file, before gzip, is a list of sets and two of folds. Numbers are varints.

    set    its names, joined by spaces, and "\\n"; the number of bounds; the bounds,
           each less the one before: the set is [b0, b1) ∪ [b2, b3) ∪ …
           An empty line ends the list.
    fold   the number of characters that are one but for case; the characters.
           0 ends the list.
    folds  the length of a sequence, 2 or 3; the sequence, folded; the number of
           characters that are the sequence but for case; the characters.
           0 ends the list.
"""
import gzip, re, sys


def varint(n):
    out = b""
    while n > 127:
        out += bytes([n & 127 | 128])
        n >>= 7
    return out + bytes([n])


def numbers(text):
    return [int(x, 0) for x in re.findall(r"0x[0-9a-f]+|\d+", re.sub(r"/\*.*?\*/|#.*", "", text))]


def sets(source):
    """(names, bounds) of each table, in the order of the ctypes."""
    tables = {m[1]: numbers(m[2]) for m in re.finditer(r"\nCR_(\w+)\[\] = \{(.*?)\};", source, re.S)}
    tables |= {a: tables[b] for a, b in re.findall(r"#define CR_(\w+) CR_(\w+)", source)}
    order = re.findall(r"CR_(\w+)", re.search(r"CodeRanges\[\] = \{(.*?)\};", source, re.S)[1])
    pool = dict(re.findall(r'unicode_prop_name_pool_str(\d+)\[sizeof\("(.*?)"\)\]', source))
    names = {}
    for at, ctype in re.findall(r"\{pool_offset\((\d+)\),\s*(\d+)\}", source):
        names.setdefault(int(ctype), []).append(pool[at])
    for ctype, name in enumerate(order):
        count, *ends = tables[name]
        assert len(ends) == 2 * count
        bounds = [x + i % 2 for i, x in enumerate(ends)]
        if ctype in names:
            yield sorted(names[ctype]), bounds


def folds(source, length):
    """(sequence, characters) of OnigUnicodeFolds1, 2 and 3."""
    x = numbers(re.search(r"OnigUnicodeFolds%d\[\] = \{(.*?)\};" % length, source, re.S)[1])
    while x:
        n = x[length]
        yield x[:length], x[length + 1:length + 1 + n]
        x = x[length + 1 + n:]


def main(src, path):
    out = b""
    for names, bounds in sets(open(src + "/unicode_property_data.c").read()):
        out += " ".join(names).encode() + b"\n" + varint(len(bounds))
        out += b"".join(varint(b - a) for a, b in zip([0] + bounds, bounds))
    out += b"\n"
    source = open(src + "/unicode_fold_data.c").read()
    for length in 1, 2, 3:
        for sequence, chars in folds(source, length):
            out += varint(1 + len(chars)) if length == 1 else varint(length)
            out += b"".join(map(varint, sequence))
            out += b"" if length == 1 else varint(len(chars))
            out += b"".join(map(varint, chars))
        if length != 2:
            out += varint(0)
    with open(path, "wb") as f, gzip.GzipFile(filename="", mode="wb", fileobj=f, compresslevel=9, mtime=0) as z:
        z.write(out)
    print(len(out), "bytes")


if __name__ == "__main__":
    main(*sys.argv[1:])
