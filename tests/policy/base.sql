-- What every case finds. Each case gets a copy of this database.
CREATE EXTENSION dblink;
CREATE SCHEMA secrets;
CREATE TABLE secrets.keys (id int PRIMARY KEY, key text);
INSERT INTO secrets.keys VALUES (1, 'needle-7f3a9c');
ANALYZE secrets.keys;
-- Not the agent's own: every case with a write is about it.
CREATE TABLE ledger (id int PRIMARY KEY, amount int NOT NULL);
INSERT INTO ledger VALUES (1, 10), (2, 20), (3, 30);
-- The agent's own.
CREATE TABLE notes (id serial PRIMARY KEY, body text);
INSERT INTO notes (body) VALUES ('first'), ('second');
-- Where code of the server leaves its traces.
CREATE TABLE landed (what text);
CREATE FUNCTION land(text) RETURNS int LANGUAGE sql AS 'INSERT INTO landed VALUES ($1) RETURNING 1';
CREATE FUNCTION "Land"(text) RETURNS int LANGUAGE sql AS 'INSERT INTO landed VALUES ($1) RETURNING 1';
CREATE SCHEMA app;
CREATE FUNCTION app.lower(text) RETURNS text LANGUAGE sql AS 'INSERT INTO landed VALUES ($1) RETURNING $1';
CREATE FUNCTION land_table(text) RETURNS SETOF landed LANGUAGE sql AS 'INSERT INTO landed VALUES ($1) RETURNING *';
CREATE FUNCTION land_step(int, int) RETURNS int LANGUAGE sql AS 'INSERT INTO landed VALUES (''step'') RETURNING 1';
CREATE AGGREGATE land_all(int) (sfunc = land_step, stype = int, initcond = '0');
CREATE PROCEDURE land_procedure() LANGUAGE sql AS 'INSERT INTO landed VALUES (''procedure'')';
CREATE FUNCTION land_trigger() RETURNS trigger LANGUAGE plpgsql AS
    'BEGIN INSERT INTO landed VALUES (''trigger''); RETURN NEW; END';
