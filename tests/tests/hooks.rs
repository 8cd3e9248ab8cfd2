//! Every family of hooks sees the same.

use tests::wire::Wire;
use tests::{AgentOptions, ServerOptions, capture_with, clients};

/// Those of `CAPTURE_HOOKS`, or the cheapest that load. `cargo xtask kernels` runs it with each family.
#[test]
fn the_hooks_in_use_see_everything() -> anyhow::Result<()> {
    sees_everything(AgentOptions::default())
}

#[test]
fn one_program_on_the_exit_of_all_system_calls_sees_everything() -> anyhow::Result<()> {
    sees_everything(AgentOptions::default().hooks("sys_exit"))
}

#[test]
fn tracepoints_of_each_system_call_see_everything() -> anyhow::Result<()> {
    sees_everything(AgentOptions::default().hooks("tracepoints"))
}

/// Statements, and bytes of calls that are interrupted, partial or large.
fn sees_everything(agent: AgentOptions) -> anyhow::Result<()> {
    let mut passed = Vec::new();
    let captured = capture_with(ServerOptions::default(), agent, |server, _| {
        for program in ["psycopg_workload.py", "node_workload.js"] {
            clients::run(server, program, &[])?;
        }
        for unix in [false, true] {
            let mut wire = if unix { Wire::unix(server)? } else { Wire::tcp(server)? };
            wire.start(&[("user", "postgres")])?;
            wire.query("select repeat('x', 3000000)")?;
            wire.query(&format!("select length('{}')", "y".repeat(3_000_000)))?;
            wire.terminate()?;
            passed.push((wire.key.as_ref().map_or(0, |(pid, _)| *pid), wire.sent + wire.received));
        }
        Ok(())
    })?;
    for (backend, passed) in passed {
        let session = captured.record().session_of_backend(backend)?;
        assert_eq!((session.bytes_in + session.bytes_out, session.gap_bytes), (passed, 0));
    }
    captured.compare()?;
    Ok(())
}
