//! From a script's text to its steps.

use std::path::Path;

use anyhow::{Context, bail, ensure};

use super::token::{Token, tokens};
use super::{Action, End, Script, Step, Wanted};
use crate::wire::{PROTOCOL_3_0, frontend};

/// Reads a script.
pub(super) fn file(path: &Path) -> anyhow::Result<Script> {
    let name = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
    let text = std::fs::read_to_string(path)?;
    let mut script = Script {
        name,
        versions: 0..=u32::MAX,
        steps: Vec::new(),
        statements: Vec::new(),
        end: End::default(),
    };
    let lines: Vec<(usize, &str)> = (1..).zip(text.lines()).collect();
    block(&lines, &mut script).with_context(|| path.display().to_string())?;
    ensure!(script.end.line > 0, "{}: no `= end` line says what is recorded of the session", path.display());
    Ok(script)
}

/// Reads lines; `repeat N` to `end` counts N times.
fn block(lines: &[(usize, &str)], script: &mut Script) -> anyhow::Result<()> {
    let mut at = 0;
    while let Some(&(number, line)) = lines.get(at) {
        at += 1;
        let line = line.trim();
        if let Some(times) = line.strip_prefix("repeat ") {
            let length = lines[at..]
                .iter()
                .position(|(_, line)| line.trim() == "end")
                .with_context(|| format!("line {number}: repeat without end"))?;
            for _ in 0..times.trim().parse::<usize>()? {
                block(&lines[at..at + length], script)?;
            }
            at += length + 1;
        } else if !line.is_empty() && !line.starts_with('#') {
            one(number, line, script).with_context(|| format!("line {number}: {line}"))?;
        }
    }
    Ok(())
}

fn one(number: usize, line: &str, script: &mut Script) -> anyhow::Result<()> {
    if let Some(wanted) = line.strip_prefix('=') {
        return recorded(number, wanted, script);
    }
    if let Some(versions) = line.strip_prefix("only ") {
        let (first, last) = versions.split_once(" to ").context("only FIRST to LAST")?;
        script.versions = first.trim().parse()?..=last.trim().parse()?;
        return Ok(());
    }
    let action = if let Some(message) = line.strip_prefix('>') {
        Action::Send(sent(tokens(message)?)?)
    } else if let Some(message) = line.strip_prefix('<') {
        expected(message.trim())?
    } else {
        directive(tokens(line)?)?
    };
    script.steps.push(Step { line: number, action });
    Ok(())
}

fn directive(tokens: Vec<Token>) -> anyhow::Result<Action> {
    let mut words = tokens.into_iter();
    let Some(Token::Word(verb)) = words.next() else { bail!("a line starts with >, <, = or a verb") };
    Ok(match verb.as_str() {
        "open" | "connect" => connect(words, verb == "connect")?,
        "cancel" => Action::Cancel,
        "terminate" => Action::Terminate,
        "close" => Action::Close,
        "elsewhere" => Action::Elsewhere(words.next().context("a statement")?.text()?),
        other => bail!("unknown verb {other}"),
    })
}

/// `open` connects only; `connect` logs in as well. Fields are startup parameters, and `password`.
fn connect(words: impl Iterator<Item = Token>, login: bool) -> anyhow::Result<Action> {
    let mut unix = false;
    let mut password = String::new();
    let mut parameters =
        vec![("user".to_owned(), "postgres".to_owned()), ("database".to_owned(), "postgres".to_owned())];
    for word in words {
        match word {
            Token::Word(word) if word == "unix" => unix = true,
            Token::Field(name, value) if name == "password" => password = value,
            Token::Field(name, value) => {
                parameters.retain(|(known, _)| *known != name);
                parameters.push((name, value));
            }
            other => bail!("{other:?} is no part of a connection"),
        }
    }
    Ok(Action::Connect { unix, login: login.then_some(parameters), password })
}

fn expected(message: &str) -> anyhow::Result<Action> {
    Ok(match message {
        "*" => Action::ExpectAnything,
        "closed" => Action::Closed,
        _ => match message.strip_prefix("byte ") {
            Some(byte) => {
                let byte = tokens(byte)?.pop().context("a byte")?.text()?;
                Action::Byte(*byte.as_bytes().first().context("a byte")?)
            }
            None => Action::Expect(message.to_owned()),
        },
    })
}

