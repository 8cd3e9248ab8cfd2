//! The `capture-agent` command.
fn main() {}
