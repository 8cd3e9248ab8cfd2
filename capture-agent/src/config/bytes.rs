//! Sizes are numbers of bytes, and an error says so.

use std::fmt;
use std::marker::PhantomData;

use serde::Deserializer;
use serde::de::{Error, Unexpected, Visitor};

/// A number of bytes, for `#[serde(deserialize_with)]`.
///
/// # Errors
///
/// It is something else, or more than fits.
pub(super) fn bytes<'de, D: Deserializer<'de>, T: TryFrom<u64>>(from: D) -> Result<T, D::Error> {
    from.deserialize_u64(Bytes(PhantomData))
}

/// The same, of what may be left out.
///
/// # Errors
///
/// It is something else, or more than fits.
pub(super) fn some_bytes<'de, D: Deserializer<'de>, T: TryFrom<u64>>(from: D) -> Result<Option<T>, D::Error> {
    bytes(from).map(Some)
}

struct Bytes<T>(PhantomData<T>);

impl<T: TryFrom<u64>> Visitor<'_> for Bytes<T> {
    type Value = T;

    fn expecting(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        to.write_str("a number of bytes without a unit, such as 67108864")
    }

    fn visit_u64<E: Error>(self, number: u64) -> Result<T, E> {
        T::try_from(number).map_err(|_| E::invalid_value(Unexpected::Unsigned(number), &self))
    }

    fn visit_i64<E: Error>(self, number: i64) -> Result<T, E> {
        match u64::try_from(number) {
            Ok(number) => self.visit_u64(number),
            Err(_) => Err(E::invalid_value(Unexpected::Signed(number), &self)),
        }
    }
}
