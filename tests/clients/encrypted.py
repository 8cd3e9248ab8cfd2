"""Reads every table of an encrypted record with pyarrow and with DuckDB, given the key, and with neither without it.

DuckDB does not read lists of encrypted files, whoever wrote them; of what pyarrow decrypts for it, it reads all.

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


def dataset(files, key):
    key = pyarrow.parquet.encryption.create_decryption_properties(key)
    options = pyarrow.dataset.ParquetFragmentScanOptions(decryption_properties=key)
    return pyarrow.dataset.dataset(files, format=pyarrow.dataset.ParquetFileFormat(default_fragment_scan_options=options))


def by_duckdb(relation, columns):
    names = ", ".join(f'"{name}"' for name in columns)
    return [dict(zip(columns, row)) for row in relation.select(names).fetchall()]


def encrypted(files):
    config = "hive_partitioning = false, encryption_config = {footer_key: 'record'}"
    return duckdb.sql(f"select * from read_parquet({files}, {config})")


def same(table, one, other):
    one, other = (sorted(json.dumps(row, default=str, sort_keys=True) for row in rows) for rows in (one, other))
    for a, b in zip(one, other, strict=True):
        assert a == b, f"{table}: pyarrow reads {a}\nDuckDB reads {b}"


def refuses(read, file):
    try:
        read()
    except Exception:
        return
    raise SystemExit(f"{file} is read without its key")


def main(data, key_file):
    text = key_file.read_text().strip()
    duckdb.sql("set TimeZone = 'UTC'")
    duckdb.sql(f"PRAGMA add_parquet_key('record', '{text}')")
    counts, statements = {}, []
    for table in TABLES:
        files = [str(path) for path in sorted(data.glob(f"{table}/date=*/*.parquet"))]
        if not files:
            continue
        decrypted = dataset(files, base64.b64decode(text))
        rows = decrypted.to_table().to_pylist()
        same(table, rows, by_duckdb(duckdb.from_arrow(decrypted), decrypted.schema.names))
        plain = [field.name for field in decrypted.schema if not pyarrow.types.is_nested(field.type)]
        same(table, [{name: row[name] for name in plain} for row in rows], by_duckdb(encrypted(files), plain))
        for file in files:
            refuses(lambda: pyarrow.parquet.ParquetFile(file), file)
            refuses(lambda: dataset([file], bytes(32)).to_table(), file)
            refuses(lambda: duckdb.read_parquet(file).fetchall(), file)
        counts[table] = len(rows)
        if table == "statements":
            statements = [row["sql"] for row in rows]
    json.dump({"counts": counts, "statements": statements}, sys.stdout)


main(pathlib.Path(sys.argv[1]), pathlib.Path(sys.argv[2]))
