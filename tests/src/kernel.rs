//! The agent's programs and maps in the kernel, looked at from outside.

use std::collections::BTreeSet;
use std::fs;
use std::io::ErrorKind;

use anyhow::{Context, bail, ensure};
use aya::maps::{Array, HashMap, Map, MapData, MapInfo, PerCpuArray};
use aya::programs::{ProgramError, ProgramInfo, loaded_programs};
use aya::sys::SyscallError;
use capture_common::{Hold, MAX_TRACKED};

/// What a process has loaded into the kernel.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct KernelSide {
    /// Ids of its maps.
    pub maps: BTreeSet<u32>,
    /// Ids of its programs.
    pub programs: BTreeSet<u32>,
}

impl KernelSide {
    /// The maps and programs that `pid` holds a descriptor of.
    ///
    /// # Errors
    /// The process has ended.
    pub fn of(pid: u32) -> anyhow::Result<Self> {
        let mut side = Self::default();
        for entry in fs::read_dir(format!("/proc/{pid}/fdinfo"))? {
            // A descriptor may be closed meanwhile.
            let Ok(text) = fs::read_to_string(entry?.path()) else { continue };
            side.maps.extend(id(&text, "map_id:"));
            side.programs.extend(id(&text, "prog_id:"));
        }
        Ok(side)
    }

    /// How many of its programs the kernel still holds.
    ///
    /// # Errors
    /// The kernel does not say.
    pub fn programs_left(&self) -> anyhow::Result<usize> {
        Ok(self.loaded()?.len())
    }

    /// How many instructions the verifier walked through to accept each of its programs, by name; none where the kernel does not
    /// tell (before Linux 5.16).
    ///
    /// # Errors
    /// The kernel does not say which programs there are.
    pub fn verified(&self) -> anyhow::Result<Vec<(String, Option<u32>)>> {
        let verified = |program: &ProgramInfo| {
            let name = program.name_as_str().unwrap_or_default().to_owned();
            (name, program.verified_instruction_count())
        };
        Ok(self.loaded()?.iter().map(verified).collect())
    }

    fn loaded(&self) -> Result<Vec<ProgramInfo>, ProgramError> {
        let mut loaded = Vec::new();
        for program in loaded_programs() {
            match program {
                Ok(program) if self.programs.contains(&program.id()) => loaded.push(program),
                Ok(_) => {}
                // Anybody's program may go between the moment it is listed and the one it is asked about.
                Err(ProgramError::SyscallError(SyscallError { io_error, .. }))
                    if io_error.kind() == ErrorKind::NotFound => {}
                Err(error) => return Err(error),
            }
        }
        Ok(loaded)
    }

    /// A counter of the kernel side, summed over all CPUs: an index of `capture_common::counter`.
    ///
    /// # Errors
    /// The map is not there.
    pub fn counter(&self, index: u32) -> anyhow::Result<u64> {
        let counters = PerCpuArray::<_, u64>::try_from(Map::PerCpuArray(self.map("COUNTERS")?))?;
        Ok(counters.get(&index, 0)?.iter().sum())
    }

    /// Whether the reader found the ring empty and went to sleep.
    ///
    /// # Errors
    /// The map is not there.
    pub fn reader_sleeps(&self) -> anyhow::Result<bool> {
        let reader = Array::<_, u32>::try_from(Map::Array(self.map("READER")?))?;
        Ok(reader.get(&0, 0)? == 1)
    }

    /// Fills the table of holds with those of processes that no host can have, so that no other has room.
    ///
    /// # Errors
    /// The map is not there, or takes more than it should.
    pub fn fill_holds(&self) -> anyhow::Result<()> {
        let mut holds =
            HashMap::<_, u32, [u8; size_of::<Hold>()]>::try_from(Map::HashMap(self.map("HOLDS")?))?;
        for number in 0..=MAX_TRACKED {
            if holds.insert(MOST_PROCESSES + number, [0; size_of::<Hold>()], 0).is_err() {
                return Ok(());
            }
        }
        bail!("the table of holds has room for more than {MAX_TRACKED}")
    }

    fn map(&self, name: &str) -> anyhow::Result<MapData> {
        ensure!(!self.maps.is_empty(), "the agent holds no map");
        for id in &self.maps {
            if MapInfo::from_id(*id)?.name_as_str() == Some(name) {
                return Ok(MapData::from_id(*id)?);
            }
        }
        None.with_context(|| format!("the agent has no map {name}"))
    }
}

/// `PID_MAX_LIMIT` in `include/linux/threads.h`
const MOST_PROCESSES: u32 = 4 << 20;

fn id(text: &str, name: &str) -> Option<u32> {
    text.lines().find_map(|line| line.strip_prefix(name))?.trim().parse().ok()
}
