//! Where `unsafe` may stand.

use super::Finding;
use super::source::Source;

/// `unsafe` stands where the kernel or another process is touched, and nowhere else.
pub(super) fn confined(tree: &[Source]) -> Vec<Finding> {
    let mut findings = Vec::new();
    for source in tree.iter().filter(|source| !ALLOWED.iter().any(|place| source.path.starts_with(place))) {
        for at in Source::words(&source.code, "unsafe") {
            findings.push(Finding {
                path: source.path.clone(),
                line: source.line(at),
                advice: format!(
                    "`unsafe` outside {}: use a safe interface, or move it there",
                    ALLOWED.join(", ")
                ),
            });
        }
    }
    findings
}

const ALLOWED: [&str; 4] = [
    "capture-agent/src/probes/",
    "capture-agent/src/shim/",
    "capture-ebpf/src/",
    "capture-common/src/lib.rs",
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unsafe_code_outside_its_places_is_found() {
        let tree = [
            Source::new("capture-agent/src/frames/mod.rs", "fn a() {\n    unsafe { b() }\n}"),
            Source::new("capture-agent/src/probes/ring.rs", "fn a() { unsafe { b() } }"),
            Source::new("xtask/src/main.rs", "// unsafe\nconst A: &str = \"unsafe\";"),
        ];
        let found = confined(&tree);
        assert_eq!(found.len(), 1);
        assert_eq!((found[0].path.as_str(), found[0].line), ("capture-agent/src/frames/mod.rs", 2));
    }
}
