use super::*;
use crate::policy::{Policy, RowLimits};
use crate::session::Column;

const RULES: &str = "[[mask]]\nname = 'm'\ncolumns = ['public.customers.ssn', 'customers.email']\n";

fn rules(text: &str) -> Rules {
    Rules::new(Policy::compile(text, RowLimits::default()).unwrap().mask_rules().iter())
}

fn plan(text: &str) -> Plan {
    Plan::of(text, true, &rules(RULES), None, None)
}

/// The text as it is recorded.
fn left(text: &str) -> String {
    plan(text).text.as_deref().unwrap_or(text).to_owned()
}

/// Which of the columns with these names are masked, as `-` and `m`.
fn masked(text: &str, names: &[&str]) -> String {
    let columns: Vec<_> = names
        .iter()
        .map(|name| Column { name: (*name).into(), type_oid: 25, table_oid: 0, attnum: 0, format: 0 })
        .collect();
    let found = plan(text).outputs.resolve(&columns, columns.len(), &rules(RULES));
    found.iter().map(|rule| if rule.is_some() { 'm' } else { '-' }).collect()
}

#[test]
fn constants_that_meet_a_masked_column_are_masked() {
    for (text, expected) in [
        ("select id from customers where ssn = '123'", "select id from customers where ssn = '[masked]'"),
        (
            "select 1 from customers c where c.id = 5 and c.ssn in ('1', '2')",
            "select 1 from customers c where c.id = 5 and c.ssn in ('[masked]', '[masked]')",
        ),
        (
            "select * from customers where lower(email) like 'bob%' or id = 7",
            "select * from customers where lower(email) like '[masked]' or id = 7",
        ),
        (
            "insert into customers (id, ssn) values (1, '123'), (-2, E'a\\'b'), (3, -5)",
            "insert into customers (id, ssn) values (1, '[masked]'), (-2, '[masked]'), (3, '[masked]')",
        ),
        ("insert into customers values (1, '123')", "insert into customers values ('[masked]', '[masked]')"),
        (
            "insert into customers (id, ssn) select 1, 'x' from other where a = 'b'",
            "insert into customers (id, ssn) select 1, '[masked]' from other where a = 'b'",
        ),
        (
            "insert into customers (id) values (1) on conflict (id) do update set ssn = 'x', id = 3",
            "insert into customers (id) values (1) on conflict (id) do update set ssn = '[masked]', id = 3",
        ),
        (
            "update customers set ssn = 'x', name = 'y' where id = 3",
            "update customers set ssn = '[masked]', name = 'y' where id = 3",
        ),
        (
            "update customers set (name, ssn) = ('y', 'x')",
            "update customers set (name, ssn) = ('y', '[masked]')",
        ),
        (
            "delete from customers using o where o.a = '1' and customers.ssn = 'x'",
            "delete from customers using o where o.a = '1' and customers.ssn = '[masked]'",
        ),
        (
            "merge into customers c using n on c.ssn = 'a' when matched then update set ssn = 'b', name = 'c' when not matched then insert (id, ssn) values (1, 'd')",
            "merge into customers c using n on c.ssn = '[masked]' when matched then update set ssn = '[masked]', name = 'c' when not matched then insert (id, ssn) values (1, '[masked]')",
        ),
        (
            "with k(s) as (values ('x')) select id from customers join k on ssn = k.s where id = 2",
            "with k(s) as (values ('[masked]')) select id from customers join k on ssn = k.s where id = 2",
        ),
        (
            "select id from customers join (values ('x')) v(ssn) using (ssn)",
            "select id from customers join (values ('[masked]')) v(ssn) using (ssn)",
        ),
        (
            "select id from customers where ssn = any(array['x', $$y$$])",
            "select id from customers where ssn = any(array['[masked]', $$[masked]$$])",
        ),
        (
            "select count(*) filter (where ssn = 'x') from customers",
            "select count(*) filter (where ssn = '[masked]') from customers",
        ),
        (
            "select case when email = 'x' then 1 end from customers",
            "select case when email = '[masked]' then '[masked]' end from customers",
        ),
        (
            "copy customers (id, ssn) from stdin where ssn <> 'x'",
            "copy customers (id, ssn) from stdin where ssn <> '[masked]'",
        ),
        (
            "prepare p as select id from customers where ssn = 'x'",
            "prepare p as select id from customers where ssn = '[masked]'",
        ),
        (
            "explain select id from customers where ssn = 'x'",
            "explain select id from customers where ssn = '[masked]'",
        ),
        (
            "create table customers (ssn text default 'x', n numeric(10, 2))",
            "create table customers (ssn text default '[masked]', n numeric(10, 2))",
        ),
        (
            "do $$ begin perform 1 from customers where ssn = 'x'; end $$",
            "do $$ begin perform '[masked]' from customers where ssn = '[masked]'; end $$",
        ),
        ("select id from other.customers where ssn = 'x'", "select id from other.customers where ssn = 'x'"),
        ("select id from orders where ssn = 'x'", "select id from orders where ssn = 'x'"),
        (
            "select id from customers where ssn = 'x' -- is x here",
            "select id from customers where ssn = '[masked]'  ",
        ),
        (
            "select id from customers whre ssn = 'x' /* x */ and 5 = \"q\"",
            "select id from customers whre ssn = '[masked]' and '[masked]' = \"q\"",
        ),
        ("select id from customers where ssn = 'open", "select id from customers where ssn = '[masked]'"),
        (
            "update customers set ok = true, ssn = '1' where extract(year from now()) = 2000",
            "update customers set ok = true, ssn = '[masked]' where extract(year from now()) = 2000",
        ),
    ] {
        let text_left = left(text);
        assert_eq!(text_left.trim_end(), expected.trim_end(), "{text}");
    }
}

