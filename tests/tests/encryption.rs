//! An encrypted record: engines and our own commands read it with its key, nobody does without.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::Duration;

use anyhow::{Context, ensure};
use serde_json::Value;
use tests::agent::QUICK_ROTATION;
use tests::wire::Wire;
use tests::{AgentOptions, Server, clients, deps, wait};

#[test]
fn an_encrypted_record_is_read_by_engines_and_commands_that_have_the_key() -> anyhow::Result<()> {
    let keys = Keys::make()?;
    let server = Server::start()?;
    // Merged and removed as any other.
    let keeping = "[compaction]\nfiles = 4\n[[retention]]\ntables = ['results']\nage = '1h'";
    let config = format!("{QUICK_ROTATION}\n{}\n{keeping}", keys.config("first"));
    let data = tempfile::tempdir()?;
    let data = data.path();
    let agent = AgentOptions::default().server(&server).data(data).config(&config).start()?;
    let mut wire = Wire::login(&server, "secret")?;
    for n in 0..24 {
        wire.query(&format!("select 'planted {n}', md5('{n}')"))?;
        wait::pause(Duration::from_millis(250));
    }
    wire.terminate()?;
    server.wait_idle()?;
    let chain = data.join("seals");
    wait::until("files to be merged", Duration::from_secs(180), || {
        let merged = fs::read_dir(&chain)?
            .filter_map(|entry| fs::read_to_string(entry.ok()?.path()).ok())
            .any(|text| text.contains("\"kind\":\"merged\""));
        Ok(merged.then_some(()))
    })?;
    agent.end()?;

    let read = clients::command("encrypted.py")
        .and_then(|mut python| deps::run(python.arg(data).arg(keys.file("first"))))?;
    let read: Value = serde_json::from_str(&read)?;
    let texts = read["statements"].as_array().context("no statements")?;
    for n in 0..24 {
        let text = format!("select 'planted {n}', md5('{n}')");
        let times = texts.iter().filter(|sql| sql.as_str() == Some(&text)).count();
        ensure!(times == 1, "{text} is recorded {times} times");
    }
    ensure!(read["counts"]["results"].as_u64() >= Some(24), "{}", read["counts"]);
    ensure!(!stands_in(data, b"planted")?, "a text can be read by anybody");

    // This needs no key.
    let said = command(&["verify"], data, None)?;
    ensure!(said.status.success(), "{}", words(&said));
    let listed = command(&["sessions", "--json"], data, Some(&keys.configured("first")?))?;
    ensure!(listed.status.success(), "{}", words(&listed));
    let session: Value = serde_json::from_slice(&listed.stdout)?;
    let id = session["session_id"].as_str().context("no session")?;
    let shown = command(&["show", id, "--results"], data, Some(&keys.configured("first")?))?;
    ensure!(shown.status.success() && words(&shown).contains("planted 23"), "{}", words(&shown));
    for config in [None, Some(keys.configured("second")?)] {
        for arguments in [&["sessions"][..], &["show", id]] {
            let refused = command(arguments, data, config.as_deref())?;
            let words = words(&refused);
            ensure!(refused.status.code() == Some(1), "{arguments:?}: {words}");
            ensure!(words.contains("encrypted with the key") && words.contains("#record-key"), "{words}");
        }
    }
    Ok(())
}

