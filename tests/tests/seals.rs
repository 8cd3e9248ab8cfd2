//! Seals: what is published can be proven offline, whatever becomes of agent and record.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, ensure};
use tests::agent::{AgentOptions, QUICK_ROTATION};
use tests::deps;
use tests::server::Server;
use tests::wait;
use tests::wire::Wire;

/// A record of some files, its data folder, and an anchor outside of it.
struct Sealed {
    folder: tempfile::TempDir,
}

impl Sealed {
    fn record() -> anyhow::Result<Self> {
        let sealed = Self { folder: tempfile::tempdir()? };
        let server = Server::start()?;
        let agent = AgentOptions::default()
            .server(&server)
            .data(&sealed.data())
            .config(&format!("{QUICK_ROTATION}\n[seals]\nanchor = {:?}\nanchor_seconds = 1", sealed.anchor()))
            .start()?;
        for round in 0..4 {
            let mut wire = Wire::login(&server, "sealed")?;
            wire.query(&format!("select 'round {round}', generate_series(1, 100)"))?;
            wire.terminate()?;
            let sealed_before = sealed.lines().map_or(0, |lines| lines.len());
            wait::until("the next seal", PATIENCE, || {
                Ok(sealed.lines().is_ok_and(|lines| lines.len() > sealed_before).then_some(()))
            })?;
        }
        server.wait_idle()?;
        let finished = agent.stop()?;
        ensure!(finished.record.sessions.len() == 4);
        ensure!(sealed.lines()?.len() >= 5, "{:?}", sealed.lines()?);
        Ok(sealed)
    }

    fn data(&self) -> PathBuf {
        self.folder.path().join("data")
    }

    fn anchor(&self) -> PathBuf {
        self.folder.path().join("anchor")
    }

    fn chain(&self) -> anyhow::Result<PathBuf> {
        let mut found = fs::read_dir(self.data().join("seals"))?.map(|entry| Ok(entry?.path()));
        let chain = found.find(|path: &anyhow::Result<PathBuf>| {
            path.as_ref().is_ok_and(|path| path.extension().is_some_and(|end| end == "jsonl"))
        });
        chain.context("no chain")?
    }

    fn lines(&self) -> anyhow::Result<Vec<String>> {
        Ok(fs::read_to_string(self.chain()?)?.lines().map(str::to_owned).collect())
    }

    /// The sealed files, in the order of their seals.
    fn files(&self) -> anyhow::Result<Vec<String>> {
        let name = |line: &String| -> anyhow::Result<String> {
            let line: serde_json::Value = serde_json::from_str(line)?;
            Ok(line["seal"]["file"].as_str().context("no file")?.to_owned())
        };
        self.lines()?.iter().map(name).collect()
    }

    /// Does something to a copy, and returns what `verify` says of it: its exit code and its words.
    fn after(&self, deed: impl FnOnce(&Self) -> anyhow::Result<()>) -> anyhow::Result<(i32, String)> {
        let copy = Self { folder: tempfile::tempdir()? };
        deps::run(Command::new("cp").arg("-a").arg(self.data()).arg(copy.data()))?;
        fs::copy(self.anchor(), copy.anchor())?;
        deed(&copy)?;
        verify(&copy.data(), &["--anchor", &copy.anchor().to_string_lossy()])
    }
}

fn verify(data: &Path, options: &[&str]) -> anyhow::Result<(i32, String)> {
    let output =
        Command::new(deps::agent()?).arg("verify").arg("--data-dir").arg(data).args(options).output()?;
    let words = [output.stdout, output.stderr].concat();
    Ok((output.status.code().context("it was killed")?, String::from_utf8(words)?))
}

