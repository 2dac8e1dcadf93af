//! What every certificate is stamped with: whole-second dates and a random serial number.

use rcgen::SerialNumber;
use std::time::{SystemTime, UNIX_EPOCH};
use time::OffsetDateTime;

/// Certificates tell time in whole seconds.
pub(crate) enum Round {
    Down,
    Up,
}

/// `time` as a certificate can hold it; `None` before 1970 and after 9999.
pub(crate) fn date(time: SystemTime, round: Round) -> Option<OffsetDateTime> {
    let since = time.duration_since(UNIX_EPOCH).ok()?;
    let up = matches!(round, Round::Up) && since.subsec_nanos() > 0;
    let seconds = i64::try_from(since.as_secs()).ok()?.checked_add(i64::from(up))?;
    OffsetDateTime::from_unix_timestamp(seconds).ok()
}

/// 127 random bits: positive, and never zero (RFC 5280, 4.1.2.2).
pub(crate) fn random_serial() -> Option<SerialNumber> {
    let mut bytes = [0; 16];
    aws_lc_rs::rand::fill(&mut bytes).ok()?;
    if let Some(first) = bytes.first_mut() {
        *first = (*first & 0x3f) | 0x40;
    }
    Some(SerialNumber::from_slice(&bytes))
}
