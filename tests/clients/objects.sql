-- What pg_dump has something to do with.
create type mood as enum ('sad', 'ok', 'happy');
create domain positive as int check (value > 0);
create table people (id serial primary key, name text not null, mood mood, age positive, extra jsonb);
create table letters (id int references people, body text, sent timestamptz default now());
create index on letters (sent);
create view happy_people as select * from people where mood = 'happy';
create function answer() returns int language sql as 'select 42; select 43';
create function loud(a text) returns text language plpgsql as $$ begin raise notice 'x;y'; return upper(a); end $$;
comment on table people is 'it''s a table; really';
insert into people (name, mood, age, extra) select 'name ' || n, 'ok', n, '{"a": null}' from generate_series(1, 200) n;
insert into letters select 1 + n % 200, E'line\none\ttab \\ ' || n from generate_series(1, 500) n;
grant select on people to public;
