//! A damaged or hostile file of Annoy: opened under every metric, and all its items read. Nothing may panic, read outside
//! the bytes or allocate without measure; what is handed out is finite, of the right length, and as many as it says.
#![no_main]

use std::sync::LazyLock;

use libfuzzer_sys::arbitrary::{self, Arbitrary};
use libfuzzer_sys::fuzz_target;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use sqlite_annoy::annoy::{self, AnnoyFile, AnnoyMetric, Trees};
use sqlite_annoy::forest::Vectors;
use sqlite_annoy::job::Job;
use sqlite_annoy_fuzz::Edit;

#[derive(Debug, Arbitrary)]
struct Case<'a> {
    base: u8,
    /// Edits of a valid file; otherwise the bytes are the file.
    edits: Option<Vec<Edit>>,
    bytes: &'a [u8],
    /// What the caller says of the file, if it is not what is true of the base.
    dim: Option<u16>,
    metric: Option<u8>,
}

struct Base {
    metric: AnnoyMetric,
    dim: usize,
    ids: Vec<i64>,
    rows: Vec<f32>,
    file: Vec<u8>,
}

static BASES: LazyLock<Vec<Base>> = LazyLock::new(|| {
    let mut bases = Vec::new();
    for metric in AnnoyMetric::ALL {
        // One item, a list, several levels; numbers that are missing; rows that are all alike.
        for (n, dim, trees, apart, alike) in [
            (1, 2, 1, 1, false),
            (5, 3, 2, 1, false),
            (60, 2, 3, 2, false),
            (40, 7, 1, 1, true),
        ] {
            let mut random = StdRng::seed_from_u64(n as u64);
            let rows: Vec<f32> = (0..n * dim)
                .map(|_| match (alike, metric) {
                    (true, _) => 1.0,
                    (false, AnnoyMetric::Hamming) => f32::from(random.random::<bool>()),
                    (false, _) => random.random_range(-1.0f32..1.0),
                })
                .collect();
            let ids: Vec<i64> = (0..n as i64).map(|i| i * apart).collect();
            let mut file = Vec::new();
            let options = Trees {
                metric,
                trees,
                seed: 1,
                threads: 1,
            };
            let vectors = Vectors {
                dim,
                ids: &ids,
                rows: &rows,
            };
            annoy::write(&vectors, &options, &mut file, &Job::new()).unwrap();
            bases.push(Base {
                metric,
                dim,
                ids,
                rows,
                file,
            });
        }
    }
    bases
});

fuzz_target!(|case: Case| {
    let base = &BASES[usize::from(case.base) % BASES.len()];
    let mut edited;
    let bytes = match &case.edits {
        Some(edits) => {
            edited = base.file.clone();
            edits.iter().for_each(|edit| edit.apply(&mut edited));
            edited.as_slice()
        }
        None => case.bytes,
    };
    let dim = case.dim.map_or(base.dim, usize::from);
    let metric = case.metric.map_or(base.metric, |m| {
        AnnoyMetric::ALL[usize::from(m) % AnnoyMetric::ALL.len()]
    });
    let opened = AnnoyFile::open(bytes, dim, metric);
    let is_base = bytes == base.file && dim == base.dim && metric == base.metric;
    let Ok(file) = opened else {
        assert!(!is_base, "a valid file is refused");
        return;
    };
    assert!(file.len() <= file.numbers() && file.numbers() <= bytes.len() && file.dim() == dim);
    let mut items = 0;
    for item in 0..file.numbers() {
        let Some(vector) = file.vector(item) else {
            continue;
        };
        assert!(vector.len() == dim && vector.iter().all(|x| x.is_finite()));
        if is_base {
            let at = base.ids.iter().position(|&id| id == item as i64).unwrap();
            assert_eq!(vector, base.rows[at * dim..][..dim]);
        }
        items += 1;
    }
    assert_eq!(items, file.len());
    assert!(file.vector(file.numbers()).is_none() && file.vector(usize::MAX).is_none());
});
