//! What the search for sites needs of an ELF file: functions by name, names of what they call, places in the file.
//!
//! Format: the System V ABI's chapter 4 and 5; `object` reads it and checks every offset.

use std::fs::File;
use std::io::Read as _;

use object::read::elf::ElfFile64;
use object::{
    Object as _, ObjectSegment as _, ObjectSymbol as _, ObjectSymbolTable as _, RelocationTarget,
    SegmentFlags,
};
use thiserror::Error;

/// Why a file cannot be searched.
#[derive(Debug, Error)]
pub enum ElfError {
    /// It could not be read.
    #[error("it cannot be read: {0}")]
    Unreadable(#[from] std::io::Error),
    /// It is larger than what is searched.
    #[error("it has more than {} MiB", MAX_FILE >> 20)]
    TooLarge,
    /// It is no ELF file of 64 bits, or a damaged one.
    #[error("it is not a valid 64-bit ELF file: {0}")]
    Malformed(#[from] object::Error),
    /// Its machine code is of another architecture.
    #[error("its machine code is not for x86-64, the only architecture whose TLS code is probed")]
    Architecture,
}

/// The bytes of an ELF file.
pub(super) struct Bytes(Vec<u8>);

impl Bytes {
    /// Reads them all: piece by piece, a symbol table takes tens of thousands of system calls.
    pub(super) fn of(file: File) -> Result<Self, ElfError> {
        // In one piece: a server is starting meanwhile.
        let size = file.metadata()?.len().min(MAX_FILE + 1) as usize;
        let mut bytes = Vec::with_capacity(size + 1);
        file.take(MAX_FILE + 1).read_to_end(&mut bytes)?;
        if bytes.len() as u64 > MAX_FILE { Err(ElfError::TooLarge) } else { Ok(Self(bytes)) }
    }
}

/// An executable or a library.
pub(super) struct Image<'d> {
    file: ElfFile64<'d, object::Endianness, &'d [u8]>,
    /// Functions that are looked for and that it defines: name, address, size.
    defined: Vec<(&'static str, u64, u64)>,
    /// Functions that are looked for and that it imports: name, address of the slot that the dynamic linker fills.
    imported: Vec<(&'static str, u64)>,
}

/// A function's machine code.
#[derive(Clone, Copy, Debug)]
pub(super) struct Function<'d> {
    /// Address of its first byte.
    pub(super) address: u64,
    /// Its bytes.
    pub(super) code: &'d [u8],
}

impl<'d> Image<'d> {
    /// Reads the tables; `wanted` are the names that matter.
    pub(super) fn parse(bytes: &'d Bytes, wanted: &[&'static str]) -> Result<Self, ElfError> {
        let file = ElfFile64::<object::Endianness, _>::parse(bytes.0.as_slice())?;
        if file.architecture() != object::Architecture::X86_64 {
            return Err(ElfError::Architecture);
        }
        let find = |name: &str| {
            // A versioned name ends in `@VERSION` in some symbol tables.
            let name = name.split('@').next().unwrap_or(name);
            wanted.iter().copied().find(|wanted| *wanted == name)
        };
        let mut defined: Vec<(&'static str, u64, u64)> = Vec::new();
        for symbol in file.dynamic_symbols().chain(file.symbols()) {
            if symbol.is_definition()
                && let Some(name) = symbol.name().ok().and_then(find)
                && defined.iter().all(|(known, ..)| *known != name)
            {
                defined.push((name, symbol.address(), symbol.size()));
            }
        }
        let mut imported = Vec::new();
        let table = file.dynamic_symbol_table();
        for (slot, relocation) in file.dynamic_relocations().into_iter().flatten() {
            if let (Some(table), RelocationTarget::Symbol(index)) = (&table, relocation.target())
                && let Ok(symbol) = table.symbol_by_index(index)
                && symbol.is_undefined()
                && let Some(name) = symbol.name().ok().and_then(find)
            {
                imported.push((name, slot));
            }
        }
        Ok(Self { file, defined, imported })
    }

    /// The function `name`, if the file defines it.
    pub(super) fn function(&self, name: &str) -> Option<Function<'d>> {
        let (_, address, size) = self.defined.iter().find(|(known, ..)| *known == name)?;
        let code = self.code(*address, (*size).min(MAX_FUNCTION))?;
        Some(Function { address: *address, code })
    }

    /// Whether the file calls the function `name` of another file.
    pub(super) fn imports(&self, name: &str) -> bool {
        self.imported.iter().any(|(known, _)| *known == name)
    }

    /// The function whose code begins at `address`.
    pub(super) fn defined_at(&self, address: u64) -> Option<&'static str> {
        self.defined.iter().find(|(_, at, _)| *at == address).map(|(name, ..)| *name)
    }

