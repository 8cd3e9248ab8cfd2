use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use proptest::prelude::*;
use tempfile::TempDir;

use super::hex::unhex;
use super::*;

/// A record of `files` files, and where its key and its anchor are kept.
struct Record {
    folder: TempDir,
    files: Vec<String>,
}

impl Record {
    fn new(files: usize) -> Self {
        let record = Self { folder: TempDir::new().unwrap(), files: (0..files).map(name).collect() };
        fs::create_dir_all(record.data_dir().join("statements")).unwrap();
        let mut chain = record.chain().unwrap();
        for file in &record.files {
            let bytes = file.repeat(50);
            chain.append(What::File(contents(file, bytes.as_bytes()))).unwrap();
            fs::write(record.data_dir().join(file), bytes).unwrap();
            chain.anchor().unwrap();
        }
        record
    }

    fn chain(&self) -> std::io::Result<Chain> {
        let key = SigningKey::open(&self.key()).unwrap();
        let anchor = Anchor { file: self.anchor(), every: Duration::ZERO };
        Chain::open(&self.data_dir().join(FOLDER), "db1", "db1", key, Some(anchor))
    }

    fn data_dir(&self) -> PathBuf {
        self.folder.path().join("data")
    }

    fn key(&self) -> PathBuf {
        self.folder.path().join("key")
    }

    fn anchor(&self) -> PathBuf {
        self.folder.path().join("anchor")
    }

    fn lines(&self) -> Vec<String> {
        let text = fs::read_to_string(self.chain_file()).unwrap();
        text.lines().map(str::to_owned).collect()
    }

    fn set_lines(&self, lines: &[String]) {
        fs::write(self.chain_file(), lines.join("\n") + "\n").unwrap();
    }

    fn chain_file(&self) -> PathBuf {
        self.data_dir().join(FOLDER).join("db1.jsonl")
    }

    fn path(&self, n: usize) -> PathBuf {
        self.data_dir().join(&self.files[n])
    }

    fn findings(&self) -> Vec<(String, Wrong)> {
        let report = verify(&self.request(), |_, _| {}).unwrap();
        report.findings.into_iter().map(|finding| (finding.file, finding.wrong)).collect()
    }

    fn request(&self) -> Request {
        let public = self.folder.path().join("public");
        fs::write(&public, SigningKey::open(&self.key()).unwrap().public().pem()).unwrap();
        Request { data_dir: self.data_dir(), public_key: Some(public), anchor: Some(self.anchor()) }
    }
}

fn name(n: usize) -> String {
    format!("statements/{n}.parquet")
}

fn contents(file: &str, bytes: &[u8]) -> Contents {
    Contents {
        file: file.to_owned(),
        sha256: hex(&hash(bytes)),
        bytes: bytes.len() as u64,
        rows: 3,
        ..Contents::default()
    }
}

#[test]
fn an_untouched_record_is_as_it_was_sealed() {
    let record = Record::new(4);
    let report = verify(&record.request(), |_, _| {}).unwrap();
    assert_eq!(report.findings, []);
    let [chain] = &report.chains[..] else { panic!("{report:?}") };
    assert_eq!((chain.node.as_str(), chain.seals, chain.files, chain.rows), ("db1", 4, 4, 12));
}

#[test]
fn what_becomes_of_a_file_is_named() {
    let record = Record::new(5);
    fs::remove_file(record.path(1)).unwrap();
    fs::copy(record.path(0), record.path(3)).unwrap();
    fs::write(record.data_dir().join("statements/new.parquet"), "x").unwrap();
    fs::write(record.data_dir().join("statements/.hidden.tmp"), "x").unwrap();
    assert_eq!(
        record.findings(),
        [
            (name(1), Wrong::Removed),
            (name(3), Wrong::Changed),
            ("statements/new.parquet".to_owned(), Wrong::Added),
        ]
    );
}

#[test]
fn what_becomes_of_the_chain_is_named() {
    let own = || format!("{FOLDER}/db1.jsonl");
    let record = Record::new(5);
    let lines = record.lines();

    record.set_lines(&[&lines[..2], &lines[3..]].concat());
    assert_eq!(
        record.findings(),
        [(name(3), Wrong::OutOfOrder), (own(), Wrong::Replaced { anchored: 2 }), (name(2), Wrong::Added)]
    );
    let mut swapped = lines.clone();
    swapped.swap(1, 2);
    record.set_lines(&swapped);
    let findings = record.findings();
    assert!(
        findings.contains(&(name(1), Wrong::OutOfOrder)) && findings.contains(&(name(2), Wrong::OutOfOrder))
    );

    record.set_lines(&lines[..4]);
    assert_eq!(record.findings(), [(own(), Wrong::CutOff { anchored: 4 }), (name(4), Wrong::Added)]);
    // Together with its file: only the anchor knows.
    fs::remove_file(record.path(4)).unwrap();
    assert_eq!(record.findings(), [(own(), Wrong::CutOff { anchored: 4 })]);

    let torn = lines.join("\n");
    fs::write(record.chain_file(), torn.get(..torn.len() - 9).unwrap()).unwrap();
    assert_eq!(record.findings(), [(own(), Wrong::Torn), (own(), Wrong::CutOff { anchored: 4 })]);

    fs::remove_file(record.chain_file()).unwrap();
    assert!(matches!(verify(&record.request(), |_, _| {}), Err(VerifyError::NoSeals { .. })));
}