fn sent(tokens: Vec<Token>) -> anyhow::Result<Vec<u8>> {
    let mut words = tokens.into_iter();
    let Some(Token::Word(name)) = words.next() else { bail!("a message starts with its name") };
    let mut next = || words.next().context("too few words");
    Ok(match name.as_str() {
        "Raw" => next()?.value()?.context("bytes")?,
        "Query" => frontend::query(&next()?.text()?),
        "Parse" => {
            let (name, sql) = (next()?.text()?, next()?.text()?);
            let types = words.map(Token::number).collect::<anyhow::Result<Vec<u32>>>()?;
            frontend::parse(&name, &sql, &types)
        }
        "Bind" => {
            let (portal, statement) = (next()?.text()?, next()?.text()?);
            let lists = Lists::read(words)?;
            frontend::bind(&portal, &statement, &lists.formats, &lists.values, &lists.results)
        }
        "Describe" => target(b'D', next()?, next()?)?,
        "Close" => target(b'C', next()?, next()?)?,
        "Execute" => frontend::execute(&next()?.text()?, next()?.number()?),
        "Sync" => frontend::message(b'S', &[]),
        "Flush" => frontend::message(b'H', &[]),
        "Terminate" => frontend::message(b'X', &[]),
        "CopyDone" => frontend::message(b'c', &[]),
        "CopyFail" => frontend::text(b'f', &next()?.text()?),
        "CopyData" => frontend::message(b'd', &next()?.value()?.context("bytes")?),
        "Password" => frontend::text(b'p', &next()?.text()?),
        "FunctionCall" => {
            let oid = next()?.number()?;
            let lists = Lists::read(words)?;
            let result = lists.results.first().copied().unwrap_or(0);
            frontend::function_call(oid, &lists.formats, &lists.values, result)
        }
        "SSLRequest" => frontend::request(80_877_103),
        "GSSENCRequest" => frontend::request(80_877_104),
        "Startup" => startup(words)?,
        other => bail!("unknown message {other}"),
    })
}

/// `Startup [minor] name="value" …`
fn startup(words: impl Iterator<Item = Token>) -> anyhow::Result<Vec<u8>> {
    let mut version = PROTOCOL_3_0;
    let mut parameters = Vec::new();
    for word in words {
        match word {
            Token::Field(name, value) => parameters.push((name, value)),
            minor => version = PROTOCOL_3_0 + minor.number::<u32>()?,
        }
    }
    let parameters: Vec<(&str, &str)> =
        parameters.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
    Ok(frontend::startup(version, &parameters))
}

fn target(tag: u8, kind: Token, name: Token) -> anyhow::Result<Vec<u8>> {
    let kind = match kind {
        Token::Word(word) if word == "S" || word == "P" => word.as_bytes()[0],
        other => bail!("{other:?} is neither S nor P"),
    };
    Ok(frontend::target(tag, kind, &name.text()?))
}

/// The lists of Bind and FunctionCall: values, then `formats N…`, then `results N…`.
#[derive(Default)]
struct Lists {
    values: Vec<Option<Vec<u8>>>,
    formats: Vec<u16>,
    results: Vec<u16>,
}

impl Lists {
    fn read(words: impl Iterator<Item = Token>) -> anyhow::Result<Self> {
        let mut lists = Self::default();
        let mut section = 0;
        for word in words {
            match word {
                Token::Word(word) if word == "formats" => section = 1,
                Token::Word(word) if word == "results" => section = 2,
                word if section == 0 => lists.values.push(word.value()?),
                word if section == 1 => lists.formats.push(word.number()?),
                word => lists.results.push(word.number()?),
            }
        }
        Ok(lists)
    }
}

/// `= STATUS PROTOCOL "sql" field=…`, `= params …`, `= row …`, `= end field=…`.
fn recorded(number: usize, wanted: &str, script: &mut Script) -> anyhow::Result<()> {
    let mut words = tokens(wanted)?.into_iter();
    let Some(Token::Word(verb)) = words.next() else { bail!("a record starts with a word") };
    match verb.as_str() {
        "end" => {
            script.end.line = number;
            for word in words {
                match word {
                    Token::Word(word) if word == "unread" => script.end.unread = true,
                    Token::Field(name, value) => script.end.fields.push((name, value)),
                    other => bail!("{other:?} is no field"),
                }
            }
        }
        "params" => last(script)?.params = Some(texts(words)?),
        "row" => {
            let row = words.collect::<Vec<_>>();
            let any = row == [Token::Word("*".to_owned())];
            let row = if any { None } else { Some(texts(row.into_iter())?) };
            last(script)?.rows.push(row);
        }
        _ => {
            let Some(Token::Word(protocol)) = words.next() else {
                bail!("a status is followed by a protocol")
            };
            let sql = match words.next().context("a statement's text, or null")? {
                Token::Null => None,
                text => Some(text.text()?),
            };
            let fields = words
                .map(|word| match word {
                    Token::Field(name, value) => Ok((name, value)),
                    other => bail!("{other:?} is no field"),
                })
                .collect::<anyhow::Result<_>>()?;
            script.statements.push(Wanted {
                line: number,
                status: verb,
                protocol,
                sql,
                fields,
                ..Wanted::default()
            });
        }
    }
    Ok(())
}

fn last(script: &mut Script) -> anyhow::Result<&mut Wanted> {
    script.statements.last_mut().context("this belongs to a statement, and there is none before it")
}

fn texts(words: impl Iterator<Item = Token>) -> anyhow::Result<Vec<Option<String>>> {
    words.map(|word| word.value()?.map(String::from_utf8).transpose().map_err(Into::into)).collect()
}
