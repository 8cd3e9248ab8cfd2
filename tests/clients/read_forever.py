"""Reads every complete file of a record, over and over, until stdin closes: with DuckDB all at once, with pyarrow
one by one. Fails at the first file that cannot be read. A file that went after the folder was listed was merged with
others: then the folder is listed again, as docs/schema.md tells readers.

Usage: read_forever.py DATA_DIR
Prints how many files it read.
"""

import pathlib
import select
import sys

import duckdb
import pyarrow.parquet

folder = pathlib.Path(sys.argv[1])


def read_table(table):
    files = sorted(str(path) for path in folder.glob(f"{table}/date=*/*.parquet"))
    try:
        if files:
            duckdb.read_parquet(files).aggregate("count(*)").fetchall()
        for path in files[-3:]:
            pyarrow.parquet.ParquetFile(path).read()
    except Exception:
        if all(pathlib.Path(path).exists() for path in files):
            raise
        return 0
    return len(files[-3:])


read = 0
last = False
while True:
    read += sum(map(read_table, ("sessions", "statements", "results", "gaps", "decisions")))
    if last:
        break
    # One more round after the end.
    last = bool(select.select([sys.stdin], [], [], 0.02)[0])
print(read)
