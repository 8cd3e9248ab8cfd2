"""Run by the demo: a billing service and an AI agent, each with an ordinary driver over TCP."""

import sys

import psycopg

port = int(sys.argv[1])


def connect(user, application):
    return psycopg.connect(
        host="127.0.0.1", port=port, user=user, dbname="shop", application_name=application,
        sslmode="disable", autocommit=True,
    )


with connect("billing", "billing-service") as session:
    # One statement, prepared once and executed 200 times with parameters.
    for customer in range(200):
        session.execute(
            "SELECT count(*), sum(amount) FROM orders WHERE customer = %s AND amount > %s",
            (1 + customer % 3, 10), prepare=True,
        ).fetchone()
    with session.cursor().copy("COPY orders TO STDOUT") as rows:
        for _ in rows:
            pass

with connect("mcp_agent", "support-copilot") as session:
    session.execute("SELECT id, name, email FROM customers WHERE name ILIKE %s", ("%codd%",)).fetchall()
    session.execute("SELECT amount FROM orders WHERE customer = %s LIMIT 3", (2,)).fetchall()
    try:
        session.execute("DROP TABLE orders")
    except psycopg.errors.InsufficientPrivilege:
        pass
