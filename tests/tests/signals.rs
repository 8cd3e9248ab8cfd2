//! What holds and required recordings rest on: a signal that a hook sends is delivered before the process returns from
//! the system call that the hook saw.

use tests::{clients, deps};

/// The hooks of `CAPTURE_HOOKS`, or those that load on every kernel: `cargo xtask kernels` runs it with each family.
#[test]
fn a_process_that_a_hook_stops_does_not_see_what_it_received() -> anyhow::Result<()> {
    let families = match std::env::var("CAPTURE_HOOKS") {
        Ok(family) => vec![family],
        Err(_) => ["sock_length", "sys_exit", "tracepoints"].map(str::to_owned).to_vec(),
    };
    for family in families {
        let said = deps::run(clients::command("stop_on_receive.py")?.arg(&family))?;
        anyhow::ensure!(said.trim() == "100", "{family}: {said}");
    }
    Ok(())
}
