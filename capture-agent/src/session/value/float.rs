//! Floating-point numbers, as PostgreSQL prints them with `extra_float_digits` 1 or more: the shortest digits that
//! read back as the same number (`src/common/d2s.c` and `f2s.c`).

use std::fmt::Write;

use super::Failure;

pub(super) fn write_float4(value: f32, out: &mut dyn Write) -> Result<(), Failure> {
    let bits = value.to_bits();
    let significand = Significand::new((bits & 0x007f_ffff).into(), (bits >> 23 & 0xff) as i32, 23, 150);
    write_shortest(value, value.is_nan(), value.is_infinite(), f64::from(value), significand, 6, out)
}

pub(super) fn write_float8(value: f64, out: &mut dyn Write) -> Result<(), Failure> {
    let bits = value.to_bits();
    let significand = Significand::new(bits & 0x000f_ffff_ffff_ffff, (bits >> 52 & 0x7ff) as i32, 52, 1075);
    write_shortest(value, value.is_nan(), value.is_infinite(), value, significand, 15, out)
}

/// A number as `mantissa` times two to the power of `exponent`.
#[derive(Clone, Copy)]
struct Significand {
    mantissa: u64,
    exponent: i32,
    /// Whether the next smaller number is only half as far away as the next larger one.
    narrow_below: bool,
}

impl Significand {
    fn new(fraction: u64, biased: i32, bits: u32, bias: i32) -> Self {
        if biased == 0 {
            return Self { mantissa: fraction, exponent: 1 - bias, narrow_below: false };
        }
        let mantissa = fraction | 1 << bits;
        Self { mantissa, exponent: biased - bias, narrow_below: fraction == 0 && biased > 1 }
    }

    /// Whether `digits` times ten to the power of `scale` lies exactly in the middle between the number and one of
    /// its neighbours. A reader that rounds to even takes it for the number; PostgreSQL does not count on that.
    fn is_midpoint(self, digits: u64, scale: i32) -> bool {
        let Some((odd, power)) = odd_and_power_of_two(digits, scale) else {
            return false;
        };
        let m = u128::from(self.mantissa);
        let above = odd == 2 * m + 1 && power == self.exponent - 1;
        let below = if self.narrow_below {
            odd == 4 * m - 1 && power == self.exponent - 2
        } else {
            m > 0 && odd == 2 * m - 1 && power == self.exponent - 1
        };
        above || below
    }

    /// Whether the number lies exactly in the middle between odd `digits` and the even ones before them. Both are
    /// as good; PostgreSQL takes the even ones, Rust the larger ones.
    fn is_half_below(self, digits: u64, scale: i32) -> bool {
        if digits.is_multiple_of(2) || self.mantissa == 0 {
            return false;
        }
        let zeros = self.mantissa.trailing_zeros();
        let odd = u128::from(self.mantissa >> zeros);
        digits.checked_mul(10).is_some_and(|tenfold| {
            odd_and_power_of_two(tenfold - 5, scale - 1) == Some((odd, self.exponent + zeros as i32))
        })
    }
}

/// `digits` times ten to the power of `scale` as an odd number times a power of two; none if it is none, or too
/// large for a float's mantissa.
fn odd_and_power_of_two(digits: u64, scale: i32) -> Option<(u128, i32)> {
    let five = 5u64.checked_pow(scale.unsigned_abs())?;
    let odd = match scale {
        0.. => u128::from(digits).checked_mul(five.into())?,
        _ if digits.is_multiple_of(five) => u128::from(digits / five),
        _ => return None,
    };
    let zeros = odd.trailing_zeros();
    (odd != 0).then(|| (odd >> zeros, scale + zeros as i32))
}

