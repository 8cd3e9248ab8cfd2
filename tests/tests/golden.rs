//! Golden wire scripts: see `tests/golden/README.md`.

use tests::{AgentOptions, ServerOptions, capture_with, oracle, script};

#[test]
fn every_script_is_answered_and_recorded_as_it_says() -> anyhow::Result<()> {
    let scripts = script::all()?;
    let mut runs = Vec::new();
    let server = ServerOptions::default().setting("wal_level", "logical");
    let captured = capture_with(server, AgentOptions::default(), |server, _| {
        server.psql(script::ROLES)?;
        for script in &scripts {
            runs.push(script::run(script, server));
        }
        Ok(())
    })?;
    let mut wrong = Vec::new();
    for (script, run) in scripts.iter().zip(runs) {
        if let Err(error) = run.and_then(|run| script::check(script, &run, captured.record())) {
            wrong.push(format!("{error:#}"));
        }
    }
    assert!(wrong.is_empty(), "{} of {} scripts:\n{}", wrong.len(), scripts.len(), wrong.join("\n"));
    captured.record().check_totals()?;
    oracle::compare(&captured.log, captured.record())?;
    Ok(())
}
