-- One column for each supported type; rows of ordinary values, of extremes, of nothing.
create table every_type (
    id int primary key,
    a_int2 int2, a_int4 int4, a_int8 int8, a_float4 float4, a_float8 float8, a_numeric numeric,
    a_text text, a_varchar varchar(40), a_bpchar char(8), a_name name, a_bytea bytea, a_bool bool,
    a_date date, a_time time, a_timetz timetz, a_timestamp timestamp, a_timestamptz timestamptz,
    a_interval interval, a_uuid uuid, a_json json, a_jsonb jsonb, a_inet inet, a_cidr cidr,
    a_macaddr macaddr, a_macaddr8 macaddr8, a_oid oid,
    some_int4 int4[], some_int8 int8[], some_text text[], some_numeric numeric[], some_float8 float8[],
    some_bool bool[], some_uuid uuid[], some_timestamptz timestamptz[], some_bytea bytea[], some_jsonb jsonb[],
    a_int4range int4range, a_int8range int8range, a_numrange numrange, a_tsrange tsrange,
    a_tstzrange tstzrange, a_daterange daterange
);
insert into every_type values (
    1,
    -7, 42, 9007199254740993, 1.5, 0.1, 12345.678900,
    'plain text', 'varying', 'fixed', 'a_name', '\x00ff5c27', true,
    '2024-02-29', '12:34:56.789', '01:02:03+05:30', '2024-02-29 12:34:56.123456', '2024-02-29 12:34:56.5+02',
    '1 year 2 mons 3 days 04:05:06.789', '6a1f1c55-8f5c-4c8b-9f0a-0123456789ab', '{"a" : [1, null]}',
    '{"b": {"c": "é"}, "a": 1.50}', '192.168.1.5/24', '10.0.0.0/8',
    '08:00:2b:01:02:03', '08:00:2b:01:02:03:04:05', 4294967295,
    '{1,null,-3}', '{9007199254740993}', '{plain,"with \"quote\"","with,comma","",null,"NULL","back\\slash"," blank "}',
    '{1.10,-0.001,null}', '{0.1,1e100,-2.5}',
    '{t,f,null}', '{6a1f1c55-8f5c-4c8b-9f0a-0123456789ab}', '{"2024-02-29 12:00:00+00",null}',
    '{"\\x00ff",null}', '{"{\"a\": 1}","[2]"}',
    '[1,10)', '(,5]', '[1.5,2.5]', '[2024-01-01 00:00:00,2024-01-02 00:00:00)',
    '["2024-01-01 00:00:00+00",)', '[2024-01-01,2024-02-01)'
);
insert into every_type values (
    2,
    32767, -2147483648, -9223372036854775808, -3.4028235e38, 1.7976931348623157e308, 99999999999999999999.000000000001,
    E'Grüße, 世界 🐘\n\ttab "quote" \\ ''single''', 'é', 'ü', 'n', '', false,
    '0001-01-01', '00:00:00', '23:59:59.999999-12', '1970-01-01', '1999-12-31 23:59:59.999999+00',
    '-1 days +00:00:00.000001', '00000000-0000-0000-0000-000000000000', '[]', '"x"', '2001:db8::1', '2001:db8::/32',
    'ff:ff:ff:ff:ff:ff', '00:00:00:00:00:00:00:00', 0,
    '{}', '{{1,2},{3,4}}', '{{a,b},{c,d}}', '{}', '{}', '{}', '{}', '{}', '{}', '{}',
    'empty', '(,)', '[0,0]', 'empty', '(,)', '(,2000-01-01)'
);
insert into every_type (id) values (3);
-- What only the server's own format can hold: client libraries refuse some of it.
create table extreme_values (
    id int primary key, a_float4 float4, a_float8 float8, a_numeric numeric, a_date date, a_time time,
    a_timestamp timestamp, a_timestamptz timestamptz, a_interval interval, some_int4 int4[], some_date date[],
    a_daterange daterange
);
insert into extreme_values values
    (1, 'NaN', 'NaN', 'NaN', 'infinity', '24:00:00', 'infinity', 'infinity', '178000000 years', '[0:1]={1,2}', '{infinity}', '[,infinity]'),
    (2, 'Infinity', 'Infinity', 'Infinity', '-infinity', '23:59:59.999999', '-infinity', '-infinity', '-178000000 years', '[-2:-1][3:3]={{1},{2}}', '{-infinity,null}', '[-infinity,)'),
    (3, '-Infinity', '-Infinity', '-Infinity', '4713-01-01 BC', '00:00:00.000001', '4713-01-01 00:00:00 BC', '4713-01-01 00:00:00 BC', '-1 year +1 day -00:00:01', '{{{1}}}', '{"0044-03-15 BC"}', '[0044-03-15 BC,2000-01-01)'),
    (4, '-0', '-0', '0', '5874897-12-31', '00:00:00', '294276-12-31 23:59:59.999999', '294276-12-31 23:59:59.999999', '0', null, '{5874897-12-31}', null),
    (5, 1e-45, 5e-324, '0.00000000000000000000000000000000000001', '2000-01-01', '12:00', '2000-01-01', '2000-01-01', '1 mon -1 day', '{null}', '{}', 'empty'),
    (6, 16777216, 1e15, '-1234567890123456789012345678901234567890.12345', '1999-12-31', '12:00:00.1', '1999-12-31 23:59:59.9', '1999-12-31 23:59:59.9', '100:00:00', '{2147483647}', null, '[2000-01-01,2000-01-01]'),
    (7, 1e6, 1e16, '10000', '0001-12-31 BC', '00:00:01', '0001-12-31 BC', '0001-12-31 BC', '1 day', '{0}', null, '(2000-01-01,2000-01-05]'),
    (8, 123456.7, 123456789012345680, '0.0001000', '9999-12-31', '00:01', '9999-12-31', '10000-01-01', '-00:00:00.5', '{-1}', null, '(,)');
