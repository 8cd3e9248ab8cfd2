//! What a probe in a server's TLS code has to know about its place: carried by the probe's attach cookie, so that one
//! program serves every build of every library.

/// A place in a function, after the call that moved bytes: where the buffer and the result stand there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Site {
    /// [`FRONTEND`](crate::FRONTEND) or [`BACKEND`](crate::BACKEND).
    pub direction: u16,
    /// The call's result: how many bytes were moved, if positive.
    pub result: Operand,
    /// Whether the result is an `int`: the upper half of its register is then undefined.
    pub int: bool,
    /// Where the address of the bytes stands. None: a site before the call kept it, together with the address of
    /// their number; the result only tells whether the call succeeded.
    pub buffer: Option<Operand>,
    /// Whether GSSAPI encrypts what passes here; else TLS.
    pub gss: bool,
    /// Names the set of sites of one file. Each process believes the set of its own server only, because two sets
    /// meet where two paths lead to one file (layers of containers).
    pub set: u16,
}

/// The bits of an instruction's address by which the map `SITES` knows it: those that are the same in the file and in
/// every process, because a file is mapped in whole pages. arm64 can have larger pages, but no smaller ones.
pub const SITE_ADDRESS: u64 = 0xfff;

/// A register, or a word in memory that a register points to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Operand {
    /// Index of the register among the 64-bit words of `struct pt_regs`.
    pub word: u8,
    /// Distance of the word in memory from where the register points; none if the register is the operand.
    pub memory: Option<i16>,
}

impl Site {
    /// The cookie: bit 0 the direction, 1 `int`, 2 whether there is a buffer, then 22 bits for the result, 22 for the
    /// buffer and 16 for the set; the last for `gss`.
    #[must_use]
    pub const fn to_cookie(self) -> u64 {
        let (kept, buffer) = match self.buffer {
            Some(buffer) => (0, buffer.to_bits()),
            None => (1, 0),
        };
        (self.direction & 1) as u64
            | (self.int as u64) << 1
            | kept << 2
            | self.result.to_bits() << 3
            | buffer << 25
            | (self.set as u64) << 47
            | (self.gss as u64) << 63
    }

    /// Reads a cookie.
    #[inline(always)]
    #[must_use]
    pub const fn from_cookie(cookie: u64) -> Self {
        Self {
            direction: (cookie & 1) as u16,
            int: cookie & 2 != 0,
            buffer: if cookie & 4 == 0 { Some(Operand::from_bits(cookie >> 25)) } else { None },
            result: Operand::from_bits(cookie >> 3),
            gss: cookie >> 63 != 0,
            set: (cookie >> 47) as u16,
        }
    }
}

impl Operand {
    /// 5 bits for the word, 1 for whether it points into memory, 16 for the distance.
    const fn to_bits(self) -> u64 {
        match self.memory {
            Some(distance) => (self.word & 31) as u64 | 1 << 5 | (distance as u16 as u64) << 6,
            None => (self.word & 31) as u64,
        }
    }

    #[inline(always)]
    const fn from_bits(bits: u64) -> Self {
        let memory = if bits & 1 << 5 == 0 { None } else { Some((bits >> 6) as u16 as i16) };
        Self { word: (bits & 31) as u8, memory }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_site_survives_its_cookie() {
        let operands = [
            Operand { word: 0, memory: None },
            Operand { word: 20, memory: None },
            Operand { word: 19, memory: Some(8) },
            Operand { word: 4, memory: Some(-0x54) },
            Operand { word: 31, memory: Some(i16::MIN) },
        ];
        for result in operands {
            for buffer in operands.map(Some).into_iter().chain([None]) {
                for (direction, int, gss, set) in
                    [(0, false, false, 1), (1, true, false, u16::MAX), (0, true, true, 7)]
                {
                    let site = Site { direction, result, int, buffer, gss, set };
                    assert_eq!(Site::from_cookie(site.to_cookie()), site);
                }
            }
        }
    }
}
