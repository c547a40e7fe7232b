//! Arrays in memory, or in files without a name when memory is bounded.
//!
//! Such a file is mapped, so that reading it looks as reading memory does, and the system keeps of it what there is room
//! for: work on more than memory holds goes at the speed of the disk, as long as it goes through its arrays in order. The
//! file has no name (where the system allows it; elsewhere it goes with the last who has it open), so an error or a crash leaves
//! nothing behind. Its blocks are allocated before it is mapped: a disk that is full is an error then, not a fault later.
//!
//! A page that is not there brings its surroundings along, megabytes of them on some systems. That is what work in order wants,
//! and ruin for work in any order under a limit that counts pages of files: each page throws out a thousand others. Such work
//! says so ([`Array::scatter`]), and asks for what it will need before it needs it ([`Array::bring`], [`Array::bring_rows`]).
//!
//! What is only copied is read and written ([`Array::read`], [`Array::write`]) instead of looked at: each page that has been looked
//! at through a map is a fault, and interrupts all processors when it is to be written or taken away.

#![allow(unsafe_code)]

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::ops::{Deref, DerefMut, Range};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use anyhow::{Context, Result, bail};
use bytemuck::Pod;
use memmap2::MmapMut;

/// Bytes after which what was written goes to the disk. Under a limit that counts the pages of files, those that wait to be written
/// would fill it, and whoever needs the next page wait for them one by one.
pub(crate) const WRITTEN: usize = 32 << 20;

/// Where large arrays are to lie.
#[derive(Debug, Clone, Default)]
pub struct Spill {
    to: Option<(PathBuf, usize)>,
}

impl Spill {
    /// In memory.
    #[must_use]
    pub fn memory() -> Self {
        Self::default()
    }

    /// In files in this folder, by work that keeps to about `memory` bytes of its own.
    #[must_use]
    pub fn files(folder: PathBuf, memory: usize) -> Self {
        Spill {
            to: Some((folder, memory)),
        }
    }

    /// How many bytes the work may keep; `None`: its arrays are in memory.
    pub(crate) fn limit(&self) -> Option<usize> {
        self.to.as_ref().map(|to| to.1)
    }

    /// How many records of so many bytes to write until they go to the disk ([`Array::flush`]); in memory all of `n`.
    pub(crate) fn batch(&self, n: usize, bytes: usize) -> usize {
        match self.limit() {
            None => n.max(1),
            Some(_) => (WRITTEN / bytes.max(1)).max(1),
        }
    }

    /// `n` zeros.
    ///
    /// # Errors
    /// When there is no memory, or the disk has no room.
    pub fn zeros<T: Pod>(&self, n: usize) -> Result<Array<'static, T>> {
        let mut array = self.reserve(n)?;
        match &mut array {
            Array::Memory(all) => all.resize(n, T::zeroed()),
            Array::File(_, len) => *len = n,
            Array::Borrowed(_) => {}
        }
        Ok(array)
    }

    /// Nothing yet, with room for `n`.
    ///
    /// # Errors
    /// As [`Spill::zeros`].
    pub fn reserve<T: Pod>(&self, n: usize) -> Result<Array<'static, T>> {
        let bytes = n
            .checked_mul(size_of::<T>())
            .filter(|&bytes| bytes <= isize::MAX as usize);
        let bytes = bytes.context("more numbers than any memory has")?;
        match &self.to {
            Some((folder, _)) if bytes > 0 => Ok(Array::File(map(folder, bytes)?, 0)),
            _ => {
                let mut all = Vec::new();
                all.try_reserve_exact(n).with_context(|| {
                    format!(
                        "not enough memory for {bytes} bytes: the option max_memory lets a file hold them"
                    )
                })?;
                Ok(Array::Memory(all))
            }
        }
    }
}

/// Numbers in a row: borrowed, in memory, or the first so many of a file.
#[derive(Debug)]
pub enum Array<'a, T> {
    /// Somebody else's.
    Borrowed(&'a [T]),
    /// In memory.
    Memory(Vec<T>),
    /// In a file.
    File(Mapped, usize),
}

/// A file without a name, and its map.
#[derive(Debug)]
pub struct Mapped {
    map: MmapMut,
    /// Of systems whose maps and reads are of the same pages.
    #[cfg(any(target_os = "linux", target_vendor = "apple"))]
    file: File,
}

impl<T> Default for Array<'_, T> {
    fn default() -> Self {
        Array::Memory(Vec::new())
    }
}

