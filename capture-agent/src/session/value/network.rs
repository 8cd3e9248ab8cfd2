//! Addresses and identifiers: network types, `uuid`, `pg_lsn`, `tid`.

use std::fmt::Write;
use std::net::Ipv4Addr;

use super::{Failure, Reader};

/// `inet` and `cidr` (`network_out` in `src/backend/utils/adt/network.c`).
pub(super) fn write_inet(reader: &mut Reader<'_>, out: &mut dyn Write) -> Result<(), Failure> {
    let family = reader.u8()?;
    let bits = reader.u8()?;
    let cidr = reader.u8()? != 0;
    let length = reader.u8()?;
    // The server's own numbers: PGSQL_AF_INET is AF_INET, PGSQL_AF_INET6 is one more.
    let max_bits = match (family, length) {
        (2, 4) => 32,
        (3, 16) => 128,
        _ => return Err(Failure::Malformed),
    };
    if bits > max_bits {
        return Err(Failure::Malformed);
    }
    if max_bits == 32 {
        write!(out, "{}", Ipv4Addr::from(reader.all::<4>()?))?;
    } else {
        write_ipv6(reader.all()?, out)?;
    }
    if cidr || bits < max_bits {
        write!(out, "/{bits}")?;
    }
    Ok(())
}

/// `pg_inet_net_ntop` in `src/port/inet_net_ntop.c`: the first longest run of two or more zero words is `::`, and
/// what looks like an embedded IPv4 address ends as one.
fn write_ipv6(address: [u8; 16], out: &mut dyn Write) -> Result<(), Failure> {
    let (pairs, _) = address.as_chunks::<2>();
    let mut words = [0u16; 8];
    for (word, pair) in words.iter_mut().zip(pairs) {
        *word = u16::from_be_bytes(*pair);
    }
    let zeros = longest_zeros(&words);
    let embedded = zeros.start == 0
        && match zeros.len() {
            5 => words[5] == 0xffff,
            6 => true,
            7 => words[7] != 1,
            _ => false,
        };
    for (index, word) in words.iter().enumerate() {
        if zeros.contains(&index) {
            if index == zeros.start {
                out.write_char(':')?;
            }
            continue;
        }
        if index > 0 {
            out.write_char(':')?;
        }
        if index == 6 && embedded {
            let [.., a, b, c, d] = address;
            write!(out, "{}", Ipv4Addr::new(a, b, c, d))?;
            return Ok(());
        }
        write!(out, "{word:x}")?;
    }
    if zeros.end == words.len() && !zeros.is_empty() {
        out.write_char(':')?;
    }
    Ok(())
}

fn longest_zeros(words: &[u16; 8]) -> std::ops::Range<usize> {
    let mut longest = 0..0;
    let mut start = 0;
    for (index, &word) in words.iter().enumerate() {
        if word != 0 {
            start = index + 1;
        } else if index + 1 - start > longest.len() {
            longest = start..index + 1;
        }
    }
    if longest.len() < 2 { 8..8 } else { longest }
}

pub(super) fn write_macaddr(bytes: &[u8], out: &mut dyn Write) -> Result<(), Failure> {
    for (index, byte) in bytes.iter().enumerate() {
        if index > 0 {
            out.write_char(':')?;
        }
        write!(out, "{byte:02x}")?;
    }
    Ok(())
}

pub(super) fn write_uuid(bytes: [u8; 16], out: &mut dyn Write) -> Result<(), Failure> {
    let mut buffer = uuid::Uuid::encode_buffer();
    Ok(out.write_str(uuid::Uuid::from_bytes(bytes).hyphenated().encode_lower(&mut buffer))?)
}

/// `pg_lsn_out` in `src/backend/utils/adt/pg_lsn.c`.
pub(super) fn write_lsn(lsn: u64, out: &mut dyn Write) -> Result<(), Failure> {
    Ok(write!(out, "{:X}/{:X}", lsn >> 32, lsn & 0xffff_ffff)?)
}

/// A row's place: block and line pointer.
pub(super) fn write_tid(reader: &mut Reader<'_>, out: &mut dyn Write) -> Result<(), Failure> {
    let (block, offset) = (reader.u32()?, reader.u16()?);
    reader.end()?;
    Ok(write!(out, "({block},{offset})")?)
}
