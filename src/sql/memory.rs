//! `annoy_memory()`: one row with the memory of this process, and how much of it index files take.
//!
//! All numbers are bytes, from /proc/self/smaps. `rss` is what is in RAM; `pss` counts a page that n processes share
//! as 1/n; `private` is what this process alone has. `mapped` is the size of all index files it has mapped,
//! `mapped_rss` what of them is in RAM, `mapped_private` what of that this process does not share: near zero,
//! because an index file is mapped read-only and so belongs to everybody who maps it. Systems without smaps give NULL.

use anyhow::Result;
use rusqlite::types::Value;

use super::vtab::function::{Function, Scope};

pub(super) struct Memory;

impl Function for Memory {
    const NAME: &'static str = "annoy_memory";
    const COLUMNS: &'static [&'static str] = &[
        "pid INTEGER",
        "rss INTEGER",
        "pss INTEGER",
        "private INTEGER",
        "mapped INTEGER",
        "mapped_rss INTEGER",
        "mapped_private INTEGER",
    ];
    const ARGUMENTS: &'static [&'static str] = &[];
    const REQUIRED: usize = 0;
    const ROWS: i64 = 1;
    type Rows = std::iter::Once<Result<Vec<Value>>>;

    fn call(_scope: &Scope, _args: &[Value]) -> Result<Self::Rows> {
        let usage = std::fs::read_to_string("/proc/self/smaps")
            .ok()
            .map(|smaps| usage(&smaps));
        let bytes =
            |part: fn(&Usage) -> i64| usage.as_ref().map_or(Value::Null, |u| part(u).into());
        Ok(std::iter::once(Ok(vec![
            i64::from(std::process::id()).into(),
            bytes(|u| u.all.rss),
            bytes(|u| u.all.pss),
            bytes(|u| u.all.private),
            bytes(|u| u.indexes.size),
            bytes(|u| u.indexes.rss),
            bytes(|u| u.indexes.private),
        ])))
    }
}

/// Bytes of some mappings.
#[derive(Debug, Default, PartialEq, Eq)]
struct Sum {
    size: i64,
    rss: i64,
    pss: i64,
    private: i64,
}

/// Bytes of all mappings of a process, and of those that are index files.
#[derive(Debug, Default, PartialEq, Eq)]
struct Usage {
    all: Sum,
    indexes: Sum,
}

/// Adds up the text of /proc/self/smaps: for each mapping a line `address-address mode offset device inode path`, then
/// lines `Name:  number kB`.
fn usage(smaps: &str) -> Usage {
    let mut usage = Usage::default();
    let mut is_index = false;
    for line in smaps.lines() {
        let mut words = line.split_ascii_whitespace();
        let (Some(first), second) = (words.next(), words.next()) else {
            continue;
        };
        let Some(name) = first.strip_suffix(':') else {
            let path = line.strip_suffix(" (deleted)").unwrap_or(line);
            is_index = path.ends_with(".annoy");
            continue;
        };
        let Some(bytes) = second.and_then(|n| n.parse::<i64>().ok()).map(|n| n * 1024) else {
            continue;
        };
        let add = |sum: &mut Sum| match name {
            "Size" => sum.size += bytes,
            "Rss" => sum.rss += bytes,
            "Pss" => sum.pss += bytes,
            "Private_Clean" | "Private_Dirty" => sum.private += bytes,
            _ => {}
        };
        add(&mut usage.all);
        if is_index {
            add(&mut usage.indexes);
        }
    }
    usage
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn index_files_are_told_from_all_other_mappings() {
        let smaps = "\
7f00-7f10 r--s 00000000 fe:01 42                         /tmp/my app.db-words_index-1.annoy
Size:                 64 kB
KernelPageSize:        4 kB
Rss:                  40 kB
Pss:                  20 kB
Private_Clean:         4 kB
Private_Dirty:         0 kB
VmFlags: rd mr me ms sd
7f20-7f30 r--s 00000000 fe:01 43                         /tmp/app.db-words_index-0.annoy (deleted)
Size:                  8 kB
Rss:                   8 kB
Pss:                   8 kB
Private_Clean:         8 kB
7f40-7f50 rw-p 00000000 00:00 0
Size:                100 kB
Rss:                 100 kB
Pss:                 100 kB
Private_Dirty:       100 kB
";
        let kb = |size: i64, rss: i64, pss: i64, private: i64| Sum {
            size: size * 1024,
            rss: rss * 1024,
            pss: pss * 1024,
            private: private * 1024,
        };
        assert_eq!(
            usage(smaps),
            Usage {
                all: kb(172, 148, 128, 112),
                indexes: kb(72, 48, 28, 12),
            }
        );
    }
}
