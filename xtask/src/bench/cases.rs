//! What is compared with what.

use super::contender::Contender;
use super::work::{Kind, Protocol, Work};
use std::fmt;

/// A contender at some work, and what it is compared with.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Case {
    pub(super) contender: Contender,
    pub(super) against: Contender,
    pub(super) work: Work,
}

/// Everything, in the order of the tables.
pub(super) fn all() -> Vec<Case> {
    use Contender::{
        Bpftrace, Bystanding, Captured, Direct, Guarded, Hooks, LogStatement, PgAudit, PgBouncer, Statements,
        Tcpdump,
    };
    use Protocol::{Extended, Prepared, Simple};
    let select = |protocol, clients| Work::new(Kind::Select(protocol), clients);
    let bulk = [Kind::Rows, Kind::CopyOut, Kind::CopyIn].map(|kind| Work::new(kind, 1));

    let mut works: Vec<Work> = Vec::new();
    for protocol in [Prepared, Simple, Extended] {
        works.extend([1, 8, 64].map(|clients| select(protocol, clients)));
    }
    works.push(Work { tls: true, ..select(Prepared, 8) });
    works.extend([Kind::TpcB, Kind::Connects].map(|kind| Work::new(kind, 8)));
    works.extend(bulk.clone());

    let mut cases: Vec<Case> =
        works.into_iter().map(|work| Case { contender: Captured, against: Direct, work }).collect();
    let mut add =
        |contender, against, work: &Work| cases.push(Case { contender, against, work: work.clone() });
    for work in [select(Prepared, 8)].iter().chain(&bulk) {
        add(Statements, Direct, work);
    }
    for tls in [false, true] {
        add(Hooks, Direct, &Work { tls, ..select(Prepared, 8) });
    }
    for work in [select(Prepared, 8), select(Simple, 8)] {
        add(Guarded, Direct, &work);
    }
    add(Bystanding, Captured, &select(Prepared, 8));
    for work in [select(Prepared, 8), select(Simple, 1), select(Simple, 8)] {
        add(Guarded, Captured, &work);
    }
    add(PgBouncer, Direct, &select(Prepared, 1));
    for contender in [PgBouncer, LogStatement, PgAudit, Tcpdump, Bpftrace] {
        for work in [select(Prepared, 8), select(Simple, 8)] {
            add(contender, Direct, &work);
        }
    }
    cases
}

impl fmt::Display for Case {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} / {}, {}", self.contender, self.against, self.work)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_case_is_measured_twice() {
        let mut names: Vec<String> = all().iter().map(Case::to_string).collect();
        let count = names.len();
        names.sort();
        names.dedup();
        assert_eq!(names.len(), count);
        assert!(names.iter().any(|name| name == "captured / direct, TLS prepared, 8"));
    }
}
