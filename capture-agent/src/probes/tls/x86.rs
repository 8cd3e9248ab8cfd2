//! Chooses, in a function's x86-64 machine code, the instruction at which a finished call is looked at.
//!
//! A probe replaces the first byte of an instruction by a breakpoint. Afterwards the kernel emulates the instruction
//! if it is a relative call, jump or conditional jump, a push or a nop (`branch_setup_xol_ops` and
//! `push_setup_xol_ops` in `arch/x86/kernel/uprobes.c`); any other it single-steps, which on a virtual machine costs
//! twenty times as much. A probe at a return address would see the result as well, but the kernel implements it with
//! a system call that seccomp filters may deny, which kills the server.
//!
//! So the result is looked at further down, where it still stands in a register: behind the call, along the path that
//! the code takes if it succeeded.

use std::collections::HashMap;

use capture_common::Operand;
use iced_x86::{ConditionCode, Decoder, DecoderOptions, FlowControl, Instruction, OpKind, Register};
use thiserror::Error;

use super::elf::Function;
use super::values::{Flags, Place, Value, Values};

/// An instruction to probe, and what stands where when it is reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct After {
    /// The instruction's address.
    pub(super) address: u64,
    /// Whether the kernel emulates it.
    pub(super) emulated: bool,
    /// Where the result stands.
    pub(super) result: Operand,
    /// Whether the result is an `int`; else it is a `ssize_t`.
    pub(super) int: bool,
    /// Where the buffer's address stands; none if that was not asked for.
    pub(super) buffer: Option<Operand>,
}

/// Why a function has no site.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum NoSite {
    /// The bytes are no valid machine code.
    #[error("its code cannot be decoded")]
    Undecodable,
    /// The call that moves the bytes is not there.
    #[error("the call that moves the bytes is not in it")]
    NoCall,
    /// The call is there, but the buffer or the result stands nowhere where it could be found.
    #[error("the buffer's address does not survive the call that fills it")]
    Lost,
}

/// Behind the call of `wanted` in `function`, whose second argument is the buffer and whose result is how many bytes it
/// moved. `int`: its type; else `ssize_t`. `name` tells what a call's target is.
pub(super) fn after_call(
    function: Function<'_>,
    wanted: &str,
    int: bool,
    name: impl Fn(Target) -> Option<&'static str>,
) -> Result<After, NoSite> {
    let code = Code::decode(function)?;
    let mut failure = NoSite::NoCall;
    for (index, call) in code.calls() {
        if name(call) != Some(wanted) {
            continue;
        }
        let mut values = Values::new(int);
        for instruction in code.path_before(index) {
            values.step(instruction);
        }
        let buffer = values.at(Place::Register(Register::RSI));
        values.call(Value::Result);
        match code.walk(index, values, Some(buffer), &name) {
            Some(after) => return Ok(after),
            None => failure = NoSite::Lost,
        }
    }
    Err(failure)
}

/// Around the inner call of a wrapper: the first call that passes on the wrapper's own first two arguments. Its address,
/// whether the kernel emulates it, and the site behind it, for its result only, an `int`.
pub(super) fn around_inner_call(
    function: Function<'_>,
    name: impl Fn(Target) -> Option<&'static str>,
) -> Result<(u64, bool, After), NoSite> {
    let code = Code::decode(function)?;
    let (index, _) = code.calls().next().ok_or(NoSite::NoCall)?;
    let mut values = Values::new(true);
    for instruction in code.instructions.get(..index).unwrap_or_default() {
        values.step(instruction);
    }
    for register in [Register::RDI, Register::RSI] {
        let place = Place::Register(register);
        if values.at(place) != Value::Initial(place) {
            return Err(NoSite::NoCall);
        }
    }
    values.call(Value::Result);
    let after = code.walk(index, values, None, &name).ok_or(NoSite::Lost)?;
    let (address, emulated) = code.site(index).ok_or(NoSite::NoCall)?;
    Ok((address, emulated, after))
}

/// Whether `function` calls what `is_wanted` says.
pub(super) fn calls(function: Function<'_>, is_wanted: impl Fn(Target) -> bool) -> bool {
    Code::decode(function).is_ok_and(|code| code.calls().any(|(_, target)| is_wanted(target)))
}

