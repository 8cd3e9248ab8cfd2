"""Sessions that are open, and busy, before the agent comes.

Usage: open_sessions.py DSN…, with libpq's environment for the rest. Opens the same sessions at each DSN: some execute
prepared statements without a pause, some wait, some are in a transaction or in the middle of a COPY. Prints how many
there are once all are there; goes on until a line comes on stdin; then brings every session to its end.
"""

import sys
import threading

import psycopg

ROW = "x" * 1000 + "\n"
attached = threading.Event()
opened = []


def busy(connection):
    """Executes an early statement all the time, and a late one too once the agent is there."""
    number, rounds_after = 0, 0
    while rounds_after < 20:
        number += 1
        late = attached.is_set()
        rounds_after += late
        connection.execute("select %s::int8, 'prepared early'", (number,), prepare=True)
        opened_now(connection)
        if late:
            connection.execute("select %s::text, 'prepared late'", (f"late {number}",), prepare=True)
            connection.execute(f"select 'simple {number}'")
        attached.wait(0.01)


def waiting(connection):
    connection.execute("select %s::int8, 'prepared early'", (1,), prepare=True)
    opened_now(connection)
    attached.wait()
    for number in range(5):
        connection.execute("select %s::int8, 'prepared early'", (number,), prepare=True)
        connection.execute("select %s::text, 'prepared late'", (f"late {number}",), prepare=True)


def in_a_transaction(connection):
    with connection.transaction():
        connection.execute("insert into lines values (%s)", ("before",), prepare=True)
        opened_now(connection)
        attached.wait()
        connection.execute("insert into lines values (%s)", ("after",), prepare=True)
    connection.execute("select 'after the transaction'")


def copying_in(connection):
    with connection.cursor() as cursor, cursor.copy("copy lines from stdin") as copy:
        copy.write(ROW * 50)
        copy.write(ROW[:300])
        opened_now(connection)
        attached.wait()
        copy.write(ROW[300:])
        copy.write(ROW * 50)
    connection.execute("select 'after the copy in'")


def copying_out(connection):
    """The server fills the socket and waits, in the middle of a message."""
    with connection.cursor() as cursor:
        with cursor.copy("copy (select repeat('y', 5000) from generate_series(1, 4000)) to stdout") as copy:
            copy.read()
            opened_now(connection)
            attached.wait()
            for _ in copy:
                pass
    connection.execute("select 'after the copy out'")


WORKS = {busy: 5, waiting: 3, in_a_transaction: 2, copying_in: 2, copying_out: 1}


def opened_now(connection):
    if connection not in opened:
        opened.append(connection)


def session(dsn, work):
    with psycopg.connect(dsn, autocommit=True, application_name=work.__name__) as connection:
        work(connection)


threads = [
    threading.Thread(target=session, args=(dsn, work))
    for dsn in sys.argv[1:]
    for work, count in WORKS.items()
    for _ in range(count)
]
for thread in threads:
    thread.start()
while len(opened) < len(threads):
    assert all(thread.is_alive() for thread in threads)
    attached.wait(0.01)
print(len(opened), flush=True)
sys.stdin.readline()
attached.set()
for thread in threads:
    thread.join()
