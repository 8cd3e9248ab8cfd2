//! Which register or stack slot holds what, followed through a stretch of machine code without branches.
//!
//! Only moves are followed; whatever else writes a place makes its content unknown. Spilled values stand in slots of
//! the function's own frame, which compilers address through rsp and rbp and nothing else writes to.

use std::collections::{HashMap, HashSet};

use iced_x86::{Code, Instruction, InstructionInfoFactory, MemorySize, OpAccess, OpKind, Register};

/// What a place holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Value {
    /// What this place held where the stretch began.
    Initial(Place),
    /// The result of the call that is looked at. Of an `int`, the lower half.
    Result,
    /// Zero.
    Zero,
    /// Anything.
    Unknown,
}

/// A place that can hold a pointer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Place {
    /// A 64-bit register.
    Register(Register),
    /// Eight bytes at a distance from where rsp or rbp points.
    Slot(Register, i64),
}

/// What the last comparison compared with zero.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Flags {
    /// This value.
    Of(Value),
    /// Something else.
    Unknown,
}

/// The contents of all places.
pub(super) struct Values {
    places: HashMap<Place, Value>,
    /// Registers that were written.
    moved: HashSet<Register>,
    flags: Flags,
    /// Whether the result is an `int`, so that 32-bit moves keep it.
    int: bool,
    info: InstructionInfoFactory,
}

impl Values {
    pub(super) fn new(int: bool) -> Self {
        Self {
            places: HashMap::new(),
            moved: HashSet::new(),
            flags: Flags::Unknown,
            int,
            info: InstructionInfoFactory::new(),
        }
    }

    /// Whether the result is an `int`.
    pub(super) fn int(&self) -> bool {
        self.int
    }

    /// What `place` holds.
    pub(super) fn at(&self, place: Place) -> Value {
        match (self.places.get(&place), place) {
            (Some(value), _) => *value,
            (None, Place::Slot(base, _)) if self.moved.contains(&base) => Value::Unknown,
            (None, _) => Value::Initial(place),
        }
    }

    /// What the last comparison compared with zero.
    pub(super) fn flags(&self) -> Flags {
        self.flags
    }

    /// A place that holds `value`, a register if there is one.
    pub(super) fn holder(&self, value: Value) -> Option<Place> {
        let registers = GENERAL.into_iter().map(Place::Register);
        let mut slots: Vec<Place> =
            self.places.keys().copied().filter(|place| matches!(place, Place::Slot(..))).collect();
        // The map has no order, but the choice shall have one.
        slots.sort_by_key(|place| match place {
            Place::Slot(base, distance) => (*base as u32, *distance),
            Place::Register(_) => (0, 0),
        });
        let own = match value {
            Value::Initial(place) => Some(place),
            _ => None,
        };
        registers.chain(slots).chain(own).find(|place| self.at(*place) == value)
    }

    /// Passes over an instruction that neither calls nor branches.
    pub(super) fn step(&mut self, instruction: &Instruction) {
        let moved = self.moved(instruction);
        let compared = self.compared(instruction);
        self.clobber(instruction);
        if let Some((place, value)) = moved {
            self.places.insert(place, value);
        }
        if let Some(value) = compared {
            self.flags = Flags::Of(value);
        } else if instruction.rflags_modified() != 0 {
            self.flags = Flags::Unknown;
        }
    }

    /// Passes over a call that returns `result` (System V ABI: the called function keeps rbx, rsp, rbp and r12 to
    /// r15).
    pub(super) fn call(&mut self, result: Value) {
        for register in GENERAL.into_iter().skip(KEPT_BY_CALLS) {
            self.places.insert(Place::Register(register), Value::Unknown);
        }
        self.places.insert(Place::Register(Register::RAX), result);
        self.flags = Flags::Unknown;
    }

