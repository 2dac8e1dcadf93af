//! How the process gives memory back. The allocator's defaults keep what was freed for a second and look at it only when
//! something is allocated: a proxy that rests after its start, or after a burst, would hold its peak for good. And much of
//! the program itself runs only at the start.
//!
//! The only unsafe code of the project: three calls that have no safe wrapper.
#![allow(unsafe_code)]

use rustix::mm::{Advice, madvise};

/// `mi_option_purge_delay` of mimalloc 3.
const PURGE_DELAY: libmimalloc_sys::mi_option_t = 15;
/// How long freed memory is kept for the next allocation, in milliseconds.
const KEPT_MS: std::ffi::c_long = 100;

/// Call it first.
pub(crate) fn configure() {
    // SAFETY: the call stores a number under an option's index, which is in range; any thread may do so at any time.
    unsafe { libmimalloc_sys::mi_option_set(PURGE_DELAY, KEPT_MS) }
}

/// Gives back what the calling thread has freed and not used again. Call it every few seconds.
pub(crate) fn tidy() {
    // SAFETY: the call works on the calling thread's own heap, and on shared memory under the allocator's own locks.
    unsafe { libmimalloc_sys::mi_collect(false) }
}

/// Lets go of the program's own pages: those of its start, and those that only requests need. What is needed comes back
/// from the file at the next touch, sixteen pages at a time. Call it when there is nothing to do.
pub(crate) fn forget() {
    let Ok(program) = std::env::current_exe() else { return };
    let Ok(maps) = std::fs::read_to_string("/proc/self/maps") else { return };
    for (start, length) in maps.lines().filter_map(|line| unwritten(line, &program.to_string_lossy())) {
        let start = std::ptr::with_exposed_provenance_mut(start);
        // SAFETY: the range is one mapping of the program's file that nothing can have written to: dropping its pages
        // loses nothing, they are read from the file again.
        let _ = unsafe { madvise(start, length, Advice::LinuxDontNeed) };
    }
}

/// Start and length of a mapping of `program` that is as the file is: its code, and what stands before it. Constants with
/// addresses in them were written to when the program was loaded; they are read-only, too, but not at the file's beginning.
fn unwritten(line: &str, program: &str) -> Option<(usize, usize)> {
    let mut fields = line.split_ascii_whitespace();
    let (range, mode, offset) = (fields.next()?, fields.next()?, fields.next()?);
    if fields.nth(2)? != program {
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
        let of = |line| unwritten(line, "/bin/ieum");
        assert_eq!(of("1000-3000 r--p 00000000 08:01 7   /bin/ieum"), Some((0x1000, 0x2000)));
        assert_eq!(of("3000-4000 r-xp 00002000 08:01 7   /bin/ieum"), Some((0x3000, 0x1000)));
        assert_eq!(of("4000-5000 r--p 00003000 08:01 7   /bin/ieum"), None, "relocated constants");
        assert_eq!(of("5000-6000 rw-p 00004000 08:01 7   /bin/ieum"), None);
        assert_eq!(of("6000-7000 r-xp 00000000 08:01 8   /lib/libc.so.6"), None);
        assert_eq!(of("7000-8000 r-xp 00000000 00:00 0"), None);
    }

    #[test]
    fn the_program_goes_on_after_its_pages_were_let_go() {
        forget();
        assert_eq!(format!("{}", 1 + 1), "2");
    }
}
