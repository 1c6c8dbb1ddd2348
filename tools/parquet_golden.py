"""Parquet files for corpus/internal/parquet/testdata.

    python tools/parquet_golden.py   # from the root of the repository

Made with pyarrow 26.0.1. The test computes the same rows.
"""

import os

import pyarrow as pa
import pyarrow.parquet as pq

DIR = "corpus/internal/parquet/testdata"
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
    write("bad-integers", pa.table({"text": [1, 2, 3]}))
    write("bad-list", pa.table({"text": [["a"], ["b"]]}))
    write("bad-nothing", pa.table({"body": ["a"], "title": ["b"]}))


if __name__ == "__main__":
    main()
