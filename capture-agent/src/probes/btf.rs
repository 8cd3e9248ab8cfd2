//! Just enough of BTF to find where a field stands in one of the running kernel's structs.
//!
//! Format: `Documentation/bpf/btf.rst` in the kernel's source. aya parses BTF too, but keeps members private.

use std::path::Path;

use thiserror::Error;

/// The type information of the running kernel.
pub(super) struct KernelTypes {
    types: Vec<Type>,
    strings: Vec<u8>,
}

/// Why a field's place could not be found.
#[derive(Debug, Error)]
pub enum BtfError {
    /// `/sys/kernel/btf/vmlinux` could not be read.
    #[error("cannot read {VMLINUX}: {0}; the kernel must be built with CONFIG_DEBUG_INFO_BTF")]
    Unreadable(#[from] std::io::Error),
    /// The file is not what `btf.rst` describes.
    #[error("{VMLINUX} is malformed at byte {0}")]
    Malformed(usize),
    /// The kernel has no such struct or field.
    #[error("this kernel has no field `{field}` in `struct {name}`")]
    NoField {
        /// The struct.
        name: &'static str,
        /// The field.
        field: &'static str,
    },
}

impl KernelTypes {
    pub(super) fn of_running_kernel() -> Result<Self, BtfError> {
        Self::parse(&std::fs::read(Path::new(VMLINUX))?)
    }

    /// Keeps structs, unions and what leads to them; everything else is a placeholder, so that ids count on.
    fn parse(data: &[u8]) -> Result<Self, BtfError> {
        let word = |at: usize| -> Result<u32, BtfError> {
            let bytes = data.get(at..at + 4).ok_or(BtfError::Malformed(at))?;
            Ok(u32::from_ne_bytes(bytes.try_into().map_err(|_| BtfError::Malformed(at))?))
        };
        if word(0)? & 0xffff != MAGIC {
            return Err(BtfError::Malformed(0));
        }
        let header = word(4)? as usize;
        let (types_at, types_len) = (header + word(8)? as usize, word(12)? as usize);
        let (strings_at, strings_len) = (header + word(16)? as usize, word(20)? as usize);
        let strings =
            data.get(strings_at..strings_at + strings_len).ok_or(BtfError::Malformed(strings_at))?.to_vec();

        // Id 0 is void.
        let mut types = vec![Type::Other];
        let mut at = types_at;
        while at < types_at + types_len {
            let (name, info, size_or_type) = (word(at)?, word(at + 4)?, word(at + 8)?);
            let (kind, count) = ((info >> 24) & 0x1f, (info & 0xffff) as usize);
            let kind_flag = info >> 31 != 0;
            at += 12;
            let parsed = match kind {
                KIND_STRUCT | KIND_UNION => {
                    let mut members = Vec::with_capacity(count.min(1024));
                    for member in 0..count {
                        let member_at = at + member * 12;
                        let bits = word(member_at + 8)?;
                        members.push(Member {
                            name: word(member_at)?,
                            type_id: word(member_at + 4)?,
                            bits: if kind_flag { bits & 0xff_ffff } else { bits },
                        });
                    }
                    Type::Struct { name, members }
                }
                KIND_TYPEDEF | KIND_CONST | KIND_VOLATILE => Type::Alias(size_or_type),
                _ => Type::Other,
            };
            types.push(parsed);
            at += trailing_bytes(kind, count).ok_or(BtfError::Malformed(at))?;
        }
        Ok(Self { types, strings })
    }

    /// Offset in bytes of `field` in `struct name`, also inside anonymous members.
    pub(super) fn offset(&self, name: &'static str, field: &'static str) -> Result<u32, BtfError> {
        self.types
            .iter()
            .filter_map(|kind| match kind {
                Type::Struct { name: at, members } if self.string(*at) == name.as_bytes() => Some(members),
                _ => None,
            })
            .find_map(|members| self.member_bits(members, field.as_bytes(), MAX_NESTING))
            .map(|bits| bits / 8)
            .ok_or(BtfError::NoField { name, field })
    }

    fn member_bits(&self, members: &[Member], field: &[u8], depth: u32) -> Option<u32> {
        members.iter().find_map(|member| {
            let name = self.string(member.name);
            if name == field {
                return Some(member.bits);
            }
            if !name.is_empty() || depth == 0 {
                return None;
            }
            match self.resolve(member.type_id)? {
                Type::Struct { members, .. } => {
                    Some(member.bits + self.member_bits(members, field, depth - 1)?)
                }
                _ => None,
            }
        })
    }

    fn resolve(&self, mut id: u32) -> Option<&Type> {
        for _ in 0..MAX_NESTING {
            match self.types.get(id as usize)? {
                Type::Alias(to) => id = *to,
                other => return Some(other),
            }
        }
        None
    }

    fn string(&self, at: u32) -> &[u8] {
        let tail = self.strings.get(at as usize..).unwrap_or_default();
        tail.split(|byte| *byte == 0).next().unwrap_or_default()
    }
}

enum Type {
    Struct { name: u32, members: Vec<Member> },
    Alias(u32),
    Other,
}

struct Member {
    name: u32,
    type_id: u32,
    bits: u32,
}

/// Bytes that follow a type's three common words.
fn trailing_bytes(kind: u32, count: usize) -> Option<usize> {
    Some(match kind {
        KIND_STRUCT | KIND_UNION | KIND_ENUM64 | KIND_DATASEC => count * 12,
        KIND_INT | KIND_VAR | KIND_DECL_TAG => 4,
        KIND_ARRAY => 12,
        KIND_ENUM | KIND_FUNC_PROTO => count * 8,
        2 | 7..=12 | 16 | 18 => 0,
        _ => return None,
    })
}

const VMLINUX: &str = "/sys/kernel/btf/vmlinux";

/// `include/uapi/linux/btf.h`
const MAGIC: u32 = 0xeb9f;
const KIND_INT: u32 = 1;
const KIND_ARRAY: u32 = 3;
const KIND_STRUCT: u32 = 4;
const KIND_UNION: u32 = 5;
const KIND_ENUM: u32 = 6;
const KIND_TYPEDEF: u32 = 8;
const KIND_VOLATILE: u32 = 9;
const KIND_CONST: u32 = 10;
const KIND_FUNC_PROTO: u32 = 13;
const KIND_VAR: u32 = 14;
const KIND_DATASEC: u32 = 15;
const KIND_DECL_TAG: u32 = 17;
const KIND_ENUM64: u32 = 19;

/// Anonymous members and aliases nest a few levels at most; a malformed file must not make a loop.
const MAX_NESTING: u32 = 16;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_of_the_running_kernel_are_found() {
        let types = KernelTypes::of_running_kernel().expect("this kernel has BTF");
        assert_eq!(types.offset("list_head", "prev").unwrap(), 8);
        assert!(types.offset("task_struct", "tgid").unwrap() > types.offset("task_struct", "pid").unwrap());
        assert!(matches!(types.offset("task_struct", "no_such_field"), Err(BtfError::NoField { .. })));
    }

    #[test]
    fn malformed_files_are_errors_not_panics() {
        let good = std::fs::read(VMLINUX).unwrap();
        for cut in [0, 3, 23, 24, 100, 4096, good.len() / 2] {
            assert!(KernelTypes::parse(&good[..cut]).is_err(), "cut at {cut}");
        }
        let mut broken = good[..4096].to_vec();
        broken[8..24].fill(0xff);
        assert!(KernelTypes::parse(&broken).is_err());
    }
}
