//! What the fuzz targets share: a bound on the memory that decoding may take.

use peak_alloc::PeakAlloc;

#[global_allocator]
static HEAP: PeakAlloc = PeakAlloc;

/// Memory that any input may cost.
const BASE: usize = 256 * 1024;

/// Runs `decode` on `input`, and fails if it ever held more than some memory and `factor` bytes for each of the input.
pub fn bounded<T>(input: &[u8], factor: usize, decode: impl FnOnce() -> T) -> T {
    within(factor * input.len(), decode)
}

/// Runs `decode`, and fails if it ever held more than some memory and `bytes`.
pub fn within<T>(bytes: usize, decode: impl FnOnce() -> T) -> T {
    HEAP.reset_peak_usage();
    let before = HEAP.current_usage();
    let decoded = decode();
    let taken = HEAP.peak_usage().saturating_sub(before);
    assert!(taken <= BASE + bytes, "{taken} bytes of memory, {bytes} and some are allowed");
    decoded
}