#[test]
fn a_chain_of_another_key_is_forged() {
    let record = Record::new(2);
    let other = Record::new(2);
    fs::copy(other.chain_file(), record.chain_file()).unwrap();
    let findings = record.findings();
    assert!(findings.contains(&(name(0), Wrong::Forged)), "{findings:?}");
    // Beside its own key it fits, but not where it was anchored.
    fs::copy(other.chain_file().with_extension("pub"), record.chain_file().with_extension("pub")).unwrap();
    let request = Request { public_key: None, ..record.request() };
    let findings = verify(&request, |_, _| {}).unwrap().findings;
    assert_eq!(findings.len(), 1, "{findings:?}");
    assert_eq!(findings[0].wrong, Wrong::Replaced { anchored: 0 });
    // An agent with the old key does not go on with it.
    assert!(record.chain().unwrap_err().to_string().contains("another key"));
}

#[test]
fn an_older_copy_is_missed_by_the_anchor() {
    let record = Record::new(3);
    let older = record.lines();
    let mut chain = record.chain().unwrap();
    chain.append(What::File(contents("statements/later.parquet", b"later"))).unwrap();
    chain.anchor().unwrap();
    record.set_lines(&older);
    let request = Request { anchor: None, ..record.request() };
    assert_eq!(verify(&request, |_, _| {}).unwrap().findings, []);
    assert_eq!(record.findings(), [(format!("{FOLDER}/db1.jsonl"), Wrong::CutOff { anchored: 3 })]);
}

#[test]
fn the_next_agent_takes_off_half_a_seal_and_goes_on() {
    let record = Record::new(2);
    let whole = fs::read_to_string(record.chain_file()).unwrap();
    for cut in [1, 40, 300] {
        fs::write(record.chain_file(), format!("{whole}{}", &whole[..cut])).unwrap();
        let mut chain = record.chain().unwrap();
        assert_eq!(chain.last().map(What::file), Some(name(1).as_str()));
        fs::write(record.data_dir().join(name(2)), "2").unwrap();
        chain.append(What::File(contents(&name(2), b"2"))).unwrap();
        assert_eq!(record.findings(), []);
    }
}

#[test]
fn a_withdrawn_file_is_not_missed() {
    let record = Record::new(1);
    let mut chain = record.chain().unwrap();
    chain.append(What::File(contents(&name(1), b"1"))).unwrap();
    chain.append(What::Withdrawn { file: name(1) }).unwrap();
    assert_eq!(record.findings(), []);
}

#[test]
fn files_that_expired_or_were_replaced_are_not_missed_and_do_not_come_back() {
    let record = Record::new(4);
    let mut chain = record.chain().unwrap();
    let bytes: Vec<Vec<u8>> = (0..4).map(|n| fs::read(record.path(n)).unwrap()).collect();
    let replaced = |n: usize| Replaced { file: name(n), sha256: hex(&hash(&bytes[n])) };
    chain.append(What::Expired { file: name(0), rule: "age 1d".to_owned() }).unwrap();
    // Between its seal and its removal.
    assert_eq!(record.findings(), []);
    fs::remove_file(record.path(0)).unwrap();
    let merged = Contents { rows: 6, ..contents(&name(7), b"merged") };
    let what = What::Merged(Merged { contents: merged, replaced: vec![replaced(1), replaced(2)] });
    chain.append(what).unwrap();
    fs::write(record.data_dir().join(".7.tmp"), "x").unwrap();
    fs::write(record.data_dir().join("statements/.7.tmp"), "merged").unwrap();
    assert_eq!(record.findings(), []);
    fs::rename(record.data_dir().join("statements/.7.tmp"), record.data_dir().join(name(7))).unwrap();
    assert_eq!(record.findings(), []);
    chain.append(What::File(contents(&name(8), b"8"))).unwrap();
    fs::write(record.data_dir().join(name(8)), "8").unwrap();
    assert_eq!(record.findings(), [(name(1), Wrong::Back), (name(2), Wrong::Back)]);
    fs::remove_file(record.path(1)).unwrap();
    fs::remove_file(record.path(2)).unwrap();
    assert_eq!(record.findings(), []);
    fs::remove_file(record.data_dir().join(name(7))).unwrap();
    assert_eq!(record.findings(), [(name(7), Wrong::Removed)]);
}