impl<T: Pod> Array<'_, T> {
    /// Adds some at the end.
    ///
    /// # Errors
    /// When they are more than there was room reserved for, in a file, or may not be changed.
    pub fn extend(&mut self, more: &[T]) -> Result<()> {
        match self {
            Array::Memory(all) => {
                all.try_reserve(more.len()).context("not enough memory")?;
                all.extend_from_slice(more);
            }
            Array::File(Mapped { map, .. }, len) => {
                let room = bytemuck::cast_slice_mut::<u8, T>(map).get_mut(*len..*len + more.len());
                room.context("there are more rows than were counted before")?
                    .copy_from_slice(more);
                *len += more.len();
                let (end, size) = (*len * size_of::<T>(), size_of_val(more));
                if end / WRITTEN != (end - size) / WRITTEN {
                    flush(map, (end / WRITTEN - 1) * WRITTEN..end)?;
                }
            }
            Array::Borrowed(_) => bail!("these numbers belong to somebody else"),
        }
        Ok(())
    }

    /// Has what was written reach the disk.
    ///
    /// # Errors
    /// Those of the disk.
    pub(crate) fn flush(&self) -> Result<()> {
        match self {
            Array::File(Mapped { map, .. }, _) => flush(map, 0..map.len()),
            _ => Ok(()),
        }
    }

    /// Copies the numbers from place `at` on.
    ///
    /// # Errors
    /// Those of the disk.
    pub(crate) fn read(&self, at: usize, out: &mut [T]) -> Result<()> {
        let these = at..at + out.len();
        #[cfg(any(target_os = "linux", target_vendor = "apple"))]
        if let Array::File(Mapped { file, .. }, len) = self {
            use std::os::unix::fs::FileExt;
            assert!(these.end <= *len);
            return file
                .read_exact_at(bytemuck::cast_slice_mut(out), offset::<T>(at))
                .context("cannot read a temporary file");
        }
        out.copy_from_slice(&self[these]);
        Ok(())
    }

    /// Puts numbers at place `at` and those after it.
    ///
    /// # Errors
    /// Those of the disk.
    pub(crate) fn write(&mut self, at: usize, numbers: &[T]) -> Result<()> {
        let these = at..at + numbers.len();
        #[cfg(any(target_os = "linux", target_vendor = "apple"))]
        if let Array::File(Mapped { file, .. }, len) = self {
            use std::os::unix::fs::FileExt;
            assert!(these.end <= *len);
            return file
                .write_all_at(bytemuck::cast_slice(numbers), offset::<T>(at))
                .context("cannot write a temporary file");
        }
        self[these].copy_from_slice(numbers);
        Ok(())
    }

    /// Asks the system to read these from the disk now: they are about to be used in any order.
    pub(crate) fn bring(&self, range: Range<usize>) {
        #[cfg(unix)]
        if let Array::File(Mapped { map, .. }, len) = self {
            let end = range.end.min(*len);
            let range = range.start.min(end) * size_of::<T>()..end * size_of::<T>();
            // Advice: nothing depends on it.
            for piece in pieces(range) {
                let _ = map.advise_range(memmap2::Advice::WillNeed, piece.start, piece.len());
            }
        }
        #[cfg(not(unix))]
        let _ = range;
    }

    /// The same for rows of `width` numbers, whose places ascend; what lies between two that are close comes along.
    pub(crate) fn bring_rows(&self, places: &[u32], width: usize) {
        const CLOSE: usize = 1 << 16;
        let close = (CLOSE / (width * size_of::<T>()).max(1)) as u32;
        if let Array::File(..) = self {
            for run in places.chunk_by(|a, b| b - a <= close) {
                self.bring(run[0] as usize * width..(run[run.len() - 1] as usize + 1) * width);
            }
        }
    }

    /// Whether the numbers will be read and written in any order, or (as at first) in their own.
    pub(crate) fn scatter(&self, in_any_order: bool) {
        #[cfg(unix)]
        if let Array::File(Mapped { map, .. }, _) = self {
            // Advice again.
            let _ = map.advise(if in_any_order {
                memmap2::Advice::Random
            } else {
                memmap2::Advice::Normal
            });
        }
        #[cfg(not(unix))]
        let _ = in_any_order;
    }
}

