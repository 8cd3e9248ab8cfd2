//! Capture's kernel side: follows PostgreSQL's postmasters and client backends, and copies what passes over
//! their client sockets into one ring.
//!
//! It decides nothing about SQL. Each hook family has a file; [`maps`] holds every map; [`emit`] is the one
//! way out. Memory is read of tracked backends only, and only the buffers of calls on their client socket, or of the
//! calls that encrypt and decrypt what passes over it.
#![no_std]
#![no_main]
#![feature(asm_experimental_arch)]

mod accepted;
mod arch;
mod emit;
mod encryption;
mod hold;
mod kernel;
mod lifecycle;
mod maps;
mod pass;
mod piece;
mod ports;
mod process;
mod sockets;
mod sockets_fexit;
mod sockets_length;
mod sockets_sys_exit;
mod sockets_tracepoint;
mod tls;
mod walk;

/// The verifier rejects a program that can reach this: an endless loop is its way to see a panic.
#[cfg(not(test))]
#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    loop {}
}

#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";
