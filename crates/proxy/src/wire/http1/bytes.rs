//! Runs of bytes of one kind, found fast: what a head is nearly all made of.

/// Length of the run of bytes of names and methods (RFC 9110, 5.6.2) at the start.
#[inline]
pub(super) fn run_of_token(bytes: &[u8]) -> usize {
    bytes.iter().position(|b| !TOKEN[usize::from(*b)]).unwrap_or(bytes.len())
}

static TOKEN: [bool; 256] = token_bytes();

const fn token_bytes() -> [bool; 256] {
    let mut is_token = [false; 256];
    let mut byte = 0;
    while byte < 256 {
        let b = byte as u8;
        is_token[byte] = b.is_ascii_alphanumeric()
            || matches!(b, b'!' | b'#'..=b'\'' | b'*' | b'+' | b'-' | b'.' | b'^'..=b'`' | b'|' | b'~');
        byte += 1;
    }
    is_token
}

/// Length of the run of bytes of values at the start: space, tab, visible ones, and those above ASCII.
#[inline]
pub(super) fn run_of_value(bytes: &[u8]) -> usize {
    let mut length = 0;
    loop {
        length += run_above(bytes.get(length..).unwrap_or_default(), b' ' - 1);
        match bytes.get(length) {
            Some(b'\t') => length += 1,
            _ => return length,
        }
    }
}

/// Length of the run of bytes above `floor` at the start, without DEL; eight at a time. Bytes above ASCII are among
/// them: who reads them judges them. `floor` is below 0x7f.
#[inline]
pub(super) fn run_above(bytes: &[u8], floor: u8) -> usize {
    const ONES: u64 = u64::from_ne_bytes([1; 8]);
    const HIGH: u64 = ONES << 7;
    let lowest = ONES * (u64::from(floor) + 1);
    let (words, rest) = bytes.as_chunks::<8>();
    for (at, word) in words.iter().enumerate() {
        let word = u64::from_le_bytes(*word);
        let too_low = word.wrapping_sub(lowest) & !word;
        let del = word ^ (ONES * 0x7f);
        let is_del = del.wrapping_sub(ONES) & !del;
        // Borrows can only mark bytes after the first that is rightly marked.
        let found = (too_low | is_del) & HIGH;
        if found != 0 {
            return at * 8 + found.trailing_zeros() as usize / 8;
        }
    }
    let is_out = |b: &u8| *b <= floor || *b == 0x7f;
    bytes.len() - rest.len() + rest.iter().position(is_out).unwrap_or(rest.len())
}