/// What a call's operand names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Target {
    /// The code at this address.
    Code(u64),
    /// The code whose address stands at this address.
    Slot(u64),
}

/// Where the code at `stub`'s beginning jumps to through a slot: what a linkage table's entry does.
pub(super) fn linkage_slot(stub: &[u8], address: u64) -> Option<u64> {
    let mut decoder = Decoder::with_ip(64, stub, address, DecoderOptions::NONE);
    for _ in 0..2 {
        let instruction = decoder.decode();
        if instruction.flow_control() == FlowControl::IndirectBranch && instruction.is_ip_rel_memory_operand()
        {
            return Some(instruction.ip_rel_memory_address());
        }
        if instruction.code() != iced_x86::Code::Endbr64 {
            return None;
        }
    }
    None
}

/// A function, decoded from its first byte to its last.
struct Code<'d> {
    bytes: &'d [u8],
    address: u64,
    instructions: Vec<Instruction>,
    /// Addresses that direct branches of this function lead to, with the branches.
    targets: HashMap<u64, Vec<usize>>,
}

impl<'d> Code<'d> {
    fn decode(Function { address, code: bytes }: Function<'d>) -> Result<Self, NoSite> {
        let mut decoder = Decoder::with_ip(64, bytes, address, DecoderOptions::NONE);
        let mut instructions = Vec::new();
        let mut targets: HashMap<u64, Vec<usize>> = HashMap::new();
        while decoder.can_decode() {
            let instruction = decoder.decode();
            if instruction.is_invalid() {
                return Err(NoSite::Undecodable);
            }
            if matches!(
                instruction.flow_control(),
                FlowControl::ConditionalBranch | FlowControl::UnconditionalBranch
            ) {
                targets.entry(instruction.near_branch_target()).or_default().push(instructions.len());
            }
            instructions.push(instruction);
        }
        Ok(Self { bytes, address, instructions, targets })
    }

    /// The calls, by index.
    fn calls(&self) -> impl Iterator<Item = (usize, Target)> {
        self.instructions
            .iter()
            .enumerate()
            .filter_map(|(index, instruction)| Some((index, target(instruction)?)))
    }

    /// The instructions before `index` that run in this order whenever it is reached, without a call between.
    fn path_before(&self, index: usize) -> Vec<&Instruction> {
        let mut path = Vec::new();
        let mut at = index;
        while path.len() < MAX_WALK
            && let Some(before) = self.before(at)
            && let Some(instruction) = self.instructions.get(before)
        {
            path.push(instruction);
            at = before;
        }
        path.reverse();
        path
    }

    /// The only instruction from which `index` is reached, if there is only one and it is no call.
    fn before(&self, index: usize) -> Option<usize> {
        let previous = index.checked_sub(1)?;
        let flow = self.instructions.get(previous)?.flow_control();
        let branches = self.targets.get(&self.instructions.get(index)?.ip()).map_or(&[][..], Vec::as_slice);
        match (flow, branches) {
            (FlowControl::Next | FlowControl::ConditionalBranch, []) => Some(previous),
            (FlowControl::UnconditionalBranch | FlowControl::Return, [branch]) => Some(*branch),
            _ => None,
        }
    }

    /// Follows the code behind the call at `index`, along the path that it takes if the call moved bytes, as long as
    /// no other path joins. The first instruction behind a branch that failed calls do not take is best; then the
    /// first that is emulated; then any.
    fn walk(
        &self,
        index: usize,
        mut values: Values,
        buffer: Option<Value>,
        name: &impl Fn(Target) -> Option<&'static str>,
    ) -> Option<After> {
        let mut emulated = None;
        let mut any = None;
        let mut succeeded = false;
        let mut at = index + 1;
        for _ in 0..MAX_WALK {
            let Some(instruction) = self.instructions.get(at) else { break };
            if self.targets.contains_key(&instruction.ip()) {
                break;
            }
            if let Some(after) = self.candidate(at, &values, buffer) {
                if after.emulated && succeeded {
                    return Some(after);
                }
                any.get_or_insert(after);
                if after.emulated {
                    emulated.get_or_insert(after);
                }
            }
            match instruction.flow_control() {
                FlowControl::Next => values.step(instruction),
                FlowControl::Call | FlowControl::IndirectCall => {
                    // `SSL_get_error` (ssl/ssl_lib.c) is SSL_ERROR_NONE, 0, if and only if the call moved bytes.
                    let judged = target(instruction).and_then(name) == Some("SSL_get_error");
                    values.call(if judged { Value::Zero } else { Value::Unknown });
                }
                FlowControl::ConditionalBranch => match taken(instruction, values.flags()) {
                    Some(false) => succeeded = true,
                    // What is behind the branch may be reached from elsewhere, too.
                    Some(true) | None => break,
                },
                _ => break,
            }
            at += 1;
        }
        emulated.or(any)
    }

