-- Run by psql as ana, on the Unix socket: the simple protocol, COPY in, a transaction, an error.
CREATE TABLE customers (id int PRIMARY KEY, name text NOT NULL, email text NOT NULL, since date);
CREATE TABLE orders (id int GENERATED ALWAYS AS IDENTITY, customer int REFERENCES customers, amount numeric(10, 2));
COPY customers FROM stdin (FORMAT csv);
1,Ada Lovelace,ada@example.com,2021-12-10
2,Edgar Codd,edgar@example.com,2022-08-23
3,Grace Hopper,grace@example.com,2023-12-09
\.
BEGIN;
INSERT INTO orders (customer, amount) SELECT 1 + i % 3, i * 1.25 FROM generate_series(1, 300) AS i;
UPDATE customers SET name = 'Edgar F. Codd' WHERE id = 2;
COMMIT;
GRANT SELECT ON customers, orders TO billing, mcp_agent;
SELECT name, sum(amount) FROM customers JOIN orders ON orders.customer = customers.id GROUP BY name ORDER BY 2 DESC;
SELECT emial FROM customers;
