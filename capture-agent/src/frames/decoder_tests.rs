use super::*;

fn all(_: u8, body: u32) -> usize {
    body as usize
}
