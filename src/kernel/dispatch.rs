//! Plain loops, compiled once for each level: the compiler's own vectors reach as far as the processor's.
//!
//! For code that is elementwise and needs no intrinsics. Rust never fuses or reorders float operations, so all
//! instances return the same bits.
#![allow(unsafe_code)]

use super::Level;

/// Work to be compiled for each level. `run` and all it calls in its inner loops must be `#[inline(always)]`: only code
/// that is inlined into the instance of a level uses that level's instructions.
pub trait Task {
    /// What the work returns.
    type Output;
    /// Does the work.
    fn run(self) -> Self::Output;
}

/// Runs a task with the instructions of a level.
pub fn run<T: Task>(level: Level, task: T) -> T::Output {
    match level {
        #[cfg(target_arch = "x86_64")]
        // SAFETY: the level was detected.
        Level::Avx512 => unsafe { avx512(task) },
        #[cfg(target_arch = "x86_64")]
        // SAFETY: the level was detected.
        Level::Avx2 => unsafe { avx2(task) },
        _ => task.run(),
    }
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx2")]
fn avx512<T: Task>(task: T) -> T::Output {
    task.run()
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2")]
fn avx2<T: Task>(task: T) -> T::Output {
    task.run()
}

/// The largest absolute value; sixteen side by side, since one comparison would wait for the one before.
#[inline(always)]
#[must_use]
pub fn largest(p: &[f32]) -> f32 {
    let mut lanes = [0.0f32; 16];
    let (wide, rest) = p.as_chunks::<16>();
    for p in wide {
        for (m, x) in lanes.iter_mut().zip(p) {
            *m = if x.abs() > *m { x.abs() } else { *m };
        }
    }
    lanes.iter().chain(rest).fold(0.0, |m, x| m.max(x.abs()))
}

/// Asks for the bytes to be brought near, a line of 64 at a time; they need not be there.
#[inline(always)]
pub fn prefetch(bytes: &[u8]) {
    #[cfg(target_arch = "x86_64")]
    for at in (0..bytes.len()).step_by(64) {
        // SAFETY: a prefetch reads nothing, and the address lies within the slice.
        unsafe {
            use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
            _mm_prefetch::<_MM_HINT_T0>(bytes.as_ptr().add(at).cast());
        }
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = bytes;
}
