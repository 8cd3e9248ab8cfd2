"""psycopg and asyncpg on a table with masked columns: prepared, pipelined, text and binary, COPY both ways.

Usage: masking_drivers.py CANARY
"""

import asyncio
import sys

import asyncpg
import psycopg

canary = sys.argv[1]


def secret(place):
    return f"{canary}-{place}"


def with_psycopg():
    with psycopg.connect(autocommit=True, application_name="psycopg") as connection:
        insert = "insert into customers (id, name, ssn, email) values (%s, %s, %s, %s)"
        for number in range(10, 22):
            # Prepared by the driver after some executions.
            connection.execute(insert, (number, f"name {number}", secret(number), f"{secret(number)}@x.test"))
        for binary in (False, True):
            with connection.cursor(binary=binary) as cursor:
                for _ in range(8):
                    cursor.execute("select id, name, ssn as harmless from customers where ssn = %s", (secret(10),))
                    assert cursor.fetchone()[2] == secret(10)
                cursor.execute("select * from customers where id = 11")
                assert cursor.fetchone()[2] == secret(11)
        with connection.cursor() as cursor:
            for form in ("text", "csv", "binary"):
                with cursor.copy(f"copy customers (id, name, ssn) to stdout (format {form})") as copy:
                    assert canary.encode() in b"".join(copy)
            for form, first in (("text", 100), ("csv", 200)):
                tab = "\t" if form == "text" else ","
                with cursor.copy(f"copy customers (id, name, ssn) from stdin (format {form})") as copy:
                    copy.write(f"{first}{tab}copied{tab}{secret(form)}\n")
            with cursor.copy("copy customers (id, name, ssn) from stdin (format binary)") as copy:
                copy.set_types(["int4", "text", "text"])
                copy.write_row((300, "copied", secret("binary")))
        with connection.pipeline():
            for number in range(10, 15):
                connection.execute("update customers set ssn = %s where id = %s", (secret(f"piped{number}"), number))
        with connection.transaction(), connection.cursor(name="scrolled") as cursor:
            cursor.execute("select id, name, ssn from customers where email like %s", (canary + "%",))
            assert canary in str(cursor.fetchall())
        try:
            connection.execute(insert, (10, "again", secret("again"), None))
        except psycopg.errors.UniqueViolation:
            pass
        try:
            connection.execute(f"select ssn::int from customers where ssn = '{secret('piped12')}'")
        except psycopg.errors.InvalidTextRepresentation as error:
            assert canary in str(error)


async def with_asyncpg():
    connection = await asyncpg.connect(server_settings={"application_name": "asyncpg"}, ssl=False)
    await connection.execute("insert into customers (id, ssn) values ($1, $2)", 400, secret("asyncpg"))
    prepared = await connection.prepare("select id, upper(ssn) as up, ssn from customers where ssn = $1")
    for _ in range(3):
        assert (await prepared.fetch(secret("asyncpg")))[0]["ssn"] == secret("asyncpg")
    await connection.fetch("select c from customers c where id = 400")
    await connection.fetch("with x as (select * from customers) select * from x where id = $1", 400)
    await connection.close()


with_psycopg()
asyncio.run(with_asyncpg())
