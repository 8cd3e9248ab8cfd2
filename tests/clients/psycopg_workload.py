"""psycopg 3: every way in which it sends statements."""

import datetime
import decimal
import uuid

import psycopg
from psycopg.types.json import Jsonb

TABLE = """
    create table psycopg_rows (
        id int primary key, name text, price numeric, seen timestamptz, tag uuid, doc jsonb, raw bytea,
        numbers int[], nothing text
    )
"""
ROW = (
    1,
    "it's, a 'test'",
    decimal.Decimal("12.50"),
    datetime.datetime(2024, 2, 29, 12, 0, 0, 123456, datetime.timezone.utc),
    uuid.UUID("6a1f1c55-8f5c-4c8b-9f0a-0123456789ab"),
    Jsonb({"key": [1, None, "värde"]}),
    b"\x00\xff\\'",
    [1, 2, 3],
    None,
)


def statements(connection):
    connection.execute("drop table if exists psycopg_rows")
    connection.execute(TABLE)
    insert = "insert into psycopg_rows values (%s, %s, %s, %s, %s, %s, %s, %s, %s)"
    connection.execute(insert, ROW)
    for binary in (False, True):
        with connection.cursor(binary=binary) as cursor:
            cursor.execute("select * from psycopg_rows where id = %s", (1,), binary=binary)
            cursor.fetchall()
            cursor.execute("select %b::int8, %b::text, %t", (7, "bin", "text"))
    # The same text often: psycopg prepares it by itself after five times.
    for number in range(20):
        connection.execute("select %s::int + 1", (number,), prepare=number > 10)
    # No parameters: the simple protocol, several statements at once.
    connection.execute("select 1; select 2")
    with connection.cursor() as cursor:
        cursor.executemany("insert into psycopg_rows (id, name) values (%s, %s)", [(n, str(n)) for n in range(2, 30)])


def server_side_cursor(connection):
    with connection.transaction(), connection.cursor(name="portal") as cursor:
        cursor.execute("select generate_series(1, %s)", (100,))
        cursor.itersize = 30
        assert len(list(cursor)) == 100


def pipeline(connection):
    with connection.pipeline():
        for number in range(50):
            connection.execute("select %s::text", (str(number),))
    try:
        with connection.pipeline():
            connection.execute("select 'before'", prepare=True)
            connection.execute("select 1 / %s", (0,))
            connection.execute("select 'skipped'", prepare=True)
    except psycopg.errors.DivisionByZero:
        pass


def copy(connection):
    with connection.cursor() as cursor:
        with cursor.copy("copy psycopg_rows (id, name) from stdin") as copy:
            for number in range(100, 200):
                copy.write_row((number, f"copied\t{number}"))
        with cursor.copy("copy psycopg_rows (id, name) from stdin (format binary)") as copy:
            copy.set_types(["int4", "text"])
            for number in range(200, 250):
                copy.write_row((number, f"binary {number}"))
        with cursor.copy("copy (select id, name from psycopg_rows order by id) to stdout") as copy:
            for _ in copy.rows():
                pass
        with cursor.copy("copy (select id, name from psycopg_rows) to stdout (format binary)") as copy:
            for _ in copy:
                pass


def errors(connection):
    for sql, params in (
        ("select 1 / 0", None),
        ("selec 1", None),
        ("select * from nowhere where id = %s", (1,)),
        ("select %s::int / 0", (1,)),
        ("insert into psycopg_rows (id) values (%s)", (1,)),
    ):
        try:
            connection.execute(sql, params)
            raise AssertionError(f"no error: {sql}")
        except psycopg.Error:
            pass
    try:
        with connection.transaction():
            connection.execute("select 1 / %s", (0,))
    except psycopg.errors.DivisionByZero:
        pass


with psycopg.connect(autocommit=True, application_name="psycopg") as connection:
    statements(connection)
    server_side_cursor(connection)
    pipeline(connection)
    copy(connection)
    errors(connection)
with psycopg.connect(application_name="psycopg transactions") as connection:
    connection.execute("select count(*) from psycopg_rows where id < %s", (10,))
    connection.rollback()
    connection.execute("delete from psycopg_rows")
    connection.commit()
    spoken = connection.pgconn.full_protocol_version
print("done, protocol", spoken)