#[test]
fn parameters_that_meet_a_masked_column_are_masked() {
    let params = |text: &str| -> Vec<usize> {
        let plan = plan(text);
        (1..=4).filter(|number| plan.params.at(number - 1).is_some()).collect()
    };
    assert_eq!(params("select * from customers where id = $1 and ssn = $2"), [2]);
    assert_eq!(params("insert into customers (id, ssn, name) values ($1, $2, $3)"), [2]);
    assert_eq!(params("insert into customers values ($1, $2)"), [1, 2]);
    assert_eq!(params("update customers set email = lower($3), name = $1 where id = $2"), [3]);
    assert_eq!(params("select * from orders where ssn = $1"), [0_usize; 0]);
    assert_eq!(params("select * from customers where garbage garbage $1"), [1, 2, 3, 4]);
}

#[test]
fn columns_made_of_a_masked_one_are_masked() {
    for (text, names, expected) in [
        ("select * from customers", &["id", "name", "ssn", "email"][..], "--mm"),
        ("select c.*, 1 as one from customers c", &["id", "ssn", "one"], "-m-"),
        ("select id, ssn as harmless, name from customers", &["id", "harmless", "name"], "-m-"),
        ("select upper(email), length(name) from customers", &["upper", "length"], "m-"),
        ("select count(ssn), ssn is null, max(ssn) from customers", &["count", "?column?", "max"], "--m"),
        ("select o.id, c.email from orders o join customers c on c.id = o.customer", &["id", "email"], "-m"),
        ("select * from orders o join customers c using (id)", &["id", "total", "email"], "--m"),
        ("select x.e, x.i from (select email as e, id as i from customers) x", &["e", "i"], "m-"),
        ("select * from (select email, id from customers) x(a, b)", &["a", "b"], "m-"),
        ("with x as (select * from customers) select ssn, id from x", &["ssn", "id"], "m-"),
        ("with x(a, b) as (select id, ssn from customers) select b, a from x", &["b", "a"], "m-"),
        (
            "with recursive r as (select id, ssn from customers union all select id, ssn from r) select * from r",
            &["id", "ssn"],
            "mm",
        ),
        ("select id, (select email from customers limit 1) from orders", &["id", "email"], "-m"),
        ("select exists (select email from customers), 1", &["exists", "?column?"], "--"),
        ("select id, ssn from customers union select id, name from orders", &["id", "ssn"], "-m"),
        ("select name, name from orders union select id, ssn from customers", &["name", "name"], "-m"),
        ("select c from customers c", &["c"], "m"),
        ("select row_to_json(c) from customers c", &["row_to_json"], "m"),
        ("select (c).ssn, (c).id from customers c", &["ssn", "id"], "mm"),
        ("insert into customers (id) values (1) returning *", &["id", "ssn"], "-m"),
        ("update customers set name = 'x' returning id, email as e", &["id", "e"], "-m"),
        ("delete from customers c returning c.ssn", &["ssn"], "m"),
        ("select s from customers c(i, n, s, e)", &["s"], "m"),
        ("select a.email from orders a, customers b", &["email"], "-"),
        ("select l.x from customers c, lateral (select c.ssn as x) l", &["x"], "m"),
        ("table customers", &["id", "ssn"], "-m"),
        ("select * from customers tablesample system (1)", &["id", "ssn"], "-m"),
        ("select * from (customers c join orders o on true) j", &["id", "ssn"], "-m"),
        ("explain select 1 from customers where ssn = 'x'", &["QUERY PLAN"], "m"),
        ("select garbage from customers garbage garbage", &["a", "b"], "mm"),
        ("execute p", &["a", "b"], "mm"),
        ("select email from orders", &["email"], "-"),
        ("select query_to_xml('select * from customers', true, true, '')", &["query_to_xml"], "m"),
        ("select relname from pg_class where relname = 'customers'", &["relname"], "-"),
    ] {
        assert_eq!(masked(text, names), expected, "{text}");
    }
}

