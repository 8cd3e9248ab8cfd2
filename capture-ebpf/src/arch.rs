//! System call numbers, and where a system call's arguments stand in the saved registers.
//!
//! Sources: `arch/x86/entry/syscalls/syscall_64.tbl`, `arch/x86/include/asm/ptrace.h`;
//! `include/uapi/asm-generic/unistd.h`, `arch/arm64/include/asm/ptrace.h`.

#[cfg(bpf_target_arch = "x86_64")]
mod numbers {
    pub const CLOSE: u64 = 3;
    pub const ACCEPT: u64 = 43;
    pub const SENDTO: u64 = 44;
    pub const RECVFROM: u64 = 45;
    pub const ACCEPT4: u64 = 288;

    /// `struct pt_regs`, as 64-bit words: r15 r14 r13 r12 bp bx r11 r10 r9 r8 ax cx dx si di orig_ax ip cs
    /// flags sp ss. The exit leaves all but `ax` as the caller set them.
    pub type Regs = [u64; 21];
    const R10: usize = 7;
    const SI: usize = 13;
    const DI: usize = 14;
    const ORIG_AX: usize = 15;

    /// Words of a function call's arguments, at the call: rdi, rsi, rcx (System V ABI, AMD64).
    pub const CALL_ARG0: usize = DI;
    pub const CALL_ARG1: usize = SI;
    pub const CALL_ARG3: usize = 11;
    /// Word of the address of the instruction that a probe stands at.
    pub const INSTRUCTION: usize = 16;

    #[inline(always)]
    pub fn number(regs: &Regs) -> u64 {
        regs[ORIG_AX]
    }
    #[inline(always)]
    pub fn arg0(regs: &Regs) -> u64 {
        regs[DI]
    }
    #[inline(always)]
    pub fn arg1(regs: &Regs) -> u64 {
        regs[SI]
    }
    #[inline(always)]
    pub fn arg3(regs: &Regs) -> u64 {
        regs[R10]
    }
}

#[cfg(bpf_target_arch = "aarch64")]
mod numbers {
    pub const CLOSE: u64 = 57;
    pub const ACCEPT: u64 = 202;
    pub const SENDTO: u64 = 206;
    pub const RECVFROM: u64 = 207;
    pub const ACCEPT4: u64 = 242;

    /// `struct pt_regs`, as 64-bit words: x0..x30 sp pc pstate orig_x0, then the 32-bit `syscallno`.
    pub type Regs = [u64; 36];
    const X1: usize = 1;
    const X3: usize = 3;
    const ORIG_X0: usize = 34;
    const SYSCALLNO: usize = 35;

    /// Words of a function call's arguments, at the call: x0, x1, x3 (AAPCS64).
    pub const CALL_ARG0: usize = 0;
    pub const CALL_ARG1: usize = X1;
    pub const CALL_ARG3: usize = X3;
    /// Word of the address of the instruction that a probe stands at.
    pub const INSTRUCTION: usize = 32;

    #[inline(always)]
    pub fn number(regs: &Regs) -> u64 {
        regs[SYSCALLNO] & 0xffff_ffff
    }
    #[inline(always)]
    pub fn arg0(regs: &Regs) -> u64 {
        regs[ORIG_X0]
    }
    #[inline(always)]
    pub fn arg1(regs: &Regs) -> u64 {
        regs[X1]
    }
    #[inline(always)]
    pub fn arg3(regs: &Regs) -> u64 {
        regs[X3]
    }
}

pub use numbers::*;
