"""Reads every table of an encrypted record with DuckDB and with pyarrow, given the key, and with neither without it.

Usage: encrypted.py DATA_DIR KEY_FILE
Prints one JSON object: the texts of all statements, and how many rows each table has.
"""

import base64
import json
import pathlib
import sys

import duckdb
import pyarrow.dataset
import pyarrow.parquet
import pyarrow.parquet.encryption

TABLES = ("sessions", "statements", "results", "gaps", "decisions")


def by_pyarrow(files, key):
    opened = pyarrow.parquet.encryption.create_decryption_properties(key)
    return [row for file in files for row in pyarrow.parquet.ParquetFile(file, decryption_properties=opened).read().to_pylist()]


def by_duckdb(files):
    cursor = duckdb.sql(f"select * from read_parquet({files}, hive_partitioning = false, encryption_config = {{footer_key: 'record'}})")
    names = cursor.columns
    return [dict(zip(names, row)) for row in cursor.fetchall()]


def comparable(row):
    return json.dumps(row, default=str, sort_keys=True)


def main(data, key_file):
    text = key_file.read_text().strip()
    duckdb.sql("set TimeZone = 'UTC'")
    duckdb.sql(f"PRAGMA add_parquet_key('record', '{text}')")
    counts, statements = {}, []
    for table in TABLES:
        files = [str(path) for path in sorted(data.glob(f"{table}/date=*/*.parquet"))]
        if not files:
            continue
        arrow, duck = by_pyarrow(files, base64.b64decode(text)), by_duckdb(files)
        for one, other in zip(sorted(map(comparable, arrow)), sorted(map(comparable, duck)), strict=True):
            assert one == other, f"{table}: pyarrow reads {one}\nDuckDB reads {other}"
        for file in files:
            refuses(lambda: pyarrow.parquet.ParquetFile(file), file)
            refuses(lambda: by_pyarrow([file], bytes(32)), file)
            refuses(lambda: duckdb.read_parquet(file).fetchall(), file)
        counts[table] = len(arrow)
        if table == "statements":
            statements = [row["sql"] for row in arrow]
    json.dump({"counts": counts, "statements": statements}, sys.stdout)


def refuses(read, file):
    try:
        read()
    except Exception:
        return
    raise SystemExit(f"{file} is read without its key")


main(pathlib.Path(sys.argv[1]), pathlib.Path(sys.argv[2]))