    fn candidate(&self, at: usize, values: &Values, buffer: Option<Value>) -> Option<After> {
        let (address, emulated) = self.site(at)?;
        let result = operand(values.holder(Value::Result)?)?;
        let buffer = match buffer {
            Some(Value::Unknown) => return None,
            Some(value) => Some(operand(values.holder(value)?)?),
            None => None,
        };
        Some(After { address, emulated, result, int: values.int(), buffer })
    }

    fn site(&self, at: usize) -> Option<(u64, bool)> {
        let address = self.instructions.get(at)?.ip();
        let start = usize::try_from(address.checked_sub(self.address)?).ok()?;
        Some((address, is_emulated(self.bytes.get(start..)?)))
    }
}

/// Whether the kernel emulates the instruction that begins with these bytes. Prefixes other than REX.B of a push make
/// it refuse some and are taken for a no.
fn is_emulated(bytes: &[u8]) -> bool {
    matches!(
        bytes,
        // call, jmp, jcc, push, nop
        [0xe8 | 0xe9 | 0xeb | 0x70..=0x7f | 0x50..=0x57 | 0x90, ..] | [0x0f, 0x80..=0x8f, ..] | [0x41, 0x50..=0x57, ..]
    )
}

fn target(instruction: &Instruction) -> Option<Target> {
    match instruction.flow_control() {
        FlowControl::Call if instruction.op0_kind() == OpKind::NearBranch64 => {
            Some(Target::Code(instruction.near_branch_target()))
        }
        FlowControl::IndirectCall if instruction.is_ip_rel_memory_operand() => {
            Some(Target::Slot(instruction.ip_rel_memory_address()))
        }
        _ => None,
    }
}

/// Whether a branch is taken after a comparison with zero, if the call moved bytes; none if that is not known.
fn taken(branch: &Instruction, flags: Flags) -> Option<bool> {
    let positive = match flags {
        Flags::Of(Value::Result) => true,
        Flags::Of(Value::Zero) => false,
        _ => return None,
    };
    match branch.condition_code() {
        ConditionCode::e | ConditionCode::le | ConditionCode::be => Some(!positive),
        ConditionCode::ne | ConditionCode::g | ConditionCode::a => Some(positive),
        ConditionCode::s | ConditionCode::l => Some(false),
        ConditionCode::ns | ConditionCode::ge => Some(true),
        _ => None,
    }
}

/// A place in terms of the registers that the kernel saves: `struct pt_regs` in `arch/x86/include/asm/ptrace.h`.
fn operand(place: Place) -> Option<Operand> {
    let (register, memory) = match place {
        Place::Register(register) => (register, None),
        Place::Slot(base, distance) => (base, Some(i16::try_from(distance).ok()?)),
    };
    let word = PT_REGS.iter().position(|saved| *saved == register)?;
    Some(Operand { word: u8::try_from(word).ok()?, memory })
}

const PT_REGS: [Register; 20] = [
    Register::R15,
    Register::R14,
    Register::R13,
    Register::R12,
    Register::RBP,
    Register::RBX,
    Register::R11,
    Register::R10,
    Register::R9,
    Register::R8,
    Register::RAX,
    Register::RCX,
    Register::RDX,
    Register::RSI,
    Register::RDI,
    // orig_ax, ip, cs, flags: never a place of a value.
    Register::None,
    Register::None,
    Register::None,
    Register::None,
    Register::RSP,
];

/// Instructions that are followed behind a call.
const MAX_WALK: usize = 64;

#[cfg(test)]
mod tests;
