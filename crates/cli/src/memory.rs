//! How the process gives memory back. The allocator's defaults keep what was freed for a second and look at it only when
//! something is allocated: a proxy that rests after its start, or after a burst, would hold its peak for good. And much of
//! the program itself runs only at the start.
//!
//! The only unsafe code of the project: three calls that have no safe wrapper.
#![allow(unsafe_code)]

use rustix::mm::{Advice, madvise};
use std::sync::atomic::{AtomicUsize, Ordering};

/// `mi_option_purge_delay` of mimalloc 3.
const PURGE_DELAY: libmimalloc_sys::mi_option_t = 15;
/// How long freed memory is kept for the next allocation, in milliseconds.
const KEPT_MS: std::ffi::c_long = 100;

/// Call it first.
pub(crate) fn configure() {
    keep(KEPT_MS);
}

/// Gives back at once what is freed, until [`tidy`] is called: what a start needs for a moment is many times what stays,
/// and what stays would be laid over it, a little on each page, so that none of them ever goes back.
pub(crate) fn start() {
    keep(0);
}

fn keep(milliseconds: std::ffi::c_long) {
    // SAFETY: the call stores a number under an option's index, which is in range; any thread may do so at any time.
    unsafe { libmimalloc_sys::mi_option_set(PURGE_DELAY, milliseconds) }
}

/// Gives back what the calling thread has freed and not used again. Call it every few seconds.
pub(crate) fn tidy() {
    keep(KEPT_MS);
    // SAFETY: the call works on the calling thread's own heap, and on shared memory under the allocator's own locks.
    unsafe { libmimalloc_sys::mi_collect(false) }
}

/// Lets go of the pages of the program and its libraries: those of the start, and those that only requests need. What is
/// needed comes back from the file at the next touch, sixteen pages at a time. Call it when there is nothing to do; it does
/// nothing until more than a few pages came back since it was last called.
pub(crate) fn forget() {
    static LEFT: AtomicUsize = AtomicUsize::new(0);
    if file_pages() <= LEFT.load(Ordering::Relaxed).saturating_add(FEW_PAGES) {
        return;
    }
    let Ok(maps) = std::fs::read_to_string("/proc/self/maps") else { return };
    for (start, length) in maps.lines().filter_map(unwritten) {
        let start = std::ptr::with_exposed_provenance_mut(start);
        // SAFETY: the range is one mapping of a file that nothing can have written to: dropping its pages loses nothing,
        // they are read from the file again.
        let _ = unsafe { madvise(start, length, Advice::LinuxDontNeed) };
    }
    LEFT.store(file_pages(), Ordering::Relaxed);
}

/// So many pages come back by merely being there.
const FEW_PAGES: usize = 192;

/// Resident pages that are backed by files.
fn file_pages() -> usize {
    let numbers = std::fs::read_to_string("/proc/self/statm").unwrap_or_default();
    numbers.split_ascii_whitespace().nth(2).and_then(|pages| pages.parse().ok()).unwrap_or(0)
}

/// Start and length of a mapping that is as its file is: code, and what stands before it. Constants with addresses in
/// them were written to when the file was loaded; they are read-only, too, but not at the file's beginning.
fn unwritten(line: &str) -> Option<(usize, usize)> {
    let mut fields = line.split_ascii_whitespace();
    let (range, mode, offset) = (fields.next()?, fields.next()?, fields.next()?);
    if !fields.nth(2)?.starts_with('/') {
        return None;
    }
    let is_unwritten = mode == "r-xp" || (mode == "r--p" && offset.bytes().all(|b| b == b'0'));
    let (start, end) = range.split_once('-')?;
    let (start, end) = (usize::from_str_radix(start, 16).ok()?, usize::from_str_radix(end, 16).ok()?);
    is_unwritten.then(|| (start, end.saturating_sub(start)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_mappings_that_nobody_wrote_to_are_let_go() {
        let of = unwritten;
        assert_eq!(of("1000-3000 r--p 00000000 08:01 7   /bin/ieum"), Some((0x1000, 0x2000)));
        assert_eq!(of("3000-4000 r-xp 00002000 08:01 7   /bin/ieum"), Some((0x3000, 0x1000)));
        assert_eq!(of("4000-5000 r--p 00003000 08:01 7   /bin/ieum"), None, "relocated constants");
        assert_eq!(of("5000-6000 rw-p 00004000 08:01 7   /bin/ieum"), None);
        assert_eq!(of("6000-7000 r-xp 00000000 08:01 8   /lib/libc.so.6"), Some((0x6000, 0x1000)));
        assert_eq!(of("7000-8000 r-xp 00000000 00:00 0"), None);
        assert_eq!(of("8000-9000 r-xp 00000000 00:00 0   [vdso]"), None);
    }

    #[test]
    fn the_program_goes_on_after_its_pages_were_let_go() {
        forget();
        assert_eq!(format!("{}", 1 + 1), "2");
    }
}
