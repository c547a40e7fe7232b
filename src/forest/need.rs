//! What a build will need, told before it begins: memory if all lies there, the least memory otherwise, and disk.
//!
//! Estimates, on the safe side: how many leaves there will be, and how full, nobody knows before the rows are divided.

use super::build::{BuildOptions, leaf_size};
use super::originals::VectorStore;
use super::space::{Factors, work_dim};
use super::{calibrate, lists};
use crate::kernel::scan::BLOCK;
use crate::kernel::{codes, nibble};

/// Bytes that a build needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Need {
    /// Memory, when everything is kept there.
    pub memory: u64,
    /// Memory, when what is large lies in files ([`crate::spill::Spill`]).
    pub least_memory: u64,
    /// Disk, at most and at the same time, for these files and the index file.
    pub disk: u64,
}

/// What the threads and their libraries take, however few rows there are.
const ALWAYS: u64 = 4 << 20;
/// Numbers of a row that are always in memory, in bytes: where it lies, its place in the order, its leaf, its second leaf,
/// and its places in the lists.
const OF_ROW: u64 = 36;

impl Need {
    /// For `n` vectors of `dim` components.
    #[must_use]
    pub fn new(n: usize, dim: usize, options: &BuildOptions) -> Need {
        let work = work_dim(options.metric, dim);
        let kind = lists::kind(n, work);
        let leaves = 3 * n.div_ceil(leaf_size(n, kind)) as u64;
        let (n, trees) = (n as u64, u64::from(options.trees));
        let record = n * (codes::stride(work) + size_of::<Factors>()) as u64;
        let plane = n.next_multiple_of(nibble::ROWS as u64) * nibble::block_bytes(work) as u64
            / nibble::ROWS as u64;
        let lists = kind.map_or(0, |(bits, copies)| {
            let slots = n * copies as u64 + leaves * BLOCK as u64 / 2;
            slots * (bits.block_bytes(work) / BLOCK + 4) as u64
        });
        let vectors = n * 4 * dim as u64;
        let stored = vectors / 4 * options.store.width() as u64;
        let of_leaves = leaves * (codes::stride(work) + 28) as u64 * trees;
        let of_rows = n * (12 + 4 * (trees - 1));
        let file = stored + record + plane + lists + of_rows + of_leaves + (1 << 12);
        // The leaves of each replay of the calibration, about as many as a search ranks.
        let replays = kind.map_or(0, |_| {
            let in_order =
                calibrate::leaves_in_order(leaves as usize, leaves as usize * 45 / 100, n as usize);
            8 * in_order as u64
        });
        let centroids = leaves * 6 * work as u64;
        let least_memory = ALWAYS + n * (OF_ROW + 4 * trees) + of_leaves + centroids + replays;
        // While lists are made the codes are there twice, and while vectors are brought into the order of the file, those;
        // when the file is written, all that is in it is still there.
        let arranged = match options.store {
            VectorStore::None => 0,
            _ => vectors,
        };
        let kept = of_rows + record + plane + lists;
        let disk = (vectors + record + kept).max(vectors + arranged + kept + plane);
        Need {
            memory: least_memory + vectors + kept + plane,
            least_memory,
            disk: disk.max(arranged + kept + file),
        }
    }
}
