//! What the test programs reported.

use crate::shell;
use anyhow::{Result, ensure};
use std::fmt;
use std::process::Command;
use std::time::Instant;

/// What the test programs reported so far.
#[derive(Default)]
pub(super) struct Tally {
    passed: u64,
    failed: u64,
    ignored: u64,
    /// Stages that failed, also those that ended before they could report a number.
    broken: Vec<&'static str>,
    /// Tests that failed and then passed.
    unsteady: Vec<Failed>,
}

/// A test, and the test program that it is in, by its file's name.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Failed {
    topic: String,
    test: String,
}

impl Tally {
    /// Runs a `cargo test`, passes its output on, and counts.
    pub(super) fn run(&mut self, what: &'static str, command: &mut Command) -> Result<()> {
        println!("\n{what}");
        let began = Instant::now();
        let ended = cargo_test(command)?;
        self.add(what, &ended);
        println!("{what}: {}", shell::human(began.elapsed()));
        Ok(())
    }

    /// The same for some topics, or all; tests that fail are run once more, each by itself. They run on real servers against
    /// real time, and a machine that stands still for some seconds breaks what no mistake has broken. What passes then is told
    /// as unsteady, and more than [`MOST_UNSTEADY`] of that is a failure too.
    pub(super) fn run_twice(
        &mut self,
        what: &'static str,
        command: impl Fn() -> Command,
        topics: &[&str],
    ) -> Result<()> {
        println!("\n{what}");
        let began = Instant::now();
        let mut ended = cargo_test(command().args(topics.iter().flat_map(|topic| ["--test", topic])))?;
        // A program that was killed, or many failures, are no matter of time.
        let few = !ended.failures.is_empty() && ended.failures.len() <= MOST_UNSTEADY;
        if few && ended.failed == ended.failures.len() as u64 {
            let mut steady = true;
            for failed in std::mem::take(&mut ended.failures) {
                println!("\nonce more, by itself: {} of {}", failed.test, failed.topic);
                let again =
                    cargo_test(command().args(["--test", &failed.topic, "--", "--exact", &failed.test]))?;
                if again.ok && again.passed == 1 {
                    ended.failed -= 1;
                    ended.passed += 1;
                    self.unsteady.push(failed);
                } else {
                    steady = false;
                }
            }
            ended.ok = steady;
        }
        self.add(what, &ended);
        println!("{what}: {}", shell::human(began.elapsed()));
        Ok(())
    }

    /// Whether all of it proves what it shall.
    ///
    /// # Errors
    ///
    /// A test failed, was left out, or too many had to be tried twice.
    pub(super) fn judge(&self) -> Result<()> {
        for Failed { topic, test } in &self.unsteady {
            println!("unsteady: {test} of {topic} failed, and passed by itself: find out why");
        }
        ensure!(self.failed == 0 && self.broken.is_empty(), "failed: {}", self.broken.join(", "));
        ensure!(self.ignored == 0, "an ignored test proves nothing: make it run or remove it");
        ensure!(
            self.unsteady.len() <= MOST_UNSTEADY,
            "{} tests passed only by themselves: that is no accident any more",
            self.unsteady.len()
        );
        Ok(())
    }

    fn add(&mut self, what: &'static str, ended: &Ended) {
        self.passed += ended.passed;
        self.failed += ended.failed;
        self.ignored += ended.ignored;
        if !ended.ok {
            self.broken.push(what);
        }
    }
}

impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} passed, {} failed, {} ignored", self.passed, self.failed, self.ignored)?;
        if !self.unsteady.is_empty() {
            write!(f, ", {} of them at the second try", self.unsteady.len())?;
        }
        Ok(())
    }
}

/// One `cargo test`.
#[derive(Debug, Default, PartialEq, Eq)]
struct Ended {
    /// Whether cargo says so.
    ok: bool,
    passed: u64,
    failed: u64,
    ignored: u64,
    failures: Vec<Failed>,
    /// The test program that runs.
    topic: String,
}

fn cargo_test(command: &mut Command) -> Result<Ended> {
    let mut ended = Ended::default();
    // Both streams: cargo names the test program on the one, and that its tests on the other.
    let status = shell::listen(command, |line| {
        println!("{line}");
        ended.hear(line);
    })?;
    ended.ok = status.success();
    Ok(ended)
}