#[test]
fn whatever_is_done_to_a_record_is_named() -> anyhow::Result<()> {
    let sealed = Sealed::record()?;
    let files = sealed.files()?;
    let (code, words) = sealed.after(|_| Ok(()))?;
    ensure!(code == 0 && words.contains("nothing was changed"), "{words}");
    ensure!(words.contains(&format!("{} files", files.len())), "{words}");

    let named = |(code, words): (i32, String), finding: &str, file: &str| {
        let found = words.lines().any(|line| line.starts_with(finding) && line.contains(file));
        ensure!(code == 1 && found, "expected `{finding} {file}`:\n{words}");
        Ok(())
    };
    for (n, file) in files.iter().enumerate() {
        let flipped = sealed.after(|copy| {
            let mut bytes = fs::read(copy.data().join(file))?;
            let at = bytes.len() * n / files.len();
            bytes[at] ^= 1 << (n % 8);
            Ok(fs::write(copy.data().join(file), bytes)?)
        })?;
        named(flipped, "changed", file)?;
        let truncated = sealed.after(|copy| {
            let file = fs::File::options().write(true).open(copy.data().join(file))?;
            Ok(file.set_len(file.metadata()?.len() - 1)?)
        })?;
        named(truncated, "changed", file)?;
        named(sealed.after(|copy| Ok(fs::remove_file(copy.data().join(file))?))?, "removed", file)?;
    }
    let (first, second) = (&files[0], &files[1]);
    let exchanged = sealed.after(|copy| {
        let data = copy.data();
        fs::rename(data.join(first), data.join("between"))?;
        fs::rename(data.join(second), data.join(first))?;
        Ok(fs::rename(data.join("between"), data.join(second))?)
    })?;
    named(exchanged.clone(), "changed", first)?;
    named(exchanged, "changed", second)?;
    let added = sealed.after(|copy| {
        let new = Path::new(first).with_file_name("planted.parquet");
        fs::copy(copy.data().join(first), copy.data().join(new))?;
        Ok(())
    })?;
    named(added, "added", "planted.parquet")?;
    let line_flipped = sealed.after(|copy| {
        let text = fs::read_to_string(copy.chain()?)?.replacen("\"rows\":1", "\"rows\":2", 1);
        Ok(fs::write(copy.chain()?, text)?)
    })?;
    ensure!(line_flipped.0 == 1 && line_flipped.1.contains("forged"), "{line_flipped:?}");
    let swapped = sealed.after(|copy| {
        let mut lines = copy.lines()?;
        lines.swap(1, 2);
        Ok(fs::write(copy.chain()?, lines.join("\n") + "\n")?)
    })?;
    named(swapped, "out of order", second)?;
    // The chain and the newest file, as if they had never been.
    let last = files.last().context("no file")?;
    let cut = |copy: &Sealed| -> anyhow::Result<()> {
        let lines = copy.lines()?;
        fs::write(copy.chain()?, lines[..lines.len() - 1].join("\n") + "\n")?;
        Ok(fs::remove_file(copy.data().join(last))?)
    };
    named(sealed.after(cut)?, "cut off", "seals/")
}

/// The recipe of `docs/seals.md`, which needs nothing of ours.
#[test]
fn python_and_openssl_come_to_the_same() -> anyhow::Result<()> {
    let sealed = Sealed::record()?;
    let page = fs::read_to_string(deps::crate_dir().join("../docs/seals.md"))?;
    let recipe =
        page.split("```python\n").nth(1).and_then(|rest| rest.split("```").next()).context("no recipe")?;
    let key = sealed.chain()?.with_extension("pub");
    let check = || -> anyhow::Result<(bool, String)> {
        let mut python = Command::new(deps::python()?);
        let output = python.args(["-c", recipe]).arg(sealed.data()).arg(&key).output()?;
        ensure!(output.stderr.is_empty(), "{}", String::from_utf8_lossy(&output.stderr));
        Ok((output.status.success(), String::from_utf8(output.stdout)?))
    };
    let (fits, words) = check()?;
    ensure!(fits && words.ends_with(" files, 0 findings\n"), "{words}");
    let files = sealed.files()?;
    let mut bytes = fs::read(sealed.data().join(&files[0]))?;
    bytes[100] ^= 4;
    fs::write(sealed.data().join(&files[0]), bytes)?;
    fs::remove_file(sealed.data().join(&files[1]))?;
    let text = sealed.lines()?.join("\n").replacen("\"rows\":1", "\"rows\":7", 1) + "\n";
    fs::write(sealed.chain()?, text)?;
    let (fits, words) = check()?;
    ensure!(!fits, "{words}");
    for expected in
        [format!("{}: changed", files[0]), format!("{}: removed", files[1]), "not signed".to_owned()]
    {
        ensure!(words.contains(&expected), "{expected} is not in\n{words}");
    }
    Ok(())
}

