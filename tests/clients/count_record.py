"""Counts what is in a record that is too large to look at row by row.

Usage: count_record.py DATA_DIR SQL_PREFIX
Prints one JSON object; `statements` and `results` count those of statements whose text begins with SQL_PREFIX.
"""

import json
import pathlib
import sys

import duckdb

folder, prefix = pathlib.Path(sys.argv[1]), sys.argv[2]


def files(table):
    return f"read_parquet('{folder}/{table}/*/*.parquet')"


def count(query):
    return duckdb.execute(query, [prefix] if "$1" in query else []).fetchone()[0]


chosen = f"(SELECT * FROM {files('statements')} WHERE starts_with(sql, $1))"
results = f"(FROM {files('results')} SEMI JOIN {chosen} USING (session_id, seq))"
gaps = list(folder.glob("gaps/*/*.parquet"))
print(json.dumps({
    "statements": count(f"SELECT count(*) FROM {chosen}"),
    "distinct_statements": count(f"SELECT count(DISTINCT (session_id, seq)) FROM {chosen}"),
    "completed": count(f"SELECT count(*) FROM {chosen} WHERE status = 'completed' AND complete"),
    "results": count(f"SELECT count(*) FROM {results}"),
    "distinct_results": count(f"SELECT count(DISTINCT (session_id, seq, row)) FROM {results}"),
    "unknown": count(f"SELECT count(*) FROM {files('statements')} WHERE sql IS NULL"),
    "ended": count(f"SELECT count(DISTINCT session_id) FROM {files('sessions')} WHERE ended_at IS NOT NULL"),
    "ended_rows": count(f"SELECT count(*) FROM {files('sessions')} WHERE ended_at IS NOT NULL"),
    "partial": count(f"SELECT count(*) FROM {files('sessions')} WHERE partial"),
    "writers": count(f"""SELECT list(DISTINCT created_by ORDER BY created_by)
        FROM parquet_file_metadata('{folder}/*/*/*.parquet')"""),
    "gaps": count(f"SELECT count(*) FROM {files('gaps')}") if gaps else 0,
}))
