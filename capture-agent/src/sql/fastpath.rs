//! FunctionCall messages: a function that is called by its number, without any SQL.

use std::sync::Arc;

use super::Analysis;

/// What a FunctionCall message does: the kind `function_call`, and one function. Functions that libpq's large-object
/// interface calls have their names; others stand as `oid:` and their number in `pg_proc`.
pub fn function_call(oid: u32) -> Arc<Analysis> {
    let known = LARGE_OBJECTS.iter().find(|(number, _)| *number == oid);
    let function = known.map_or_else(|| format!("oid:{oid}"), |(_, name)| (*name).to_owned());
    let kinds = vec!["function_call".to_owned()];
    Arc::new(Analysis { kinds, functions: vec![function], ..Analysis::default() })
}

/// `src/include/catalog/pg_proc.dat`; numbers below 10,000 never change.
const LARGE_OBJECTS: [(u32, &str); 19] = [
    (715, "lo_create"),
    (764, "lo_import"),
    (765, "lo_export"),
    (767, "lo_import"),
    (952, "lo_open"),
    (953, "lo_close"),
    (954, "loread"),
    (955, "lowrite"),
    (956, "lo_lseek"),
    (957, "lo_creat"),
    (958, "lo_tell"),
    (964, "lo_unlink"),
    (1004, "lo_truncate"),
    (3170, "lo_lseek64"),
    (3171, "lo_tell64"),
    (3172, "lo_truncate64"),
    (3457, "lo_from_bytea"),
    (3458, "lo_get"),
    (3460, "lo_put"),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_function_is_told_by_name_or_number() {
        let told = function_call(955);
        assert_eq!(
            (told.kinds.as_slice(), told.functions.as_slice()),
            (&["function_call".into()][..], &["lowrite".into()][..])
        );
        assert_eq!(function_call(177).functions, ["oid:177"]);
    }
}
