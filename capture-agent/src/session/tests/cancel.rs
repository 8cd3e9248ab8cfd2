//! CancelRequest.

use crate::session::testing::*;
use crate::session::*;

#[test]
fn a_cancel_request_is_a_session_of_its_own() {
    let mut request = vec![0, 0, 0, 16, 4, 210, 22, 46];
    request.extend([0, 0, 16, 0, 0xde, 0xad, 0xbe, 0xef]);
    let recorder = Talk::default().client(&[request]).record();
    assert_eq!(recorder.end().reason, EndReason::CancelRequest);
    assert_eq!((recorder.end().bytes_in, recorder.end().gap_bytes), (16, 0));
    assert!(recorder.statements.is_empty());
}
