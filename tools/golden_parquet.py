"""Parquet files for internal/parquet/testdata.

    python tools/golden_parquet.py   # from the root of the repository

Made with pyarrow 26.0.1. The test computes the same rows of strings; those with
nested columns, in every codec, page version and encoding, are in nested.json as
pyarrow reads them back.
"""

import json
import os
import random

import pyarrow as pa
import pyarrow.parquet as pq

DIR = "internal/parquet/testdata"
ROWS = 400


def row(i):
    return "" if i % 5 == 0 else f" row {i % 97} é世 " + "x" * (i * 7 % 50) + "\n"


def table(rows, nullable=True, typ=None):
    typ = typ or pa.string()
    n = len(rows)
    lists = pa.array([[str(i)] * (i % 3) for i in range(n)])
    structs = pa.array([{"text": i, "label": [str(i)]} for i in range(n)])
    return pa.Table.from_arrays(
        [lists, structs, pa.array(rows, type=typ), pa.array(range(n))],
        schema=pa.schema(
            [
                pa.field("choices", lists.type),
                pa.field("nested", structs.type),
                pa.field("text", typ, nullable=nullable),
                pa.field("id", pa.int64()),
            ]
        ),
    )


def write(name, t, **options):
    options.setdefault("data_page_size", 2048)
    options.setdefault("row_group_size", 150)
    pq.write_table(t, f"{DIR}/{name}.parquet", **options)


def some(r, value, nulls=0.2):
    return None if r.random() < nulls else value()


def nested():
    """Columns as the datasets have them (ARC's choices), and what is hard on a reader."""
    r = random.Random(5)
    words = ["", "a", "no", "naïve café", "日本語", "the " * 9]
    word = lambda: r.choice(words)
    texts = lambda: [some(r, word, 0.1) for _ in range(r.choice([0, 0, 1, 2, 5]))]
    rows = [
        {
            "text": some(r, word),
            "number": some(r, lambda: r.choice([0, 1, -1, 2**62, -(2**63), i])),
            "small": r.randrange(-(2**31), 2**31),
            "texts": some(r, texts),
            "numbers": some(r, lambda: [some(r, lambda: r.randrange(9)) for _ in range(r.randrange(4))]),
            "choices": some(r, lambda: {"text": some(r, texts), "label": texts()}, 0.1),
            "deep": some(r, lambda: [some(r, lambda: {"x": some(r, word), "y": [texts() for _ in range(r.randrange(3))]}) for _ in range(r.randrange(3))]),
        }
        for i in range(120)
    ]
    s = pa.string()
    schema = pa.schema([
        pa.field("text", s), pa.field("number", pa.int64()), pa.field("small", pa.int32(), nullable=False),
        pa.field("texts", pa.list_(s)), pa.field("numbers", pa.list_(pa.int32())),
        pa.field("choices", pa.struct([pa.field("text", pa.list_(s)), pa.field("label", pa.list_(s), nullable=False)])),
        pa.field("deep", pa.list_(pa.struct([pa.field("x", s), pa.field("y", pa.list_(pa.list_(s)))]))),
        pa.field("unread", pa.float64()),
    ])
    return pa.Table.from_pylist(rows, schema=schema)


def write_nested():
    t = nested()
    kept = t.drop_columns(["unread"])
    with open(f"{DIR}/nested.json", "w") as f:
        json.dump(kept.to_pylist(), f, ensure_ascii=False)
    small = {"data_page_size": 256, "row_group_size": 50, "write_batch_size": 16}
    write("nested-snappy", t, compression="snappy", **small)
    write("nested-one-page", t, compression="snappy", row_group_size=1000, data_page_size=1 << 20)
    write("nested-zstd-v2", t, compression="zstd", data_page_version="2.0", **small)
    write("nested-gzip-plain", t, compression="gzip", use_dictionary=False, **small)
    write("nested-none-v2-plain", t, compression="none", data_page_version="2.0", use_dictionary=False, **small)
    write("nested6", t.slice(0, 6), compression="none", write_statistics=False, store_schema=False)  # for fuzzing
    leaves = [(p, "INT" in t) for p, t in leaf_types(f"{DIR}/nested-snappy.parquet")]
    lengths = {p: "DELTA_BINARY_PACKED" if ints else "DELTA_LENGTH_BYTE_ARRAY" for p, ints in leaves}
    prefixes = {p: "DELTA_BINARY_PACKED" if ints else "DELTA_BYTE_ARRAY" for p, ints in leaves}
    write("nested-delta", t, compression="snappy", use_dictionary=False, column_encoding=lengths, **small)
    write("nested-delta-v2", t, compression="none", data_page_version="2.0", use_dictionary=False, column_encoding=prefixes, **small)
    write("nested-old-lists", t, compression="snappy", use_compliant_nested_type=False, version="1.0", **small)


def leaf_types(path):
    s = pq.ParquetFile(path).schema
    return [(s.column(i).path, s.column(i).physical_type) for i in range(len(s)) if s.column(i).path != "unread"]


def main():
    os.makedirs(DIR, exist_ok=True)
    good = table([row(i) for i in range(ROWS)])
    encodings = {"text": "DELTA_LENGTH_BYTE_ARRAY"}
    write("plain-none", good, compression="none", use_dictionary=False)
    write("dictionary-snappy", good, compression="snappy")
    write("dictionary-zstd-v2", good, compression="zstd", data_page_version="2.0")
    write("plain-gzip-v2", good, compression="gzip", data_page_version="2.0", use_dictionary=False)
    write("deltalength-snappy", good, compression="snappy", use_dictionary=False, column_encoding=encodings)
    write("deltabytes-none-v2", good, compression="none", use_dictionary=False, data_page_version="2.0", column_encoding={"text": "DELTA_BYTE_ARRAY"})
    write("required-snappy", table([row(i) for i in range(ROWS)], nullable=False), compression="snappy")
    write("large-string", table([row(i) for i in range(ROWS)], typ=pa.large_string()), write_page_checksum=True)
    write("fallback", good, dictionary_pagesize_limit=256)
    write("one-page", good, data_page_size=1 << 20, row_group_size=ROWS)
    write("bad-null", table([row(i) if i != 7 else None for i in range(40)]))
    write("bad-lz4", table([row(i) for i in range(40)]), compression="lz4")
    write("bad-twice", pa.Table.from_arrays([pa.array(["a"]), pa.array(["b"])], names=["text", "text"]))
    write("bad-columns", pa.table({}))
    write("bad-integers", pa.table({"text": [1, 2, 3]}))
    write("bad-list", pa.table({"text": [["a"], ["b"]]}))
    write("bad-map", pa.table({"m": pa.array([[("a", 1)]], type=pa.map_(pa.string(), pa.int64()))}))
    write("bad-double", pa.table({"text": [1.5]}))
    write("bad-bytes", pa.table({"text": pa.array([b"a", b"\xff"])}))
    write("bad-elements", pa.table({"texts": [["a"] * ((1 << 20) + 1)]}), data_page_size=1 << 30, write_batch_size=1 << 30, compression="zstd")
    write("bad-row", pa.table({"texts": [["a" * 1024] * ((16 << 10) + 1)]}), data_page_size=1 << 30, compression="zstd")
    write_nested()
    write("bad-nothing", pa.table({"body": ["a"], "title": ["b"]}))


if __name__ == "__main__":
    main()
