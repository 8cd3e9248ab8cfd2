//! The client's side of authentication.

use anyhow::{Context, bail};
use postgres_protocol::authentication::md5_hash;
use postgres_protocol::authentication::sasl::{ChannelBinding, ScramSha256};

use super::{Wire, backend, frontend};

/// Answers whatever the server asks for, up to AuthenticationOk.
pub(super) fn authenticate(wire: &mut Wire, user: &str, password: &str) -> anyhow::Result<()> {
    let mut scram = None;
    loop {
        let message = wire.expect()?;
        let (kind, rest) = match (message.tag, message.body.split_at_checked(4)) {
            (b'R', Some(([a, b, c, d], rest))) => (u32::from_be_bytes([*a, *b, *c, *d]), rest),
            // NegotiateProtocolVersion may come before the request.
            (b'v', _) => continue,
            _ => bail!("the server refused: {}", backend::describe(&message)),
        };
        match kind {
            0 => return Ok(()),
            3 => {
                wire.secrets.push(password.to_owned());
                wire.send(&frontend::text(b'p', password))?;
            }
            5 => {
                let salt: [u8; 4] = rest.try_into().context("the salt of MD5 has four bytes")?;
                let hash = md5_hash(user.as_bytes(), password.as_bytes(), salt);
                wire.send(&frontend::text(b'p', &hash))?;
                wire.secrets.push(hash);
            }
            10 => {
                let exchange =
                    scram.insert(ScramSha256::new(password.as_bytes(), ChannelBinding::unsupported()));
                wire.send(&frontend::sasl_initial("SCRAM-SHA-256", exchange.message()))?;
            }
            11 => {
                let exchange = scram.as_mut().context("SASL continues before it began")?;
                exchange.update(rest)?;
                wire.send(&frontend::message(b'p', exchange.message()))?;
                remember(wire, exchange.message());
                remember(wire, rest);
            }
            12 => {
                remember(wire, rest);
                scram.as_mut().context("SASL ends before it began")?.finish(rest)?;
            }
            other => bail!("authentication request {other} is not known here"),
        }
    }
}

/// The attributes of a SCRAM message (RFC 5802, section 5.1): nonce, salt, proof, verifier.
fn remember(wire: &mut Wire, message: &[u8]) {
    let text = String::from_utf8_lossy(message);
    let values = text.split(',').filter_map(|attribute| attribute.split_once('='));
    wire.secrets.extend(values.filter(|(_, value)| value.len() > 12).map(|(_, value)| value.to_owned()));
}