    /// What a move puts where.
    fn moved(&mut self, instruction: &Instruction) -> Option<(Place, Value)> {
        match instruction.code() {
            Code::Mov_r64_rm64 | Code::Mov_rm64_r64 => {
                let value = self.at(place(instruction, 1)?);
                Some((place(instruction, 0)?, value))
            }
            Code::Mov_r32_rm32 | Code::Mov_rm32_r32 | Code::Movsxd_r64_rm32 => {
                let value = self.at(place(instruction, 1)?);
                let kept = value == Value::Zero || (value == Value::Result && self.int);
                Some((place(instruction, 0)?, if kept { value } else { Value::Unknown }))
            }
            Code::Xor_r32_rm32 | Code::Xor_rm32_r32 | Code::Xor_r64_rm64 | Code::Xor_rm64_r64
                if instruction.op0_kind() == OpKind::Register
                    && instruction.op0_register() == instruction.op1_register() =>
            {
                Some((place(instruction, 0)?, Value::Zero))
            }
            _ => None,
        }
    }

    /// What the instruction compares with zero.
    fn compared(&self, instruction: &Instruction) -> Option<Value> {
        let against_itself = || {
            instruction.op1_kind() == OpKind::Register
                && instruction.op0_kind() == OpKind::Register
                && instruction.op0_register() == instruction.op1_register()
        };
        let whole = match instruction.code() {
            Code::Test_rm64_r64 if against_itself() => true,
            Code::Test_rm32_r32 if against_itself() => false,
            Code::Cmp_rm64_imm8 if instruction.immediate(1) == 0 => true,
            Code::Cmp_rm32_imm8 if instruction.immediate(1) == 0 => false,
            _ => return None,
        };
        let place = place(instruction, 0)?;
        Some(match self.at(place) {
            // Half of a `ssize_t` says nothing about it. An `int` that was moved is extended, unlike the register that
            // it was returned in.
            Value::Result if whole != self.int || (self.int && place != Place::Register(Register::RAX)) => {
                Value::Result
            }
            Value::Zero => Value::Zero,
            _ => Value::Unknown,
        })
    }

    /// Makes unknown what the instruction writes.
    fn clobber(&mut self, instruction: &Instruction) {
        let info = self.info.info(instruction);
        for used in info.used_registers() {
            if writes(used.access()) {
                let register = used.register().full_register();
                self.places.insert(Place::Register(register), Value::Unknown);
                // Slots are named by their distance from this register, which moves.
                self.places.retain(|place, _| !matches!(place, Place::Slot(base, _) if *base == register));
                self.moved.insert(register);
            }
        }
        for used in info.used_memory() {
            if writes(used.access()) && is_frame(used.base()) && used.index() == Register::None {
                let start = used.displacement() as i64;
                let size = match used.memory_size() {
                    MemorySize::Unknown => i64::from(u8::MAX),
                    size => size.size() as i64,
                };
                // Also slots that were not looked at yet: what they held is gone.
                for distance in (start.saturating_sub(7)..start.saturating_add(size)).take(64) {
                    self.places.insert(Place::Slot(used.base(), distance), Value::Unknown);
                }
            }
        }
    }
}

fn writes(access: OpAccess) -> bool {
    matches!(access, OpAccess::Write | OpAccess::CondWrite | OpAccess::ReadWrite | OpAccess::ReadCondWrite)
}

/// The place that an operand names.
fn place(instruction: &Instruction, operand: u32) -> Option<Place> {
    match instruction.op_kind(operand) {
        OpKind::Register => Some(Place::Register(instruction.op_register(operand).full_register())),
        OpKind::Memory
            if is_frame(instruction.memory_base()) && instruction.memory_index() == Register::None =>
        {
            let distance = instruction.memory_displacement64() as i64;
            Some(Place::Slot(instruction.memory_base(), distance))
        }
        _ => None,
    }
}

fn is_frame(register: Register) -> bool {
    matches!(register, Register::RSP | Register::RBP)
}

/// The registers that can hold a pointer; those that a call keeps first.
pub(super) const GENERAL: [Register; 15] = [
    Register::RBX,
    Register::RBP,
    Register::R12,
    Register::R13,
    Register::R14,
    Register::R15,
    Register::RAX,
    Register::RCX,
    Register::RDX,
    Register::RSI,
    Register::RDI,
    Register::R8,
    Register::R9,
    Register::R10,
    Register::R11,
];
/// How many of them a call keeps.
const KEPT_BY_CALLS: usize = 6;
