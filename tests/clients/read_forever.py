"""Reads every complete file of a record, over and over, until stdin closes: with DuckDB all at once, with pyarrow
one by one. Fails at the first file that cannot be read.

Usage: read_forever.py DATA_DIR
Prints how many files it read.
"""

import pathlib
import select
import sys

import duckdb
import pyarrow.parquet

folder = pathlib.Path(sys.argv[1])
read = 0
last = False
while True:
    for table in ("sessions", "statements", "results", "gaps", "decisions"):
        files = sorted(str(path) for path in folder.glob(f"{table}/date=*/*.parquet"))
        if files:
            duckdb.read_parquet(files).aggregate("count(*)").fetchall()
        for path in files[-3:]:
            pyarrow.parquet.ParquetFile(path).read()
            read += 1
    if last:
        break
    # One more round after the end.
    last = bool(select.select([sys.stdin], [], [], 0.02)[0])
print(read)