#[test]
fn a_key_that_changes_is_kept_for_what_it_encrypted() -> anyhow::Result<()> {
    let keys = Keys::make()?;
    let server = Server::start()?;
    let data = tempfile::tempdir()?;
    let run = |config: &str, sql: &str| -> anyhow::Result<()> {
        let agent = AgentOptions::default().server(&server).data(data.path()).config(config).start()?;
        let mut wire = Wire::login(&server, "rotated")?;
        wire.query(sql)?;
        wire.terminate()?;
        server.wait_idle()?;
        agent.end()
    };
    run(&keys.config("first"), "select 'before'")?;
    // Printed by a program this time.
    let newer = format!(
        "[encryption]\nkey_command = ['cat', '{}']\nold_key_files = ['{}']",
        keys.file("second").display(),
        keys.file("first").display()
    );
    run(&newer, "select 'after'")?;
    let config = keys.folder.path().join("newer.toml");
    fs::write(&config, newer)?;
    for part in ["'before'", "'after'"] {
        let listed = command(&["sessions", "--text", part, "--json"], data.path(), Some(&config))?;
        let lines = listed.stdout.iter().filter(|byte| **byte == b'\n').count();
        ensure!(listed.status.success() && lines == 1, "{part}: {}", words(&listed));
    }
    Ok(())
}

#[test]
fn a_key_that_cannot_be_had_is_said_before_anything_is_recorded() -> anyhow::Result<()> {
    let keys = Keys::make()?;
    let data = tempfile::tempdir()?;
    fs::set_permissions(keys.file("first"), fs::Permissions::from_mode(0o644))?;
    let folder = keys.folder.path();
    for (name, encryption, said) in [
        ("readable", format!("key_file = '{}'", keys.file("first").display()), "chmod 600"),
        ("missing", format!("key_file = '{}'", folder.join("nowhere").display()), "No such file"),
        ("short", "key_command = ['echo', 'c2VjcmV0']".to_owned(), "openssl rand -base64 32"),
        ("failing", "key_command = ['false']".to_owned(), "it ended with"),
        ("none", String::new(), "`key_file` or `key_command`"),
    ] {
        let config = folder.join(format!("{name}.toml"));
        fs::write(&config, format!("[encryption]\n{encryption}\n"))?;
        let refused = command(&["run"], data.path(), Some(&config))?;
        let words = words(&refused);
        ensure!(!refused.status.success() && words.contains(said), "{name}: {words}");
        ensure!(!words.contains("c2VjcmV0") || name == "short", "{words}");
    }
    ensure!(fs::read_dir(data.path())?.next().is_none(), "something was recorded");
    Ok(())
}

/// Two keys in files, in a folder of their own.
struct Keys {
    folder: tempfile::TempDir,
}

impl Keys {
    fn make() -> anyhow::Result<Self> {
        let keys = Self { folder: tempfile::tempdir()? };
        for name in ["first", "second"] {
            let key = deps::run(Command::new("openssl").args(["rand", "-base64", "32"]))?;
            fs::write(keys.file(name), key)?;
            fs::set_permissions(keys.file(name), fs::Permissions::from_mode(0o600))?;
        }
        Ok(keys)
    }

    fn file(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn config(&self, name: &str) -> String {
        format!("[encryption]\nkey_file = '{}'", self.file(name).display())
    }

    /// A configuration file with this key.
    fn configured(&self, name: &str) -> anyhow::Result<PathBuf> {
        let path = self.file(&format!("{name}.toml"));
        fs::write(&path, self.config(name))?;
        Ok(path)
    }
}

/// One of our own commands on a record.
fn command(arguments: &[&str], data: &Path, config: Option<&Path>) -> anyhow::Result<Output> {
    let mut command = Command::new(deps::agent()?);
    command.args(arguments).arg("--data-dir").arg(data);
    if let Some(config) = config {
        command.arg("--config").arg(config);
    }
    Ok(command.output()?)
}

/// Whether these bytes stand in any file of a folder.
fn stands_in(folder: &Path, bytes: &[u8]) -> anyhow::Result<bool> {
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        let here = if path.is_dir() {
            stands_in(&path, bytes)?
        } else {
            fs::read(&path)?.windows(bytes.len()).any(|part| part == bytes)
        };
        if here {
            return Ok(true);
        }
    }
    Ok(false)
}

fn words(output: &Output) -> String {
    String::from_utf8_lossy(&[&output.stdout[..], &output.stderr].concat()).into_owned()
}