fn write_shortest<F>(
    value: F,
    nan: bool,
    infinite: bool,
    wide: f64,
    significand: Significand,
    fixed_digits: i32,
    out: &mut dyn Write,
) -> Result<(), Failure>
where
    F: std::fmt::LowerExp + std::str::FromStr + PartialEq,
{
    if nan {
        return Ok(out.write_str("NaN")?);
    }
    if wide.is_sign_negative() {
        out.write_char('-')?;
    }
    if infinite {
        return Ok(out.write_str("Infinity")?);
    }
    if wide == 0.0 {
        return Ok(out.write_char('0')?);
    }
    let fits = |text: &Scientific| {
        let inside =
            text.parts().is_some_and(|parts| !significand.is_midpoint(parts.number(), parts.scale()));
        inside && text.text().parse().is_ok_and(|parsed: F| parsed == value)
    };
    let mut text = Scientific::default();
    write!(text, "{value:e}")?;
    let parts = text.parts().ok_or(Failure::Malformed)?;
    let (digits, scale) = (parts.number(), parts.scale());
    if significand.is_midpoint(digits, scale) {
        for precision in 0..17 {
            text = Scientific::default();
            write!(text, "{value:.precision$e}")?;
            if fits(&text) {
                break;
            }
        }
    } else if significand.is_half_below(digits, scale) {
        let even = text.with_last_digit_one_less();
        if fits(&even) {
            text = even;
        }
    }
    text.parts().ok_or(Failure::Malformed)?.write(fixed_digits, out)
}

/// A number in Rust's scientific notation: `-1.25e-7`.
#[derive(Default)]
struct Scientific {
    text: [u8; 32],
    length: usize,
}

impl Write for Scientific {
    fn write_str(&mut self, text: &str) -> std::fmt::Result {
        let end = self.length + text.len();
        self.text.get_mut(self.length..end).ok_or(std::fmt::Error)?.copy_from_slice(text.as_bytes());
        self.length = end;
        Ok(())
    }
}

impl Scientific {
    fn text(&self) -> &str {
        self.text.get(..self.length).and_then(|text| str::from_utf8(text).ok()).unwrap_or_default()
    }

    /// For digits that do not end in zero.
    fn with_last_digit_one_less(&self) -> Self {
        let mut less = Self { text: self.text, length: self.length };
        let last = self.text().find('e').and_then(|exponent| exponent.checked_sub(1));
        if let Some(digit) = last.and_then(|last| less.text.get_mut(last)) {
            *digit = digit.saturating_sub(1);
        }
        less
    }

    fn parts(&self) -> Option<Parts<'_>> {
        let (digits, exponent) = self.text().trim_start_matches('-').split_once('e')?;
        let (first, rest) = digits.split_at_checked(1)?;
        Some(Parts { first, rest: rest.trim_start_matches('.'), exponent: exponent.parse().ok()? })
    }
}

/// The digits of a number, the point behind the first one, and the power of ten.
struct Parts<'a> {
    first: &'a str,
    rest: &'a str,
    exponent: i32,
}

impl Parts<'_> {
    /// All digits as one number.
    fn number(&self) -> u64 {
        self.first.bytes().chain(self.rest.bytes()).fold(0, |number, digit| {
            number.wrapping_mul(10).wrapping_add(u64::from(digit.wrapping_sub(b'0')))
        })
    }

    /// The power of ten that [`Self::number`] is to be multiplied with.
    fn scale(&self) -> i32 {
        self.exponent - self.rest.len() as i32
    }

    /// Exponents from -4 to below `fixed_digits` are written out, as with C's `%g`.
    fn write(&self, fixed_digits: i32, out: &mut dyn Write) -> Result<(), Failure> {
        const ZEROS: &str = "00000000000000000";
        let Self { first, rest, exponent } = *self;
        if exponent < -4 || exponent >= fixed_digits {
            out.write_str(first)?;
            if !rest.is_empty() {
                out.write_char('.')?;
                out.write_str(rest)?;
            }
            let sign = if exponent < 0 { '-' } else { '+' };
            return Ok(write!(out, "e{sign}{:02}", exponent.unsigned_abs())?);
        }
        let places = exponent.unsigned_abs() as usize;
        if exponent < 0 {
            out.write_str("0.")?;
            out.write_str(ZEROS.get(..places - 1).unwrap_or_default())?;
            out.write_str(first)?;
            return Ok(out.write_str(rest)?);
        }
        out.write_str(first)?;
        match rest.split_at_checked(places) {
            Some((whole, fraction)) => {
                out.write_str(whole)?;
                if !fraction.is_empty() {
                    out.write_char('.')?;
                    out.write_str(fraction)?;
                }
                Ok(())
            }
            None => {
                out.write_str(rest)?;
                Ok(out.write_str(ZEROS.get(..places - rest.len()).unwrap_or_default())?)
            }
        }
    }
}
