//! How the allocator gives memory back. Its defaults keep what was freed for a second and look at it only when something
//! is allocated: a proxy that rests after its start, or after a burst, would hold its peak for good.
//!
//! The only unsafe code of the project: two calls that have no safe wrapper.
#![allow(unsafe_code)]

/// `mi_option_purge_delay` of mimalloc 3.
const PURGE_DELAY: libmimalloc_sys::mi_option_t = 15;
/// How long freed memory is kept for the next allocation, in milliseconds.
const KEPT_MS: std::ffi::c_long = 100;

/// Call it first.
pub(crate) fn configure() {
    // SAFETY: the call stores a number under an option's index, which is in range; any thread may do so at any time.
    unsafe { libmimalloc_sys::mi_option_set(PURGE_DELAY, KEPT_MS) }
}

/// Gives back what the calling thread has freed and not used again. Call it now and then.
pub(crate) fn tidy() {
    // SAFETY: the call works on the calling thread's own heap, and on shared memory under the allocator's own locks.
    unsafe { libmimalloc_sys::mi_collect(false) }
}
