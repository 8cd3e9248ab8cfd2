//! Tells the kernel side at which ports sessions have their own ends. It knows by itself of those whose beginning it sees.

use std::io;
use std::os::fd::AsFd as _;
use std::sync::atomic::Ordering;

use aya::maps::MapData;

use super::mapping::Mapping;

/// A byte for each port, which both sides set and none clears.
pub(super) struct Ports(Mapping);

impl Ports {
    pub(super) fn new(map: &MapData) -> io::Result<Self> {
        let length = usize::from(u16::MAX) + 1;
        Mapping::new(map.fd().as_fd(), length, 0, libc::PROT_READ | libc::PROT_WRITE).map(Self)
    }

    /// A session whose own end is at `port` is about to be followed.
    pub(super) fn note(&self, port: u16) {
        self.0.byte(port.into()).store(1, Ordering::Relaxed);
    }
}
