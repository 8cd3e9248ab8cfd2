"""asyncpg: everything prepared, everything binary."""

import asyncio
import datetime
import decimal
import json
import uuid

import asyncpg

TABLE = """
    create table asyncpg_rows (
        id int primary key, big bigint, name text, price numeric, ratio float8, seen timestamptz, day date,
        span interval, tag uuid, doc jsonb, raw bytea, numbers int[], words text[], flag bool, nothing text
    )
"""
ROW = (
    1,
    -(2**40),
    "it's, a 'test' ✓",
    decimal.Decimal("-0.00012"),
    0.1,
    datetime.datetime(2024, 2, 29, 12, 0, 0, 123456, datetime.timezone.utc),
    datetime.date(1999, 12, 31),
    datetime.timedelta(days=3, seconds=4.5),
    uuid.UUID("6a1f1c55-8f5c-4c8b-9f0a-0123456789ab"),
    json.dumps({"key": [1, None, "värde"]}),
    b"\x00\xff\\'",
    [1, None, 3],
    ["a", 'quoted "b"', None, "c,d"],
    True,
    None,
)


async def statements(connection):
    await connection.execute("drop table if exists asyncpg_rows; " + TABLE)
    marks = ", ".join(f"${n}" for n in range(1, len(ROW) + 1))
    await connection.execute(f"insert into asyncpg_rows values ({marks})", *ROW)
    row = await connection.fetchrow("select * from asyncpg_rows where id = $1", 1)
    assert row["name"] == ROW[2]
    prepared = await connection.prepare("select $1::int + $2::bigint")
    for number in range(50):
        assert await prepared.fetchval(number, 1) == number + 1
    await connection.executemany(
        "insert into asyncpg_rows (id, name) values ($1, $2)", [(n, f"row {n}") for n in range(2, 100)]
    )


async def cursor(connection):
    async with connection.transaction():
        rows = [row async for row in connection.cursor("select generate_series(1, $1::int)", 120, prefetch=50)]
        assert len(rows) == 120
        scroll = await connection.cursor("select generate_series(1, 10)")
        await scroll.fetch(3)
        await scroll.forward(2)
        await scroll.fetch(100)


async def copy(connection):
    records = [(n, f"copied {n}") for n in range(1000, 1100)]
    await connection.copy_records_to_table("asyncpg_rows", records=records, columns=["id", "name"])

    async def ignore(_data):
        pass

    await connection.copy_from_query("select id, name from asyncpg_rows where id > $1", 5, output=ignore)
    await connection.copy_from_table("asyncpg_rows", columns=["id"], output=ignore, format="csv")


async def errors(connection):
    for sql, arguments in (
        ("select 1 / 0", ()),
        ("selec 1", ()),
        ("select * from nowhere where id = $1", (1,)),
        ("select 1 / $1::int", (0,)),
        ("insert into asyncpg_rows (id) values ($1)", (1,)),
    ):
        try:
            await connection.fetch(sql, *arguments)
            raise AssertionError(f"no error: {sql}")
        except asyncpg.PostgresError:
            pass
    try:
        async with connection.transaction():
            await connection.execute("insert into asyncpg_rows (id) values (5000)")
            await connection.execute("select 1 / 0")
    except asyncpg.DivisionByZeroError:
        pass


async def main():
    settings = {"application_name": "asyncpg"}
    connection = await asyncpg.connect(server_settings=settings)
    await statements(connection)
    await cursor(connection)
    await copy(connection)
    await errors(connection)
    await connection.close()
    async with asyncpg.create_pool(min_size=3, max_size=3) as pool:
        await asyncio.gather(*(pool.fetchval("select $1::int", n) for n in range(60)))


asyncio.run(main())
print("done")