/// An agent is killed at any moment, with a file sealed or not: what the next one leaves is whole.
#[test]
fn agents_that_are_killed_leave_a_chain_that_fits() -> anyhow::Result<()> {
    let server = Server::start()?;
    let data = tempfile::tempdir()?;
    let start = || AgentOptions::default().server(&server).data(data.path()).config(QUICK_ROTATION).start();
    let mut agent = start()?;
    let mut executed = 0;
    for round in 0..8 {
        let mut wire = Wire::login(&server, "killed")?;
        for n in 0..60 + 11 * round {
            wire.query(&format!("select 'round {round}', {n}, pg_sleep(0.01)"))?;
            executed += 1;
        }
        wire.terminate()?;
        agent.kill()?.adopted();
        let (code, words) = verify(data.path(), &[])?;
        ensure!(code == 0 || words.contains("torn") || words.contains("no seals"), "{words}");
        agent = start()?;
    }
    server.wait_idle()?;
    let record = agent.stop()?.record;
    ensure!(record.statements.len() == executed, "{} statements of {executed}", record.statements.len());
    let (code, words) = verify(data.path(), &[])?;
    ensure!(code == 0, "{words}");
    Ok(())
}

#[test]
fn a_record_that_is_older_than_its_seals_is_sealed_as_found() -> anyhow::Result<()> {
    let sealed = Sealed::record()?;
    fs::remove_dir_all(sealed.data().join("seals"))?;
    let files = sealed.files().map_or(0, |files| files.len());
    ensure!(files == 0);
    let (code, words) = verify(&sealed.data(), &[])?;
    ensure!(code == 1 && words.contains("there are no seals"), "{words}");
    let server = Server::start()?;
    AgentOptions::default().server(&server).data(&sealed.data()).start()?.stop()?;
    let (code, words) = verify(&sealed.data(), &[])?;
    ensure!(code == 0, "{words}");
    let found = sealed.lines()?.iter().filter(|line| line.contains("\"kind\":\"found\"")).count();
    ensure!(found >= 5, "{found} files were found");
    Ok(())
}

/// What a person reads when the key is not what it should be.
#[test]
fn a_key_that_cannot_be_used_is_refused_with_words() -> anyhow::Result<()> {
    use std::os::unix::fs::PermissionsExt as _;

    let folder = tempfile::tempdir()?;
    let key = folder.path().join("key.pem");
    deps::run(Command::new("openssl").args(["genpkey", "-algorithm", "ed25519", "-out"]).arg(&key))?;
    fs::set_permissions(&key, fs::Permissions::from_mode(0o644))?;
    let server = Server::start()?;
    let data = folder.path().join("data");
    let options = || {
        let config = format!("[seals]\nkey = {key:?}");
        AgentOptions::default().server(&server).data(&data).config(&config)
    };
    let refused = options().start().err().context("it started")?.to_string();
    ensure!(refused.contains("chmod 600") && refused.contains("seal-key"), "{refused}");
    fs::set_permissions(&key, fs::Permissions::from_mode(0o600))?;
    let agent = options().start()?;
    Wire::login(&server, "own key")?.terminate()?;
    server.wait_idle()?;
    agent.stop()?;
    let public = folder.path().join("public.pem");
    deps::run(Command::new("openssl").args(["pkey", "-pubout", "-in"]).arg(&key).arg("-out").arg(&public))?;
    let (code, words) = verify(&data, &["--public-key", &public.to_string_lossy()])?;
    ensure!(code == 0, "{words}");
    // A chain that another key signed is not continued.
    fs::remove_file(&key)?;
    let refused = options().start().err().context("it started")?.to_string();
    ensure!(refused.contains("another key"), "{refused}");
    let (code, words) = verify(&data, &["--public-key", &key.to_string_lossy()])?;
    ensure!(code == 1 && words.contains("holds no Ed25519 public key"), "{words}");
    Ok(())
}

/// A file is completed within seconds.
const PATIENCE: Duration = Duration::from_secs(30);
