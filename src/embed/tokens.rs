//! The ids of a corpus: in memory, or in a temporary file once they need more memory than allowed.
//!
//! The file has no name (where the system allows it; elsewhere it goes with the last who has it open) and is mapped, so
//! that reading it looks as reading memory does, and the system keeps of it what there is room for: a corpus larger than
//! memory trains at the speed of the disk.

#![allow(unsafe_code)]

use std::fs::{File, OpenOptions};
use std::io::Write;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};

use anyhow::{Context, Result, bail};
use memmap2::MmapMut;

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
            none => none.insert(temporary_file()?),
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
        // SAFETY: nobody else has this file: it was created anew, and has no name any more or one that only we know.
        // So nobody changes or shortens it under the mapping.
        let map = unsafe { MmapMut::map_mut(file) }
            .context("can't map the temporary file of the corpus")?;
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

/// A new file in SQLite's directory for temporary files, which goes away with the last who has it open.
fn temporary_file() -> Result<File> {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    let directory = directory();
    for _ in 0..1000 {
        let path = directory.join(format!(
            "sqlite-annoy-{}-{}.corpus",
            std::process::id(),
            NEXT.fetch_add(1, Ordering::Relaxed)
        ));
        let mut options = OpenOptions::new();
        options.read(true).write(true).create_new(true);
        #[cfg(windows)]
        {
            use std::os::windows::fs::OpenOptionsExt;
            // FILE_FLAG_DELETE_ON_CLOSE
            options.custom_flags(0x0400_0000);
        }
        match options.open(&path) {
            Ok(file) => {
                #[cfg(not(windows))]
                std::fs::remove_file(&path)
                    .with_context(|| format!("can't remove {}", path.display()))?;
                return Ok(file);
            }
            Err(e) if e.kind() == std::io::ErrorKind::AlreadyExists => {}
            Err(e) => {
                return Err(e).with_context(|| {
                    format!(
                        "can't create {}: set SQLITE_TMPDIR to a directory that can be written",
                        path.display()
                    )
                });
            }
        }
    }
    bail!(
        "no free name for a temporary file in {}",
        directory.display()
    )
}

/// As SQLite chooses: /tmp comes last, because it is often memory.
fn directory() -> PathBuf {
    let given = ["SQLITE_TMPDIR", "TMPDIR"]
        .iter()
        .filter_map(std::env::var_os)
        .map(PathBuf::from);
    given
        .chain([PathBuf::from("/var/tmp")])
        .find(|path| path.is_dir())
        .unwrap_or_else(std::env::temp_dir)
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
