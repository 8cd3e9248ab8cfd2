"""Receives or sends the rows of `every_type` in one way, named by the argument.

Binary COPY carries no types, so its values are printed as hexadecimal JSON for comparison.
"""

import asyncio
import json
import struct
import sys

import asyncpg
import psycopg

SELECT = "select * from every_type order by id"


async def by_asyncpg():
    connection = await asyncpg.connect(server_settings={"application_name": "asyncpg"})
    rows = await connection.fetch(SELECT)
    assert len(rows) == 3
    await connection.close()


def by_psycopg(binary):
    with psycopg.connect(autocommit=True) as connection, connection.cursor(binary=binary) as cursor:
        # A parameter makes it the extended protocol.
        rows = cursor.execute(SELECT + " limit %s", (10,), binary=binary).fetchall()
        assert len(rows) == 3


def binary_values(stream):
    """The tuples of a binary COPY stream (PostgreSQL documentation, COPY, "Binary Format")."""
    assert stream.startswith(b"PGCOPY\n\xff\r\n\0")
    at = 19 + struct.unpack_from("!i", stream, 15)[0]
    rows = []
    while True:
        (count,) = struct.unpack_from("!h", stream, at)
        at += 2
        if count < 0:
            return rows
        row = []
        for _ in range(count):
            (length,) = struct.unpack_from("!i", stream, at)
            at += 4
            if length < 0:
                row.append(None)
                continue
            row.append("\\x" + stream[at : at + length].hex())
            at += length
        rows.append(row)


def by_copy(options):
    with psycopg.connect(autocommit=True) as connection, connection.cursor() as cursor:
        cursor.execute("create temp table copied (like every_type)")
        with cursor.copy(f"copy ({SELECT}) to stdout {options}") as copy:
            stream = b"".join(bytes(block) for block in copy)
        with cursor.copy(f"copy copied from stdin {options}") as copy:
            # In pieces that respect no row.
            for at in range(0, len(stream), 37):
                copy.write(stream[at : at + 37])
        if "binary" in options:
            print(json.dumps(binary_values(stream)))


WAYS = {
    "asyncpg": lambda: asyncio.run(by_asyncpg()),
    "psycopg-text": lambda: by_psycopg(False),
    "psycopg-binary": lambda: by_psycopg(True),
    "copy-text": lambda: by_copy(""),
    "copy-csv": lambda: by_copy("(format csv)"),
    "copy-csv-options": lambda: by_copy("(format csv, header, delimiter ';', null 'nil', quote '|')"),
    "copy-binary": lambda: by_copy("(format binary)"),
}
WAYS[sys.argv[1]]()
