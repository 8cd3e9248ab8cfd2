// node-postgres: simple queries, parameters as text, named statements, queued queries, errors, notifications.
"use strict";

const { Client, Pool } = require("pg");

// The test's certificate is signed by nobody.
const ssl = process.env.PGSSLMODE === "require" ? { rejectUnauthorized: false } : false;

async function statements(client) {
  await client.query("drop table if exists node_rows; create table node_rows (id int primary key, name text, doc jsonb)");
  await client.query("insert into node_rows values ($1, $2, $3)", [1, "it's, a 'test' ✓", { key: [1, null] }]);
  await client.query("insert into node_rows values ($1, $2, $3)", [2, null, null]);
  for (let number = 0; number < 50; number++) {
    await client.query({ name: "named", text: "select * from node_rows where id = $1", values: [number % 3] });
  }
  // Queued, not awaited: the driver sends each when the one before is answered.
  const queued = [];
  for (let number = 0; number < 50; number++) {
    queued.push(client.query("select $1::int as n, $2::text as t", [number, `text ${number}`]));
  }
  await Promise.all(queued);
  await client.query({ text: "select $1::bytea", values: [Buffer.from([0, 255, 92])] });
  await client.query({ text: "select id, name from node_rows order by id", rowMode: "array" });
}

async function errors(client) {
  const wrong = [
    ["select 1 / 0"],
    ["selec 1"],
    ["select * from nowhere where id = $1", [1]],
    ["select 1 / $1::int", [0]],
    ["select $1::int", ["not a number"]],
    ["insert into node_rows (id) values ($1)", [1]],
  ];
  for (const [text, values] of wrong) {
    await client.query(text, values).then(
      () => { throw new Error(`no error: ${text}`); },
      (error) => { if (!error.code) throw error; },
    );
  }
}

async function notifications(client) {
  const heard = new Promise((resolve) => client.once("notification", resolve));
  await client.query("listen node_news");
  await client.query("select pg_notify('node_news', 'payload')");
  await heard;
}

async function main() {
  const client = new Client({ application_name: "node", ssl });
  await client.connect();
  await statements(client);
  await errors(client);
  await notifications(client);
  await client.end();
  const pool = new Pool({ max: 3, ssl });
  await Promise.all(Array.from({ length: 40 }, (_, number) => pool.query("select $1::int", [number])));
  await pool.end();
  console.log("done");
}

main().catch((error) => { console.error(error); process.exit(1); });
