//! The ids of a corpus: in memory, or in a temporary file once they need more memory than allowed.
//!
//! The file is mapped ([`crate::spill`]): a corpus larger than memory trains at the speed of the disk.

use std::fs::File;
use std::io::Write;

use anyhow::{Context, Result, bail};
use memmap2::MmapMut;

use crate::spill;

/// Ids that are still being collected.
#[derive(Debug)]
pub(super) struct Collecting {
    ids: Vec<u32>,
    /// Most ids in memory.
    limit: usize,
    file: Option<File>,
    n_in_file: usize,
}

/// All ids.
#[derive(Debug)]
pub(super) enum Tokens {
    Memory(Vec<u32>),
    /// The ids in the file, and how many of them count.
    File(MmapMut, usize),
}

impl Collecting {
    /// Keeps at most `max_memory` MiB in memory; all, without a limit.
    pub(super) fn new(max_memory: Option<usize>) -> Collecting {
        Collecting {
            ids: Vec::new(),
            limit: max_memory.map_or(usize::MAX, |mib| mib.saturating_mul((1 << 20) / 4)),
            file: None,
            n_in_file: 0,
        }
    }

    pub(super) fn len(&self) -> usize {
        self.n_in_file + self.ids.len()
    }

    pub(super) fn extend(&mut self, ids: &[u32]) -> Result<()> {
        if self.ids.len() + ids.len() > self.limit {
            self.write_out()?;
        }
        if self.ids.try_reserve(ids.len()).is_err() {
            bail!(
                "no memory for a corpus of {} tokens: give the option max_memory, and a file will hold it",
                self.len() + ids.len()
            );
        }
        self.ids.extend_from_slice(ids);
        Ok(())
    }

    fn write_out(&mut self) -> Result<()> {
        let file = match &mut self.file {
            Some(file) => file,
            none => none.insert(
                spill::nameless(&spill::temporary_folder())
                    .context("SQLITE_TMPDIR can name another folder")?,
            ),
        };
        file.write_all(bytemuck::cast_slice(&self.ids))
            .context("can't write the corpus to a temporary file: free room in the directory for temporary files, or set SQLITE_TMPDIR to another")?;
        self.n_in_file += self.ids.len();
        self.ids.clear();
        Ok(())
    }

    pub(super) fn finish(mut self) -> Result<Tokens> {
        if self.file.is_none() {
            return Ok(Tokens::Memory(self.ids));
        }
        self.write_out()?;
        let Some(file) = &self.file else {
            bail!("the temporary file of the corpus is gone");
        };
        let map = spill::map_file(file).context("can't map the temporary file of the corpus")?;
        Ok(Tokens::File(map, self.n_in_file))
    }
}

impl Tokens {
    pub(super) fn ids(&self) -> &[u32] {
        match self {
            Tokens::Memory(ids) => ids,
            Tokens::File(map, n) => &bytemuck::cast_slice(map)[..*n],
        }
    }

    pub(super) fn ids_mut(&mut self) -> &mut [u32] {
        match self {
            Tokens::Memory(ids) => ids,
            Tokens::File(map, n) => &mut bytemuck::cast_slice_mut(map)[..*n],
        }
    }

    /// Keeps the first n.
    pub(super) fn truncate(&mut self, n: usize) {
        match self {
            Tokens::Memory(ids) => {
                ids.truncate(n);
                ids.shrink_to_fit();
            }
            Tokens::File(_, len) => *len = n.min(*len),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_does_not_fit_goes_to_a_file_and_is_read_as_memory_is() {
        let all: Vec<u32> = (0..700_000).map(|i| i * 3).collect();
        for max_memory in [None, Some(1), Some(100)] {
            let mut tokens = Collecting::new(max_memory);
            for some in all.chunks(1000) {
                tokens.extend(some).unwrap();
                assert!(tokens.ids.len() <= 1 << 18 || max_memory != Some(1));
            }
            assert_eq!(tokens.len(), all.len());
            let mut tokens = tokens.finish().unwrap();
            assert_eq!(matches!(tokens, Tokens::File(..)), max_memory == Some(1));
            assert_eq!(tokens.ids(), all);
            tokens.ids_mut()[5] = 1;
            tokens.truncate(6);
            assert_eq!(tokens.ids(), [0, 3, 6, 9, 12, 1]);
        }
    }
}
