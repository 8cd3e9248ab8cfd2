//! Golden wire scripts: see `tests/golden/README.md`.

use tests::{ServerOptions, capture_on, on_every_server, oracle, script};

on_every_server!(every_script_is_answered_and_recorded_as_it_says);

fn every_script_is_answered_and_recorded_as_it_says(options: ServerOptions) -> anyhow::Result<()> {
    let scripts = script::all(options.major())?;
    let mut runs = Vec::new();
    let server = options.setting("wal_level", "logical");
    let captured = capture_on(server, |server, _| {
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