#[test]
fn copied_columns_are_masked_by_their_place() {
    let copied = |text: &str, count| -> String {
        let found = plan(text).copied.resolve(&[], count, &rules(RULES));
        found.iter().map(|rule| if rule.is_some() { 'm' } else { '-' }).collect()
    };
    assert_eq!(copied("copy customers (id, ssn, name) to stdout", 3), "-m-");
    assert_eq!(copied("copy customers to stdout (format csv)", 3), "mmm");
    assert_eq!(copied("copy (select name, email from customers) to stdout", 2), "-m");
    assert_eq!(copied("copy (select * from customers) to stdout", 2), "mm");
    assert_eq!(copied("copy orders from stdin", 2), "--");
}

#[test]
fn secrets_are_masked_without_any_rule() {
    let left = |text: &str| {
        let plan = Plan::of(text, true, &Rules::default(), None, None);
        plan.text.as_deref().unwrap_or(text).to_owned()
    };
    for (text, expected) in [
        (
            "create role a login password 'x' valid until '2030-01-01'",
            "create role a login password '[masked]' valid until '2030-01-01'",
        ),
        ("ALTER USER a WITH ENCRYPTED PASSWORD E'x'", "ALTER USER a WITH ENCRYPTED PASSWORD '[masked]'"),
        ("alter role a password null", "alter role a password null"),
        (
            "create subscription s connection 'host=a password=x' publication p",
            "create subscription s connection '[masked]' publication p",
        ),
        ("alter subscription s connection 'service=x'", "alter subscription s connection '[masked]'"),
        (
            "create user mapping for a server s options (user 'bob', password 'x')",
            "create user mapping for a server s options (user 'bob', password '[masked]')",
        ),
        (
            "select * from dblink('host=a user=b password=x', 'select 1') as t(a int)",
            "select * from dblink('[masked]', 'select 1') as t(a int)",
        ),
        ("select dblink_connect('c', 'postgresql://u:x@h/d')", "select dblink_connect('c', '[masked]')"),
        (
            "alter system set primary_conninfo = 'host=a password=x'",
            "alter system set primary_conninfo = '[masked]'",
        ),
        (
            "do $$ begin execute 'x'; alter role a password 'y'; end $$",
            "do $$ begin execute '[masked]'; alter role a password '[masked]'; end $$",
        ),
        (
            "select format('alter role %I password %L', 'a', 'x')",
            "select format('[masked]', '[masked]', '[masked]')",
        ),
        (
            "create role a passwort password 'x' nonsense",
            "create role a passwort password '[masked]' nonsense",
        ),
        ("create role a password 'x", "create role a password '[masked]'"),
        ("create role a password 'it's x' valid", "create role a password '[masked]'"),
        ("create role a passwort ''x'' valid", "create role a passwort '[masked]'"),
        ("select password from users where name = 'bob'", "select password from users where name = 'bob'"),
        ("select 'a = b', 1", "select 'a = b', 1"),
        (
            "create server s foreign data wrapper f options (host 'h', api_key 'x')",
            "create server s foreign data wrapper f options (host 'h', api_key '[masked]')",
        ),
    ] {
        assert_eq!(left(text), expected);
    }
}

#[test]
fn what_patterns_find_in_a_text_is_masked_and_the_text_stays_one() {
    let rules = rules("[[mask]]\nname = 'p'\npatterns = ['card', 'email']\nstrategy = 'partial'\n");
    let left = |text: &str| {
        let plan = Plan::of(text, true, &rules, None, None);
        plan.text.as_deref().unwrap_or(text).to_owned()
    };
    for (text, expected) in [
        ("select 'pay 4111111111111111 now', 7", "select 'pay ****1111 now', 7"),
        ("select 4111111111111111", "select '****1111'"),
        ("select 1 /* bob@example.com */, $$bob@example.com$$", "select 1 /* ****com */, $$****com$$"),
        ("select 1", "select 1"),
    ] {
        assert_eq!(left(text), expected);
    }
}

#[test]
fn masking_changes_no_fingerprint() {
    use crate::sql::Analyzer;
    let mut analyzer = Analyzer::default();
    for text in [
        "select id from customers where ssn = '123' and id = 5 limit 3",
        "insert into customers (id, ssn) values (1, '123'), (2, 345)",
        "update customers set ssn = -5, name = 'y' where id = 3",
        "select * from customers where ssn in (1, 2, 3) order by 1",
        "insert into customers values (1, 2.5, 'x', null)",
    ] {
        let before = analyzer.analyze(&text.into(), true);
        let after = analyzer.analyze(&left(text).into(), true);
        assert!(before.fingerprint.is_some());
        assert_eq!(before, after, "{text} {}", left(text));
    }
}

#[test]
fn of_a_text_that_nobody_can_read_the_beginning_is_left() {
    let rows = "(1, 'canary'), ".repeat(100_000);
    let text = format!("insert into customers (id, ssn) values {rows}(2, 'canary')");
    let plan = plan(&text);
    let left = plan.text.as_deref().unwrap();
    assert!(
        left.starts_with("insert into customers (id, ssn) values ('[masked]', '[masked]'), "),
        "{left:.90}"
    );
    assert!(left.ends_with("…[masked]") && left.len() < 64 << 10 && !left.contains("canary"));
    assert_eq!(plan.params.at(0), Some(Applies(0)));
}