impl Ended {
    fn hear(&mut self, line: &str) {
        if let Some(running) = line.trim_start().strip_prefix("Running ") {
            // `tests/lifecycle.rs (/…/lifecycle-0123456789abcdef)`
            let file = running.split(' ').next().and_then(|path| path.rsplit('/').next());
            self.topic = file.and_then(|file| file.strip_suffix(".rs")).unwrap_or_default().to_owned();
        } else if let Some(test) =
            line.strip_prefix("test ").and_then(|rest| rest.strip_suffix(" ... FAILED"))
        {
            self.failures.push(Failed { topic: self.topic.clone(), test: test.to_owned() });
        } else if let Some(result) = line.strip_prefix("test result: ") {
            self.count(result);
        }
    }

    /// Counts a line such as `ok. 12 passed; 0 failed; 0 ignored; 0 measured; …`.
    fn count(&mut self, result: &str) {
        let mut words = result.split([' ', ';']).filter(|word| !word.is_empty()).peekable();
        while let Some(word) = words.next() {
            let (Ok(number), Some(&unit)) = (word.parse::<u64>(), words.peek()) else { continue };
            match unit {
                "passed" => self.passed += number,
                "failed" => self.failed += number,
                "ignored" => self.ignored += number,
                _ => {}
            }
        }
    }
}

/// Tests of a run that may fail once.
const MOST_UNSTEADY: usize = 2;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn results_of_several_test_programs_add_up() {
        let mut ended = Ended::default();
        for line in [
            "     Running tests/lifecycle.rs (/target/debug/deps/lifecycle-ef6d7fd8da65842a)",
            "test a::b ... ok",
            "test a::c ... FAILED",
            "test result: ok. 12 passed; 0 failed; 1 ignored; 0 measured; 3 filtered out; finished in 0.02s",
            "test result: FAILED. 2 passed; 4 failed; 0 ignored; 0 measured; 0 filtered out",
        ] {
            ended.hear(line);
        }
        assert_eq!((ended.passed, ended.failed, ended.ignored), (14, 4, 1));
        assert_eq!(ended.failures, [Failed { topic: "lifecycle".into(), test: "a::c".into() }]);
    }

    #[test]
    fn a_stage_that_ends_without_numbers_is_a_failure() {
        let mut tally = Tally::default();
        tally.run("stage", Command::new("sh").args(["-c", "exit 101"])).unwrap();
        assert_eq!(tally.broken, ["stage"]);
        assert!(tally.judge().is_err());
    }

    /// A shell in cargo's place, which does `alone` when it is asked for one test.
    fn cargo(first: &str, alone: &str) -> impl Fn() -> Command {
        let script = format!("case \"$*\" in *--exact*) {alone};; *) {first};; esac\n");
        move || {
            let mut command = Command::new("sh");
            command.args(["-c", &script, "cargo"]);
            command
        }
    }

    const FAILS: &str = "echo ' Running tests/a.rs (x)'; echo 'test b ... FAILED'; \
        echo 'test result: FAILED. 3 passed; 1 failed; 0 ignored'; exit 101";
    const PASSES: &str = "echo 'test b ... ok'; echo 'test result: ok. 1 passed; 0 failed; 0 ignored'";

    #[test]
    fn a_test_that_passes_by_itself_is_told_as_unsteady() {
        let mut tally = Tally::default();
        tally.run_twice("stage", cargo(FAILS, PASSES), &[]).unwrap();
        assert_eq!(tally.unsteady, [Failed { topic: "a".into(), test: "b".into() }]);
        assert_eq!(tally.to_string(), "4 passed, 0 failed, 0 ignored, 1 of them at the second try");
        tally.judge().unwrap();
    }

    #[test]
    fn a_test_that_fails_twice_has_failed() {
        let mut tally = Tally::default();
        tally.run_twice("stage", cargo(FAILS, FAILS), &[]).unwrap();
        assert!(tally.unsteady.is_empty() && tally.failed == 1);
        assert!(tally.judge().is_err());
    }

    #[test]
    fn many_failures_are_not_tried_again() {
        let many = "echo ' Running tests/a.rs (x)'; for t in 1 2 3; do echo \"test $t ... FAILED\"; done; \
            echo 'test result: FAILED. 0 passed; 3 failed; 0 ignored'; exit 101";
        let mut tally = Tally::default();
        tally.run_twice("stage", cargo(many, PASSES), &[]).unwrap();
        assert_eq!((tally.failed, tally.unsteady.len()), (3, 0));
    }
}
