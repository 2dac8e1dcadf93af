//! Durations as people write them in Istio YAML: Go's form (`1h30m`, `100ms`) and protobuf's (`0.5s`).

use std::fmt;
use std::time::Duration;

/// The longest duration protobuf knows: 10,000 years.
const LONGEST_SECONDS: u128 = 315_576_000_000;

/// Why a text is not a duration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DurationError {
    /// No number with a unit, as `fast`, `10` or the empty text.
    Malformed(String),
    /// A minus sign in front.
    Negative(String),
    /// Longer than 10,000 years.
    TooLong(String),
}

impl fmt::Display for DurationError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Malformed(text) => write!(f, "`{text}` is not a duration"),
            Self::Negative(text) => write!(f, "the duration `{text}` is negative"),
            Self::TooLong(text) => write!(f, "the duration `{text}` is longer than 10,000 years"),
        }
    }
}

impl std::error::Error for DurationError {}

/// Reads `1h30m`, `10s`, `0.5s`, `100ms`, `0`: decimal numbers with the units `h`, `m`, `s`, `ms`, `us`, `ns`.
pub fn parse(text: &str) -> Result<Duration, DurationError> {
    let malformed = || DurationError::Malformed(text.to_owned());
    let (negative, mut rest) = match text.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, text.strip_prefix('+').unwrap_or(text)),
    };
    let mut nanos: u128 = 0;
    if rest.is_empty() {
        return Err(malformed());
    }
    if rest == "0" {
        return Ok(Duration::ZERO);
    }
    while !rest.is_empty() {
        let number_len = rest.find(|c: char| !c.is_ascii_digit() && c != '.').ok_or_else(malformed)?;
        let (number, after) = rest.split_at(number_len);
        let unit_len = after.find(|c: char| c.is_ascii_digit() || c == '.').unwrap_or(after.len());
        let (unit, after) = after.split_at(unit_len);
        let unit_nanos = nanos_of(unit).ok_or_else(malformed)?;
        let part = scaled(number, unit_nanos).ok_or_else(malformed)?;
        nanos = nanos.checked_add(part).ok_or_else(|| DurationError::TooLong(text.to_owned()))?;
        rest = after;
    }
    if negative && nanos > 0 {
        return Err(DurationError::Negative(text.to_owned()));
    }
    let seconds = nanos / 1_000_000_000;
    if seconds > LONGEST_SECONDS {
        return Err(DurationError::TooLong(text.to_owned()));
    }
    let seconds = u64::try_from(seconds).unwrap_or(u64::MAX);
    Ok(Duration::new(seconds, (nanos % 1_000_000_000) as u32))
}

fn nanos_of(unit: &str) -> Option<u128> {
    Some(match unit {
        "h" => 3_600_000_000_000,
        "m" => 60_000_000_000,
        "s" => 1_000_000_000,
        "ms" => 1_000_000,
        "us" | "\u{b5}s" | "\u{3bc}s" => 1_000,
        "ns" => 1,
        _ => return None,
    })
}

/// `number` (digits with at most one point) times `unit_nanos`; what is below a nanosecond is dropped.
fn scaled(number: &str, unit_nanos: u128) -> Option<u128> {
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    if (whole.is_empty() && fraction.is_empty()) || fraction.contains('.') || whole.len() > 20 {
        return None;
    }
    // Eighteen digits of an hour are far below a nanosecond, and keep the product in range.
    let fraction = &fraction[..fraction.len().min(18)];
    let digits = format!("{whole}{fraction}").parse::<u128>().ok()?;
    let scale = 10_u128.pow(u32::try_from(fraction.len()).ok()?);
    Some(match digits.checked_mul(unit_nanos) {
        Some(product) => product / scale,
        // Only a number beyond every limit overflows here.
        None => u128::MAX / 2,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn go_and_protobuf_forms_are_read() {
        let ms = |text| parse(text).map(|d| d.as_millis());
        assert_eq!(ms("10s"), Ok(10_000));
        assert_eq!(ms("0.5s"), Ok(500));
        assert_eq!(ms("1h"), Ok(3_600_000));
        assert_eq!(ms("1h30m"), Ok(5_400_000));
        assert_eq!(ms("100ms"), Ok(100));
        assert_eq!(ms("0"), Ok(0));
        assert_eq!(ms("0s"), Ok(0));
        assert_eq!(ms("-0s"), Ok(0));
        assert_eq!(ms(".5h"), Ok(1_800_000));
        assert_eq!(parse("1.000000001s"), Ok(Duration::new(1, 1)));
        assert_eq!(parse("5us"), Ok(Duration::from_micros(5)));
    }

    #[test]
    fn garbage_and_negative_values_are_named() {
        for text in ["", "-", "10", "s", "1x", "1.2.3s", "1 s", "fast", "s1", ".s"] {
            assert_eq!(parse(text), Err(DurationError::Malformed(text.into())), "{text}");
        }
        assert_eq!(parse("-1s"), Err(DurationError::Negative("-1s".into())));
        assert_eq!(
            parse("99999999999999999999h"),
            Err(DurationError::TooLong("99999999999999999999h".into()))
        );
    }

    proptest::proptest! {
        #[test]
        fn no_text_panics(text in "\\PC*") {
            let _ = parse(&text);
        }

        #[test]
        fn millisecond_counts_survive(ms in 0_u64..1_000_000_000) {
            assert_eq!(parse(&format!("{ms}ms")), Ok(Duration::from_millis(ms)));
            assert_eq!(parse(&format!("{}.{:03}s", ms / 1000, ms % 1000)), Ok(Duration::from_millis(ms)));
        }
    }
}
