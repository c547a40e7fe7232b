//! A damaged or hostile index file: opened, verified, asked in every way there is. Nothing may panic, read outside the
//! bytes or allocate without measure; a file that `verify` takes answers exact searches as a loop over its vectors does.
#![no_main]

use std::sync::LazyLock;

use libfuzzer_sys::arbitrary::{self, Arbitrary};
use libfuzzer_sys::fuzz_target;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use rustc_hash::FxHashSet;
use sqlite_annoy::forest::{
    Ask, Budget, BuildOptions, Bytes, Forest, Hit, RowSet, Scratch, Stats, VectorStore, Vectors,
    build, build_exact,
};
use sqlite_annoy::job::Job;
use sqlite_annoy::vector::{Metric, exact};
use sqlite_annoy_fuzz::{Edit, Parts};

#[derive(Debug, Arbitrary)]
struct Case {
    base: u8,
    /// Edits of a part each, with checksums that are right afterwards; otherwise of the file.
    sealed: bool,
    edits: Vec<(u8, Edit)>,
    query: u8,
    k: u64,
    search_k: u64,
    recall: f32,
    within: f64,
    hidden: Vec<i8>,
    among: Option<Vec<i16>>,
    scan_lists: bool,
    threads: bool,
}

fn rows(dim: usize, n: usize, kind: usize) -> Vec<f32> {
    let mut random = StdRng::seed_from_u64((dim * 1000 + n) as u64);
    (0..dim * n)
        .map(|i| match kind {
            0 => random.random_range(-1.0f32..1.0),
            1 => ((i / dim) % 5) as f32 + random.random_range(-0.1f32..0.1),
            _ => 1.0,
        })
        .collect()
}

static BASES: LazyLock<Vec<Vec<u8>>> = LazyLock::new(|| {
    let mut bases = Vec::new();
    for (i, &(n, dim, trees)) in [
        (0, 3, 1),
        (1, 2, 2),
        (70, 5, 2),
        (200, 3, 1),
        (150, 24, 3),
        (100, 70, 1),
    ]
    .iter()
    .enumerate()
    {
        for metric in [Metric::Cosine, Metric::L2, Metric::Dot] {
            let (rows, ids) = (
                rows(dim, n, i % 3),
                (0..n as i64).map(|id| id * 3 - 50).collect::<Vec<_>>(),
            );
            let vectors = Vectors {
                dim,
                ids: &ids,
                rows: &rows,
            };
            let options = BuildOptions {
                metric,
                trees,
                seed: 1,
                threads: 1,
                store: VectorStore::F32,
            };
            let build = if i % 2 == 1 { build_exact } else { build };
            bases.push(
                build(&vectors, &options, &Job::new())
                    .unwrap()
                    .to_bytes()
                    .as_ref()
                    .to_vec(),
            );
        }
    }
    bases
});

fn damaged(case: &Case) -> Vec<u8> {
    let mut file = BASES[usize::from(case.base) % BASES.len()].clone();
    if case.sealed {
        let mut parts = Parts::of(&file);
        for (part, edit) in &case.edits {
            let part = usize::from(*part) % parts.0.len();
            edit.apply(&mut parts.0[part]);
        }
        return parts.file();
    }
    for (_, edit) in &case.edits {
        edit.apply(&mut file);
    }
    file
}

fn bits(hits: &[Hit]) -> Vec<(i64, u64)> {
    hits.iter()
        .map(|h| (h.rowid, (h.distance + 0.0).to_bits()))
        .collect()
}

fuzz_target!(|case: Case| {
    let bytes = Bytes::new(&damaged(&case));
    let Ok(forest) = Forest::open(bytes) else {
        return;
    };
    let n = forest.len();
    let dim = forest.dim();
    let is_whole = forest.verify_sections(1 << 20).is_ok() && forest.verify().is_ok();
    let _ = (
        forest.info(),
        forest.curve(),
        forest.checksum(),
        forest.plane_bytes(),
    );
    assert!(forest.spread(usize::from(case.query)).count() <= usize::from(case.query).max(2));
    for id in [i64::MIN, -50, 0, 1, 250, i64::MAX] {
        let _ = (forest.contains(id), forest.vector_of(id));
    }

    let query: Vec<f32> = match case.query {
        0 => vec![0.0; dim],
        1 => vec![1.0; dim + 1],
        2 => vec![f32::MAX; dim],
        q => (0..dim)
            .map(|i| ((i * 7 + usize::from(q)) % 13) as f32 - 6.0)
            .collect(),
    };
    let k = usize::try_from(case.k).unwrap();
    let hidden: FxHashSet<i64> = case.hidden.iter().map(|&id| i64::from(id)).collect();
    let among = case
        .among
        .as_ref()
        .map(|ids| RowSet::new(ids.iter().map(|&id| i64::from(id)).collect()));
    let ask = Ask {
        k,
        within: if case.within.is_nan() {
            f64::INFINITY
        } else {
            case.within
        },
        threads: 1 + usize::from(case.threads),
        hidden: &hidden,
        among: among.as_ref(),
        scan_lists: case.scan_lists,
        originals: None,
    };
    let (mut scratch, mut stats) = (Scratch::default(), Stats::default());
    for budget in [
        Budget::Default,
        Budget::Recall(case.recall),
        Budget::SearchK(case.search_k as usize),
    ] {
        let hits = forest.search_with(&query, budget, &ask, &mut scratch, &mut stats);
        assert!(hits.len() <= k);
        let many = forest.search_many(&[&query, &query], budget, &ask, &mut stats);
        assert!(many.len() == 2 && many[0].len() <= k);
    }
    let hits = forest.exact_with(&query, &ask, &mut scratch, &mut stats);
    let many = forest.exact_many(&[&query, &query, &query], &ask, &mut stats);
    assert!(hits.len() <= k && many.len() == 3);
    if is_whole && query.len() == dim {
        let mut truth: Vec<Hit> = (forest.ids().iter())
            .filter(|&&id| ask.filter().admits(id))
            .map(|&rowid| Hit {
                rowid,
                distance: exact::distance(
                    forest.metric(),
                    &query,
                    &forest.vector_of(rowid).unwrap(),
                ),
            })
            .filter(|hit| hit.distance <= ask.within)
            .collect();
        truth.sort_by(|a, b| {
            a.distance
                .total_cmp(&b.distance)
                .then(a.rowid.cmp(&b.rowid))
        });
        truth.truncate(k);
        assert!(truth.len() <= n);
        assert_eq!(bits(&hits), bits(&truth), "one query");
        assert!(
            many.iter().all(|hits| bits(hits) == bits(&truth)),
            "several queries"
        );
    }
});
