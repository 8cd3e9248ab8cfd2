//! Acts on backends that the kernel side has stopped: lets them go on once their bytes are recorded, or once it is decided
//! about what they were asked for.

mod backends;
mod guard;
mod overruns;
mod prepared;

pub use backends::Backends;
pub use guard::{By, Case, Done, Guard, Unsettled, act};
pub use overruns::Overruns;
pub use prepared::Prepared;