#[test]
fn a_file_that_replaces_something_else_is_named() {
    for (rows, sha256) in [(3, "0".repeat(64)), (4, hex(&hash(name(0).repeat(50).as_bytes())))] {
        let record = Record::new(1);
        let mut chain = record.chain().unwrap();
        let merged = Contents { rows, ..contents(&name(1), b"1") };
        let replaced = vec![Replaced { file: name(0), sha256 }];
        chain.append(What::Merged(Merged { contents: merged, replaced })).unwrap();
        fs::write(record.data_dir().join(name(1)), "1").unwrap();
        fs::remove_file(record.path(0)).unwrap();
        assert_eq!(record.findings(), [(name(1), Wrong::Unequal)]);
    }
}

#[test]
fn the_file_of_the_last_seal_may_wait_for_its_name() {
    let record = Record::new(3);
    let hide = |n: usize| {
        fs::rename(record.path(n), record.data_dir().join(format!("statements/.{n}.tmp"))).unwrap();
    };
    hide(2);
    assert_eq!(record.findings(), []);
    hide(1);
    assert_eq!(record.findings(), [(name(1), Wrong::Removed)]);
}

#[test]
fn a_chain_that_somebody_removes_is_written_again() {
    let record = Record::new(1);
    let mut chain = record.chain().unwrap();
    fs::remove_dir_all(record.data_dir().join(FOLDER)).unwrap();
    fs::write(record.data_dir().join(name(1)), "1").unwrap();
    chain.append(What::File(contents(&name(1), b"1"))).unwrap();
    assert_eq!(record.findings(), []);
}

#[test]
fn a_file_outside_of_the_record_is_never_looked_at() {
    let record = Record::new(1);
    let mut chain = record.chain().unwrap();
    fs::write(record.folder.path().join("outside.parquet"), "1").unwrap();
    chain.append(What::File(contents("../outside.parquet", b"1"))).unwrap();
    assert_eq!(record.findings(), [("../outside.parquet".to_owned(), Wrong::Removed)]);
}

#[test]
fn a_key_that_others_can_read_is_refused_and_so_is_what_is_none() {
    use std::os::unix::fs::PermissionsExt as _;

    let folder = TempDir::new().unwrap();
    let path = folder.path().join("key");
    let made = SigningKey::open(&path).unwrap();
    assert_eq!(format!("{made:?}"), format!("SigningKey {{ path: {path:?}, .. }}"));
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(&path), 0o600);
    assert_eq!(SigningKey::open(&path).unwrap().public(), made.public());
    fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).unwrap();
    assert!(matches!(SigningKey::open(&path), Err(KeyError::Readable { mode: 0o640, .. })));
    fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
    fs::write(&path, made.public().pem()).unwrap();
    assert!(matches!(SigningKey::open(&path), Err(KeyError::Invalid { .. })));
    assert_eq!(PublicKey::open(&path).unwrap(), made.public());
}

#[test]
fn digits_are_read_back() {
    assert_eq!(unhex(&hex(&[0, 1, 254, 255])), Some([0, 1, 254, 255]));
    for wrong in ["", "0", "000", "0g", "0A", "é0"] {
        assert_eq!(unhex::<1>(wrong), None, "{wrong}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    /// Whatever bit is flipped, in a file or in the chain, it is noticed.
    #[test]
    fn a_bit_that_is_flipped_is_noticed(place in any::<prop::sample::Index>(), bit in 0u8..8) {
        let record = Record::new(3);
        let mut paths: Vec<PathBuf> = (0..3).map(|n| record.path(n)).collect();
        paths.push(record.chain_file());
        let sizes: Vec<usize> = paths.iter().map(|path| fs::read(path).unwrap().len()).collect();
        let mut at = place.index(sizes.iter().sum());
        let mut which = 0;
        while at >= sizes[which] {
            at -= sizes[which];
            which += 1;
        }
        let mut bytes = fs::read(&paths[which]).unwrap();
        bytes[at] ^= 1 << bit;
        fs::write(&paths[which], bytes).unwrap();
        prop_assert_ne!(record.findings(), []);
    }

    /// Whatever stands in the chain, it is read without harm.
    #[test]
    fn any_bytes_are_read(bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
        let record = Record::new(1);
        fs::write(record.chain_file(), bytes).unwrap();
        prop_assert_ne!(record.findings(), []);
        let _ = record.chain();
    }
}
