"""Reads every table of a record with DuckDB and with pyarrow, and runs the queries of the documentation.

Usage: engines.py DATA_DIR SCHEMA_MD
Fails with words; prints what it compared.
"""

import json
import pathlib
import re
import sys

import duckdb
import pyarrow.dataset

TABLES = ("sessions", "statements", "results", "gaps", "decisions")


def rows_by_pyarrow(folder):
    dataset = pyarrow.dataset.dataset(folder, format="parquet", partitioning="hive")
    return dataset.to_table().to_pylist()


def rows_by_duckdb(folder):
    cursor = duckdb.sql(f"select * from read_parquet('{folder}/*/*.parquet', hive_partitioning = true)")
    names = cursor.columns
    return [dict(zip(names, row)) for row in cursor.fetchall()]


def documented_columns(text, table):
    """The first words of the table that stands under the heading `## TABLE`."""
    section = re.search(rf"^## `?{table}`?\n(.*?)(?=^## |\Z)", text, re.M | re.S)
    assert section, f"docs: no section on {table}"
    return set(re.findall(r"^\| `(\w+)`", section[1], re.M))


def main(data, document):
    text = document.read_text()
    duckdb.sql("set TimeZone = 'UTC'")
    for table in TABLES:
        folder = data / table
        if not list(folder.glob("*/*.parquet")):
            print(f"{table}: empty")
            continue
        arrow, duck = rows_by_pyarrow(folder), rows_by_duckdb(folder)
        for one, other in zip(sorted(map(comparable, arrow)), sorted(map(comparable, duck)), strict=True):
            assert one == other, f"{table}: pyarrow reads {one}\nDuckDB reads {other}"
        columns = set(arrow[0]) - {"date"}
        documented = documented_columns(text, table)
        assert columns <= documented, f"docs: {table} lacks {sorted(columns - documented)}"
        assert documented - {"date"} <= columns, f"docs: {table} has no {sorted(documented - columns)}"
        print(f"{table}: {len(arrow)} rows, {len(columns)} columns")
    queries = re.findall(r"^```sql\n(.*?)^```", text, re.M | re.S)
    assert queries, "docs: no query"
    for query in queries:
        try:
            duckdb.sql(query.replace("DATA", str(data))).fetchall()
        except Exception as error:
            raise SystemExit(f"docs: this query fails: {error}\n{query}")
    print(f"{len(queries)} queries")


def comparable(row):
    """A row in a spelling that both engines share; the folder's date comes as text or as a date."""
    return json.dumps({name: row[name] for name in row if name != "date"}, default=str, sort_keys=True)


main(pathlib.Path(sys.argv[1]), pathlib.Path(sys.argv[2]))