impl<T: Pod> Deref for Array<'_, T> {
    type Target = [T];

    fn deref(&self) -> &[T] {
        match self {
            Array::Borrowed(all) => all,
            Array::Memory(all) => all,
            Array::File(Mapped { map, .. }, len) => &bytemuck::cast_slice(map)[..*len],
        }
    }
}

impl<T: Pod> DerefMut for Array<'_, T> {
    /// Borrowed numbers are copied first.
    fn deref_mut(&mut self) -> &mut [T] {
        if let Array::Borrowed(all) = self {
            *self = Array::Memory(all.to_vec());
        }
        match self {
            Array::Borrowed(_) => &mut [],
            Array::Memory(all) => all,
            Array::File(Mapped { map, .. }, len) => &mut bytemuck::cast_slice_mut(map)[..*len],
        }
    }
}

#[cfg(any(target_os = "linux", target_vendor = "apple"))]
fn offset<T>(at: usize) -> u64 {
    (at * size_of::<T>()) as u64
}

fn flush(map: &MmapMut, range: Range<usize>) -> Result<()> {
    map.flush_range(range.start, range.len())
        .context("cannot write a temporary file")
}

/// A range in pieces to ask the system for: of one request, Linux reads as much as the read-ahead of the disk, and no more.
#[cfg(unix)]
pub(crate) fn pieces(range: Range<usize>) -> impl Iterator<Item = Range<usize>> {
    const PIECE: usize = 128 << 10;
    let end = range.end;
    range.step_by(PIECE).map(move |at| at..end.min(at + PIECE))
}

/// A map of `bytes` zeros in a new file.
fn map(folder: &Path, bytes: usize) -> Result<Mapped> {
    let file = nameless(folder)?;
    allocate(&file, bytes as u64).with_context(|| {
        format!(
            "cannot get {bytes} bytes for a temporary file in {}: free room there",
            folder.display()
        )
    })?;
    Ok(Mapped {
        map: map_file(&file).context("cannot map a temporary file")?,
        #[cfg(any(target_os = "linux", target_vendor = "apple"))]
        file,
    })
}

/// Maps a file that [`nameless`] has made.
pub(crate) fn map_file(file: &File) -> io::Result<MmapMut> {
    // SAFETY: nobody else has this file: it was created anew, and has no name any more or one that only we know. So
    // nobody changes or shortens it under the map.
    unsafe { MmapMut::map_mut(file) }
}

/// Makes a file so long, of zeros that have their place on the disk.
fn allocate(mut file: &File, bytes: u64) -> io::Result<()> {
    match fs4::FileExt::allocate(file, bytes) {
        Ok(()) => {}
        Err(error) if error.kind() == io::ErrorKind::StorageFull => return Err(error),
        // Not every file system can.
        Err(_) => {
            let zeros = vec![0; 1 << 20];
            let mut left = bytes;
            while left > 0 {
                let some = left.min(zeros.len() as u64);
                file.write_all(&zeros[..some as usize])?;
                left -= some;
            }
        }
    }
    let length = file.metadata()?.len();
    if length < bytes {
        file.set_len(bytes)?;
    }
    Ok(())
}

/// A new file in a folder, which goes away with the last who has it open.
pub(crate) fn nameless(folder: &Path) -> Result<File> {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    for _ in 0..1000 {
        let path = folder.join(format!(
            "sqlite-annoy-{}-{}.spill",
            std::process::id(),
            NEXT.fetch_add(1, Ordering::Relaxed)
        ));
        let mut options = OpenOptions::new();
        options.read(true).write(true).create_new(true);
        #[cfg(unix)]
        {
            use std::os::unix::fs::OpenOptionsExt;
            options.mode(0o600);
        }
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
            Err(e) if e.kind() == io::ErrorKind::AlreadyExists => {}
            Err(e) => {
                return Err(e).with_context(|| {
                    format!(
                        "can't create {}: its folder must be one that can be written",
                        path.display()
                    )
                });
            }
        }
    }
    bail!("no free name for a temporary file in {}", folder.display())
}

/// The folder for temporary files, as SQLite chooses it: /tmp comes last, because it is often memory.
pub(crate) fn temporary_folder() -> PathBuf {
    let given = ["SQLITE_TMPDIR", "TMPDIR"]
        .iter()
        .filter_map(std::env::var_os)
        .map(PathBuf::from);
    given
        .chain([PathBuf::from("/var/tmp")])
        .find(|path| path.is_dir())
        .unwrap_or_else(std::env::temp_dir)
}