    /// The imported function whose address the dynamic linker puts at `slot`.
    pub(super) fn imported_at(&self, slot: u64) -> Option<&'static str> {
        self.imported.iter().find(|(_, at)| *at == slot).map(|(name, _)| *name)
    }

    /// `size` bytes of machine code at `address`.
    pub(super) fn code(&self, address: u64, size: u64) -> Option<&'d [u8]> {
        self.executable().find_map(|segment| segment.data_range(address, size).ok().flatten())
    }

    /// Where the byte at `address` stands in the file.
    pub(super) fn file_offset(&self, address: u64) -> Option<u64> {
        self.executable().find_map(|segment| {
            let (offset, size) = segment.file_range();
            let within = address.checked_sub(segment.address()).filter(|within| *within < size)?;
            offset.checked_add(within)
        })
    }

    fn executable(
        &self,
    ) -> impl Iterator<Item = object::read::elf::ElfSegment64<'d, '_, object::Endianness, &'d [u8]>> {
        self.file.segments().filter(|segment| {
            matches!(segment.flags(), SegmentFlags::Elf { p_flags } if p_flags & object::elf::PF_X != 0)
        })
    }
}

/// Debian's `postgres` has 9 MiB, one with all of its debugging information 60.
const MAX_FILE: u64 = 128 << 20;
/// The functions that are looked for have some hundred bytes.
const MAX_FUNCTION: u64 = 64 << 10;

#[cfg(test)]
mod tests {
    use std::io::{Seek as _, Write as _};

    use super::*;

    /// Everything that is asked of a file, of these bytes.
    fn examine(bytes: &[u8]) -> bool {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(bytes).unwrap();
        file.rewind().unwrap();
        let bytes = Bytes::of(file).unwrap();
        let Ok(image) = Image::parse(&bytes, &["malloc", "_start", "strlen"]) else { return false };
        let function = image.function("malloc").map(|function| (function.address, function.code.len()));
        for address in [0, 0x1000, 0x4000, u64::MAX, function.map_or(0, |(address, _)| address)] {
            let _ = (image.code(address, 16), image.file_offset(address), image.defined_at(address));
            let _ = (image.imported_at(address), image.imports("strlen"));
        }
        function.is_some() || image.imports("strlen")
    }

    /// A small program that is on every machine.
    fn program() -> Vec<u8> {
        std::fs::read("/bin/true").unwrap()
    }

    #[test]
    #[cfg(target_arch = "x86_64")]
    fn a_programs_imports_are_found() {
        assert!(examine(&program()));
    }

    #[test]
    fn cut_and_garbled_files_are_errors_not_panics() {
        let good = program();
        for end in (0..good.len()).step_by(97) {
            examine(&good[..end]);
        }
        // The headers first, then everywhere: each byte set to what hurts most.
        let places = (0..0x400).chain((0x400..good.len()).step_by(61));
        for place in places.filter(|place| *place < good.len()) {
            for byte in [0x00, 0xff, good[place] ^ 0x80] {
                let mut bad = good.clone();
                bad[place] = byte;
                examine(&bad);
            }
        }
    }
}
