//! Times as access logs write them: the part of `strftime` that Envoy's `START_TIME` takes, in UTC.

use std::io::Write;
use std::time::SystemTime;
use time::OffsetDateTime;

/// ISO 8601 with milliseconds, which an empty format stands for.
const ISO: &str = "%Y-%m-%dT%H:%M:%S.%3fZ";
const DAYS: [&str; 7] = ["Sun", "Mon", "Tue", "Wed", "Thu", "Fri", "Sat"];
const MONTHS: [&str; 12] =
    ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];

/// Appends `time` as `format` says. What is no known conversion is written as it stands.
pub(super) fn write_time(time: SystemTime, format: &str, out: &mut Vec<u8>) {
    let time = OffsetDateTime::from(time);
    let format = if format.is_empty() { ISO } else { format };
    let mut rest = format;
    while let Some((before, after)) = rest.split_once('%') {
        out.extend_from_slice(before.as_bytes());
        let width = after.bytes().take_while(u8::is_ascii_digit).count();
        let (digits, tail) = after.split_at(width);
        let mut conversion = tail.chars();
        let Some(c) = conversion.next() else {
            out.push(b'%');
            rest = after;
            break;
        };
        rest = conversion.as_str();
        if !write_part(&time, digits.parse().ok(), c, out) {
            out.push(b'%');
            rest = after;
        }
    }
    out.extend_from_slice(rest.as_bytes());
}

fn write_part(time: &OffsetDateTime, width: Option<usize>, conversion: char, out: &mut Vec<u8>) -> bool {
    let month = time.month() as usize - 1;
    let weekday =
        DAYS.get(usize::from(time.weekday().number_days_from_sunday())).copied().unwrap_or_default();
    let month_name = MONTHS.get(month).copied().unwrap_or_default();
    let written = match conversion {
        'f' => {
            let digits = format!("{:09}", time.nanosecond());
            let wanted = width.unwrap_or(9).min(9);
            out.write_all(digits.get(..wanted).unwrap_or_default().as_bytes())
        }
        // Envoy's own: seconds since the epoch, with `%3s`-like widths for its fractions.
        's' => match width {
            None => write!(out, "{}", time.unix_timestamp()),
            Some(digits) => {
                let unit = 10i128.pow(9 - digits.min(9) as u32);
                write!(out, "{}", time.unix_timestamp_nanos().div_euclid(unit))
            }
        },
        _ if width.is_some() => return false,
        'Y' => write!(out, "{}", time.year()),
        'y' => write!(out, "{:02}", time.year().rem_euclid(100)),
        'm' => write!(out, "{:02}", month + 1),
        'b' | 'h' => out.write_all(month_name.as_bytes()),
        'd' => write!(out, "{:02}", time.day()),
        'e' => write!(out, "{:2}", time.day()),
        'j' => write!(out, "{:03}", time.ordinal()),
        'a' => out.write_all(weekday.as_bytes()),
        'H' => write!(out, "{:02}", time.hour()),
        'M' => write!(out, "{:02}", time.minute()),
        'S' => write!(out, "{:02}", time.second()),
        'T' => write!(out, "{:02}:{:02}:{:02}", time.hour(), time.minute(), time.second()),
        'F' => write!(out, "{}-{:02}-{:02}", time.year(), month + 1, time.day()),
        'z' => out.write_all(b"+0000"),
        'Z' => out.write_all(b"UTC"),
        '%' => out.write_all(b"%"),
        _ => return false,
    };
    written.is_ok()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use std::time::Duration;

    fn show(format: &str) -> String {
        // 2026-03-01T04:05:06.007008009Z
        let time = SystemTime::UNIX_EPOCH + Duration::new(1_772_337_906, 7_008_009);
        let mut out = Vec::new();
        write_time(time, format, &mut out);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn times_are_written_as_strftime_does() {
        assert_eq!(show(""), "2026-03-01T04:05:06.007Z");
        assert_eq!(show("%F %T %z"), "2026-03-01 04:05:06 +0000");
        assert_eq!(show("%d/%b/%Y:%H:%M:%S"), "01/Mar/2026:04:05:06");
        assert_eq!(show("%f %3f %6f %9f"), "007008009 007 007008 007008009");
        assert_eq!(show("%s %3s"), "1772337906 1772337906007");
        assert_eq!(show("%a %e %j %y"), "Sun  1 060 26");
    }

    #[test]
    fn what_is_no_conversion_stays() {
        assert_eq!(show("%Q %5d 100%% %"), "%Q %5d 100% %");
    }
}
