//! FunctionCall.

use crate::session::testing::*;
use crate::session::*;

#[test]
fn a_function_call_has_its_arguments_and_its_result() {
    let result = message(b'V', &[&[0, 0, 0, 2], &[1, 2]]);
    let recorder = Talk::started()
        .client(&[function_call(1598, &[Some(&[9]), None])])
        .server(&[result, ready(b'I')])
        .client(&[function_call(1598, &[])])
        .server(&[error("ERROR", "42883", "no such function"), ready(b'I')])
        .client(&[query("SELECT 1")])
        .server(&[columns(&[("a", 23)]), row(&[t("1")]), done("SELECT 1"), ready(b'I')])
        .record();
    use Status::{Completed, Failed};
    assert_eq!(recorder.statuses(), [Completed, Failed, Completed]);
    let call = &recorder.statements[0];
    assert_eq!((call.protocol, call.sql.is_none(), call.rows), (Protocol::Function, true, Some(1)));
    assert_eq!(text(&call.statement_name), Some("fn:1598"));
    assert_eq!(recorder.params(0), [Some([9].as_slice()), None]);
    assert_eq!(recorder.rows[0].values, [Some(vec![1, 2])]);
}
