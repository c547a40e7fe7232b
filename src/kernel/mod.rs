//! Fast arithmetic on vectors, chosen for the processor at run time.
//!
//! One algorithm, several thin instances: a sum over two vectors, in blocks, with several accumulators and a padded or
//! masked tail. [`scalar`] is the reference that tests judge by, `portable` runs everywhere (crate `wide`), `avx2` and
//! `avx512` are `std::arch` behind `#[target_feature]`. [`Kernels`] is the table of one level's functions;
//! [`kernels`] the table for this processor, chosen once. `rerank` scores rows exactly, in f64.
//!
//! Invariants: kernels never read beyond a slice and never panic; integer sums are exact; float sums are within the
//! error bound of recursive f32 summation (`tests/kernel_law.rs`); `rerank` has the same bits on every level.
//!
//! Cost: from L2 cache bound by loads, from RAM by its bandwidth: bytes per vector beat instruction sets there.

#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "x86_64")]
mod avx512;
mod portable;
mod rerank;
pub mod scalar;
mod table;

pub use table::{DotAndNorm, Kernels, Pairwise, Parts, Rerank, Scorer, kernels};

pub mod window;

pub mod bound;
pub mod codes;
pub mod dispatch;
pub mod nibble;
pub mod scan;
pub mod select;

use std::sync::OnceLock;

/// An instruction-set level, from the one that runs everywhere upwards. Each includes those before it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Level {
    /// Whatever the build targets: SSE2 on x86-64, NEON on aarch64, through the `wide` crate.
    Portable,
    /// AVX2, FMA and F16C.
    Avx2,
    /// AVX-512 F, BW, VL, DQ, VBMI, VNNI and VPOPCNTDQ (Ice Lake, Zen 4 and later).
    Avx512,
}

impl Level {
    /// All levels, lowest first.
    pub const ALL: [Level; 3] = [Level::Portable, Level::Avx2, Level::Avx512];

    /// The name that `annoy_version()` shows and `SQLITE_ANNOY_ISA` takes.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Level::Portable => "portable",
            Level::Avx2 => "avx2",
            Level::Avx512 => "avx512",
        }
    }

    /// Whether this processor has it.
    #[must_use]
    pub fn is_available(self) -> bool {
        #[cfg(target_arch = "x86_64")]
        {
            match self {
                Level::Portable => true,
                Level::Avx2 => {
                    is_x86_feature_detected!("avx2")
                        && is_x86_feature_detected!("fma")
                        && is_x86_feature_detected!("f16c")
                }
                Level::Avx512 => {
                    Level::Avx2.is_available()
                        && is_x86_feature_detected!("avx512f")
                        && is_x86_feature_detected!("avx512bw")
                        && is_x86_feature_detected!("avx512vl")
                        && is_x86_feature_detected!("avx512dq")
                        && is_x86_feature_detected!("avx512vnni")
                        && is_x86_feature_detected!("avx512vbmi")
                        && is_x86_feature_detected!("avx512vpopcntdq")
                }
            }
        }
        #[cfg(not(target_arch = "x86_64"))]
        {
            self == Level::Portable
        }
    }
}

/// The environment variable that forces a level: `portable`, `avx2` or `avx512`. A level the processor does not have,
/// or an unknown name, falls back to the best one there is; `annoy_version()` tells which one is in use.
pub const ISA_VARIABLE: &str = "SQLITE_ANNOY_ISA";

/// The level in use in this process, decided once.
pub fn level() -> Level {
    static LEVEL: OnceLock<Level> = OnceLock::new();
    *LEVEL.get_or_init(|| {
        let best = Level::ALL
            .into_iter()
            .rev()
            .find(|l| l.is_available())
            .unwrap_or(Level::Portable);
        match std::env::var(ISA_VARIABLE) {
            Ok(name) => Level::ALL
                .into_iter()
                .find(|l| l.name() == name && l.is_available())
                .unwrap_or(best),
            Err(_) => best,
        }
    })
}
