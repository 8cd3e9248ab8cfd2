"""Prints every table of a record as one JSON object, read by DuckDB.

Usage: read_record.py DATA_DIR
"""

import datetime
import json
import pathlib
import sys

import duckdb

QUERIES = {
    # A later row of the same session supersedes one without an end.
    "sessions": """
        SELECT * FROM data
        QUALIFY row_number() OVER (PARTITION BY session_id ORDER BY ended_at NULLS LAST) = 1
        ORDER BY started_at, session_id
    """,
    "statements": "SELECT * FROM data ORDER BY session_id, seq",
    "results": 'SELECT session_id, seq, "row", "values" FROM data ORDER BY session_id, seq, "row"',
    "decisions": 'SELECT * FROM data ORDER BY "at"',
    "gaps": 'SELECT * FROM data ORDER BY session_id, direction, "offset"',
}


def read(folder: pathlib.Path) -> dict:
    duckdb.sql("set TimeZone = 'UTC'")
    tables = {}
    for table, query in QUERIES.items():
        files = sorted(str(path) for path in (folder / table).glob("date=*/*.parquet"))
        if not files:
            tables[table] = []
            continue
        data = duckdb.read_parquet(files, hive_partitioning=True)  # noqa: F841: the query names it
        cursor = duckdb.sql(query)
        names = cursor.columns
        tables[table] = [dict(zip(names, row)) for row in cursor.fetchall()]
    return tables


def plain(value):
    if isinstance(value, (datetime.datetime, datetime.date)):
        return value.isoformat()
    raise TypeError(f"cannot print {value!r}")


json.dump(read(pathlib.Path(sys.argv[1])), sys.stdout, default=plain)
