//! The forest against a plain loop: exact search is the loop, approximate search finds what it should, bytes repeat,
//! and no damage to a file can do harm.

use rustc_hash::FxHashSet;
use sqlite_annoy::forest::{
    Ask, Budget, BuildOptions, Bytes, Forest, Hit, Scratch, Stats, VectorStore, Vectors, build,
};
use sqlite_annoy::job::{Interrupted, Job};
use sqlite_annoy::kernel::{ISA_VARIABLE, Level};
use sqlite_annoy::vector::{Metric, exact};

const METRICS: [Metric; 3] = [Metric::Cosine, Metric::L2, Metric::Dot];

/// SplitMix64, enough for test data.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }
    fn below(&mut self, n: usize) -> usize {
        (self.next() % n as u64) as usize
    }
    fn unit(&mut self) -> f64 {
        (self.next() >> 11) as f64 / (1u64 << 53) as f64
    }
    fn normal(&mut self) -> f32 {
        ((-2.0 * (1.0 - self.unit()).ln()).sqrt() * (std::f64::consts::TAU * self.unit()).cos())
            as f32
    }
    fn vector(&mut self, dim: usize) -> Vec<f32> {
        (0..dim).map(|_| self.normal()).collect()
    }
}

struct Set {
    dim: usize,
    ids: Vec<i64>,
    rows: Vec<f32>,
}

impl Set {
    fn new(dim: usize, rows: Vec<f32>) -> Self {
        Set {
            dim,
            ids: (0..(rows.len() / dim) as i64).collect(),
            rows,
        }
    }
    fn vectors(&self) -> Vectors<'_> {
        Vectors {
            dim: self.dim,
            ids: &self.ids,
            rows: &self.rows,
        }
    }
    fn row(&self, i: usize) -> &[f32] {
        &self.rows[i * self.dim..][..self.dim]
    }
    fn build(&self, metric: Metric, trees: u32) -> Forest<Bytes> {
        let image = build(&self.vectors(), &options(metric, trees, 2), &Job::new()).unwrap();
        let forest = Forest::open(image.to_bytes()).unwrap();
        forest.verify().unwrap();
        forest
    }
    /// The loop that defines the answer.
    fn nearest(&self, metric: Metric, query: &[f32], k: usize) -> Vec<Hit> {
        let mut all: Vec<Hit> = (0..self.ids.len())
            .map(|i| Hit {
                rowid: self.ids[i],
                distance: exact::distance(metric, query, self.row(i)),
            })
            .collect();
        all.sort_by(|a, b| {
            a.distance
                .partial_cmp(&b.distance)
                .unwrap()
                .then(a.rowid.cmp(&b.rowid))
        });
        all.truncate(k);
        all
    }
}

fn options(metric: Metric, trees: u32, threads: usize) -> BuildOptions {
    BuildOptions {
        metric,
        trees,
        seed: 42,
        threads,
        store: VectorStore::F32,
    }
}

/// Rows around a few centres, as embeddings are.
fn clustered(n: usize, dim: usize, seed: u64) -> Set {
    let mut random = Random(seed);
    let centres: Vec<Vec<f32>> = (0..20).map(|_| random.vector(dim)).collect();
    let mut rows = Vec::with_capacity(n * dim);
    for _ in 0..n {
        let centre = &centres[random.below(20)];
        rows.extend(centre.iter().map(|c| c + 0.5 * random.normal()));
    }
    Set::new(dim, rows)
}

/// What CBOW makes of a small corpus: one direction shared by all, little noise, norms over two orders of magnitude.
fn nearly_collinear(n: usize, dim: usize, seed: u64) -> Set {
    let mut random = Random(seed);
    let shared = random.vector(dim);
    let mut rows = Vec::with_capacity(n * dim);
    for _ in 0..n {
        let norm = (2.5 * random.normal()).exp();
        let noise = 0.02 + 0.3 * random.unit() as f32;
        rows.extend(shared.iter().map(|s| norm * (s + noise * random.normal())));
    }
    Set::new(dim, rows)
}

fn bits(hits: &[Hit]) -> Vec<(i64, u64)> {
    // -0 and 0 are one distance.
    hits.iter()
        .map(|h| (h.rowid, (h.distance + 0.0).to_bits()))
        .collect()
}

/// Sets that break bounds and splits.
fn adversarial(random: &mut Random) -> Vec<(String, Set)> {
    let mut sets = Vec::new();
    for dim in [1, 2, 3, 7, 16, 33, 100] {
        for n in [0, 1, 2, 15, 300, 1500] {
            let mut add = |name: &str, f: &mut dyn FnMut(usize) -> Vec<f32>| {
                let rows: Vec<f32> = (0..n).flat_map(f).collect();
                sets.push((format!("{name} {n} x {dim}"), Set::new(dim, rows)));
            };
            let base = random.vector(dim);
            add("all equal", &mut |_| base.clone());
            add("zeros", &mut |_| vec![0.0; dim]);
            add("normal", &mut |_| random.vector(dim));
            add("nine in ten equal", &mut |i| {
                if i % 10 > 0 {
                    base.clone()
                } else {
                    random.vector(dim)
                }
            });
            add("collinear", &mut |i| {
                base.iter().map(|b| b * (i as f32 - 50.0)).collect()
            });
            add("one ulp apart", &mut |i| {
                let mut v = base.clone();
                v[i % dim] = f32::from_bits(v[i % dim].to_bits() + (i % 3) as u32);
                v
            });
            add("huge and tiny norms", &mut |i| {
                let by = [1e30f32, 1.0, 1e-30][i % 3];
                random.vector(dim).iter().map(|x| x * by).collect()
            });
            add("tiny", &mut |_| {
                random.vector(dim).iter().map(|x| x * 1e-30).collect()
            });
            add("denormal", &mut |_| {
                random.vector(dim).iter().map(|x| x * 1e-40).collect()
            });
            add("huge", &mut |_| {
                random.vector(dim).iter().map(|x| x * 1e30).collect()
            });
            add("one huge dimension", &mut |_| {
                let mut v = random.vector(dim);
                v[0] *= 1e6;
                v
            });
            add("far away", &mut |_| {
                random.vector(dim).iter().map(|x| x + 1e5).collect()
            });
            add("zeros among others", &mut |i| {
                if i % 4 == 0 {
                    vec![0.0; dim]
                } else {
                    random.vector(dim)
                }
            });
        }
    }
    sets
}

#[test]
fn exact_search_is_the_plain_loop_bit_for_bit_on_sets_made_to_break_it() {
    let seed = 20261122;
    let mut random = Random(seed);
    let (mut scratch, none) = (Scratch::default(), FxHashSet::default());
    let sets = adversarial(&mut random);
    for (name, set) in &sets {
        for metric in METRICS {
            let forest = set.build(metric, 2);
            let n = set.ids.len();
            for trial in 0..12 {
                let mut query = match trial % 4 {
                    0 | 1 if n > 0 => set.row(random.below(n)).to_vec(),
                    2 if n > 0 => set
                        .row(random.below(n))
                        .iter()
                        .map(|x| x * 1.5 + 1e-3)
                        .collect(),
                    _ => random.vector(set.dim),
                };
                if trial == 7 {
                    query.fill(0.0);
                }
                if trial == 11 {
                    query.iter_mut().for_each(|x| *x *= 1e30);
                }
                for k in [1, 10, n + 1] {
                    let got = forest.exact(&query, k, &none, &mut scratch);
                    let want = set.nearest(metric, &query, k);
                    assert_eq!(
                        bits(&got),
                        bits(&want),
                        "{name}, {metric:?}, k {k}, trial {trial}, seed {seed}"
                    );
                    let all =
                        forest.search(&query, k, Budget::SearchK(usize::MAX), &none, &mut scratch);
                    assert_eq!(
                        bits(&all),
                        bits(&want),
                        "{name}, {metric:?}, search_k without end"
                    );
                }
            }
        }
    }
}

#[test]
fn search_with_a_budget_of_all_rows_but_one_is_exact_within_the_leaves_it_looks_at() {
    let set = clustered(3000, 24, 5);
    let (mut scratch, none) = (Scratch::default(), FxHashSet::default());
    for metric in METRICS {
        for trees in [1, 4] {
            let forest = set.build(metric, trees);
            for i in (0..3000).step_by(97) {
                let got = forest.search(set.row(i), 10, Budget::SearchK(2999), &none, &mut scratch);
                assert_eq!(bits(&got), bits(&set.nearest(metric, set.row(i), 10)));
            }
        }
    }
}

#[test]
fn every_row_finds_itself_first_at_annoys_default_budget_for_any_number_of_trees() {
    let (mut scratch, none) = (Scratch::default(), FxHashSet::default());
    for set in [nearly_collinear(2500, 40, 9), clustered(2500, 40, 9)] {
        for metric in [Metric::Cosine, Metric::L2] {
            for trees in [1, 2, 7, 30] {
                let forest = set.build(metric, trees);
                for i in 0..set.ids.len() {
                    let budget = Budget::SearchK(trees as usize);
                    let hits = forest.search(set.row(i), 1, budget, &none, &mut scratch);
                    assert_eq!(hits[0].rowid, i as i64, "{metric:?}, {trees} trees");
                }
            }
        }
    }
}

#[test]
fn of_several_trees_two_leaves_are_searched_at_least_however_small_the_budget() {
    let set = clustered(2500, 40, 11);
    let none = FxHashSet::default();
    let ask = Ask::nearest(10, &none);
    for (trees, least) in [(1, 1), (2, 2), (9, 2)] {
        let forest = set.build(Metric::Cosine, trees);
        for i in (0..set.ids.len()).step_by(100) {
            let mut stats = Stats::default();
            let mut scratch = Scratch::default();
            let _ = forest.search_with(
                set.row(i),
                Budget::SearchK(1),
                &ask,
                &mut scratch,
                &mut stats,
            );
            assert_eq!(stats.leaves, least, "{trees} trees, row {i}");
        }
    }
}

#[test]
fn nearly_collinear_vectors_split_soundly_and_more_trees_find_more() {
    let set = nearly_collinear(8000, 60, 3);
    let (mut scratch, none) = (Scratch::default(), FxHashSet::default());
    let mut before = 0.0;
    for trees in [1, 5, 20] {
        let forest = set.build(Metric::Cosine, trees);
        let info = forest.info();
        assert!(info.degenerate_splits * 100 < info.splits, "{info:?}");
        let mut found = 0;
        for i in 0..40 {
            let query = set.row(i * 200);
            let want: FxHashSet<i64> = set
                .nearest(Metric::Cosine, query, 100)
                .iter()
                .map(|h| h.rowid)
                .collect();
            let hits = forest.search(
                query,
                100,
                Budget::SearchK(100 * trees as usize),
                &none,
                &mut scratch,
            );
            found += hits.iter().filter(|h| want.contains(&h.rowid)).count();
        }
        let recall = found as f64 / 4000.0;
        assert!(
            recall > before,
            "{trees} trees: recall {recall} after {before}"
        );
        before = recall;
    }
}

#[test]
fn recall_on_clustered_data_has_a_floor() {
    let set = clustered(20_000, 64, 11);
    let (mut scratch, none) = (Scratch::default(), FxHashSet::default());
    for metric in METRICS {
        let forest = set.build(metric, 1);
        let (mut few, mut default) = (0, 0);
        for i in 0..100 {
            let mut random = Random(i);
            let query: Vec<f32> = set
                .row(i as usize * 7)
                .iter()
                .map(|x| x + 0.3 * random.normal())
                .collect();
            let want: FxHashSet<i64> = set
                .nearest(metric, &query, 10)
                .iter()
                .map(|h| h.rowid)
                .collect();
            let mut count = |budget| {
                let hits = forest.search(&query, 10, budget, &none, &mut scratch);
                hits.iter().filter(|h| want.contains(&h.rowid)).count()
            };
            few += count(Budget::SearchK(1000));
            default += count(Budget::Default);
        }
        assert!(
            few >= 800,
            "{metric:?}: {few} of 1000 in a twentieth of the rows"
        );
        assert!(default >= 930, "{metric:?}: {default} of 1000 by default");
    }
}

#[test]
fn the_bytes_do_not_depend_on_threads() {
    let set = clustered(5000, 33, 2);
    for metric in METRICS {
        let bytes = |threads| {
            let image = build(&set.vectors(), &options(metric, 3, threads), &Job::new()).unwrap();
            image.to_bytes().as_ref().to_vec()
        };
        let one = bytes(1);
        assert!(one == bytes(2) && one == bytes(5), "{metric:?}");
    }
}

#[test]
fn hidden_rows_are_not_returned_and_leave_room_for_others() {
    let mut set = clustered(2000, 16, 8);
    // Negative and sparse rowids.
    set.ids = (0..2000).map(|i| (i - 1000) * 1_000_000_000_007).collect();
    let forest = set.build(Metric::L2, 2);
    let mut scratch = Scratch::default();
    let query = set.row(77).to_vec();
    let all = set.nearest(Metric::L2, &query, 30);
    let hidden: FxHashSet<i64> = all.iter().step_by(3).map(|h| h.rowid).collect();
    let want: Vec<Hit> = all
        .iter()
        .filter(|h| !hidden.contains(&h.rowid))
        .copied()
        .take(10)
        .collect();
    assert_eq!(
        bits(&forest.exact(&query, 10, &hidden, &mut scratch)),
        bits(&want)
    );
    let got = forest.search(&query, 10, Budget::SearchK(1900), &hidden, &mut scratch);
    assert_eq!(bits(&got), bits(&want));
    assert!(forest.contains(set.ids[5]) && !forest.contains(1));
    assert_eq!(
        forest.vector_of(set.ids[1999]).as_deref(),
        Some(set.row(1999))
    );
}

#[test]
fn no_damage_to_a_file_goes_unnoticed_or_does_harm() {
    let set = clustered(70, 5, 1);
    let (mut scratch, none) = (Scratch::default(), FxHashSet::default());
    let image = build(&set.vectors(), &options(Metric::Cosine, 3, 1), &Job::new()).unwrap();
    let whole = image.to_bytes().as_ref().to_vec();
    let mut use_it = |bytes: &[u8]| {
        let Ok(forest) = Forest::open(Bytes::new(bytes)) else {
            return false;
        };
        for budget in [Budget::SearchK(5), Budget::SearchK(60), Budget::Default] {
            let _ = forest.search(set.row(3), 4, budget, &none, &mut scratch);
        }
        let _ = forest.exact(set.row(3), 4, &none, &mut scratch);
        let _ = (forest.contains(3), forest.vector_of(69), forest.info());
        forest.verify().is_ok()
    };
    assert!(use_it(&whole));
    for at in 0..whole.len() {
        for flip in [1u8, 0x80, 0xff] {
            let mut bytes = whole.clone();
            bytes[at] ^= flip;
            assert!(!use_it(&bytes), "byte {at} ^ {flip:#x} went unnoticed");
        }
    }
    for len in 0..whole.len() {
        assert!(
            !use_it(&whole[..len]),
            "the first {len} bytes passed as a whole file"
        );
    }
    let mut longer = whole.clone();
    longer.extend([0; 64]);
    assert!(!use_it(&longer));
}

/// As above for a file with lists, which a small set does not have: bytes all over the file, and those of the lists.
#[test]
fn no_damage_to_lists_goes_unnoticed_or_does_harm() {
    for (dim, metric) in [(6, Metric::L2), (260, Metric::Cosine)] {
        let set = clustered(1100, dim, 2);
        let (mut scratch, none) = (Scratch::default(), FxHashSet::default());
        let image = build(&set.vectors(), &options(metric, 2, 1), &Job::new()).unwrap();
        let mut bytes = image.to_bytes().as_ref().to_vec();
        let mut use_it = |bytes: &[u8]| {
            let Ok(forest) = Forest::open(Bytes::new(bytes)) else {
                return false;
            };
            for recall in [0.5, 0.95, 0.999] {
                let _ = forest.search(set.row(3), 10, Budget::Recall(recall), &none, &mut scratch);
            }
            forest.verify().is_ok()
        };
        assert!(use_it(&bytes));
        let seed = 77;
        let mut random = Random(seed);
        for _ in 0..400 {
            let at = random.below(bytes.len());
            let old = bytes[at];
            bytes[at] ^= 1 << random.below(8);
            assert!(!use_it(&bytes), "byte {at} went unnoticed, seed {seed}");
            bytes[at] = old;
        }
        for _ in 0..40 {
            // A run of ones or zeros: starts, positions and numbers all become extreme.
            let at = random.below(bytes.len() - 64);
            let mut broken = bytes.clone();
            broken[at..at + 64].fill([0u8, 0xff][random.below(2)]);
            assert!(
                broken == bytes || !use_it(&broken),
                "bytes {at}.. went unnoticed, seed {seed}"
            );
        }
    }
}

#[test]
fn a_promised_recall_is_kept_on_queries_the_build_has_not_seen() {
    let (mut scratch, none) = (Scratch::default(), FxHashSet::default());
    for (data, dim, metric) in [
        ("clusters", 20, Metric::L2),
        ("clusters", 50, Metric::Cosine),
        ("clusters", 300, Metric::Cosine),
        ("clusters", 30, Metric::Dot),
        // What a query has in common with the row of its own vector is nothing: the longest rows are the nearest.
        ("lengths", 24, Metric::Dot),
        // The rows of the other nine tenths have one code.
        ("far", 64, Metric::L2),
    ] {
        // Rows and queries of one distribution: every 21st row is kept back as a query.
        let mut all = clustered(21_000, dim, 31);
        let mut random = Random(32);
        for (i, row) in all.rows.chunks_exact_mut(dim).enumerate() {
            match data {
                "lengths" => {
                    let by = (0.7 * random.normal()).exp();
                    row.iter_mut().for_each(|x| *x *= by);
                }
                "far" if i % 10 == 3 => row.iter_mut().for_each(|x| *x += 1e4),
                _ => {}
            }
        }
        let mut set = Set::new(dim, Vec::new());
        let mut queries = Vec::new();
        for i in 0..21_000 {
            if i % 21 == 0 {
                queries.push(all.row(i));
            } else {
                set.ids.push(i as i64);
                set.rows.extend_from_slice(all.row(i));
            }
        }
        let forest = set.build(metric, 1);
        let curve = forest.curve();
        assert!(
            curve
                .windows(2)
                .all(|w| w[0].k < w[1].k || w[0].recall < w[1].recall)
        );
        for k in [1, 10, 60] {
            let truth: Vec<FxHashSet<i64>> = queries
                .iter()
                .map(|q| {
                    forest
                        .exact(q, k, &none, &mut scratch)
                        .iter()
                        .map(|h| h.rowid)
                        .collect()
                })
                .collect();
            for promise in [0.6, 0.8, 0.9, 0.95, 0.99] {
                let mut found = 0;
                for (query, truth) in queries.iter().zip(&truth) {
                    let hits =
                        forest.search(query, k, Budget::Recall(promise), &none, &mut scratch);
                    assert_eq!(hits.len(), k);
                    assert!(hits.is_sorted());
                    found += hits.iter().filter(|h| truth.contains(&h.rowid)).count();
                }
                let recall = found as f32 / (queries.len() * k) as f32;
                // A thousand queries measure a recall to about a hundredth.
                assert!(
                    recall >= promise - 0.015,
                    "{data}, {metric:?} {dim}, k {k}: {recall} of {promise}"
                );
            }
        }
    }
}

#[test]
fn approximate_answers_are_never_short_and_hide_what_is_hidden() {
    let set = clustered(3000, 12, 6);
    let forest = set.build(Metric::L2, 1);
    let mut scratch = Scratch::default();
    for k in [1, 10, 150, 1000, 2900, 5000] {
        // Everything near the query is hidden.
        let hidden: FxHashSet<i64> = set
            .nearest(Metric::L2, set.row(9), 100)
            .iter()
            .map(|h| h.rowid)
            .collect();
        for recall in [0.0, 0.5, 0.95, 1.0, f32::NAN] {
            let hits = forest.search(set.row(9), k, Budget::Recall(recall), &hidden, &mut scratch);
            assert_eq!(hits.len(), k.min(2900), "k {k}, recall {recall}");
            let mut seen = FxHashSet::default();
            assert!(
                hits.iter()
                    .all(|h| !hidden.contains(&h.rowid) && seen.insert(h.rowid))
            );
        }
    }
}

/// Data that breaks splits: right answers, and no runaway depth, leaf or time.
#[test]
fn degenerate_sets_of_some_size_are_built_soundly() {
    let n = 20_000;
    let dim = 16;
    let mut random = Random(12);
    let base = random.vector(dim);
    let (mut scratch, none) = (Scratch::default(), FxHashSet::default());
    let mut seconds = Vec::new();
    for name in [
        "normal",
        "all equal",
        "nine in ten equal",
        "collinear",
        "heavy tails",
        "one cluster far away",
    ] {
        let mut rows = Vec::with_capacity(n * dim);
        for i in 0..n {
            match name {
                "all equal" => rows.extend(&base),
                "nine in ten equal" if i % 10 > 0 => rows.extend(&base),
                "collinear" => rows.extend(base.iter().map(|b| b * i as f32)),
                "heavy tails" => {
                    let by = (4.0 * random.normal()).exp();
                    rows.extend(random.vector(dim).iter().map(|x| x * by));
                }
                "one cluster far away" if i % 2 == 0 => {
                    rows.extend(random.vector(dim).iter().map(|x| x + 1e4));
                }
                _ => rows.extend(random.vector(dim)),
            }
        }
        let set = Set::new(dim, rows);
        for metric in METRICS {
            let start = std::time::Instant::now();
            let forest = set.build(metric, 1);
            seconds.push((name, metric, start.elapsed().as_secs_f64()));
            for i in (0..n).step_by(n / 20) {
                let want = set.nearest(metric, set.row(i), 10);
                assert_eq!(
                    bits(&forest.exact(set.row(i), 10, &none, &mut scratch)),
                    bits(&want),
                    "{name}"
                );
                if metric != Metric::Dot {
                    // Itself, or a copy of it with a smaller rowid.
                    let hits = forest.search(set.row(i), 10, Budget::Default, &none, &mut scratch);
                    assert_eq!(
                        hits[0].distance, want[0].distance,
                        "{name} {metric:?} row {i}"
                    );
                }
            }
        }
    }
    let normal = seconds[0].2.max(seconds[1].2).max(seconds[2].2);
    // Three times is the goal; ten leaves room for a busy machine.
    assert!(
        seconds.iter().all(|s| s.2 < 10.0 * normal + 1.0),
        "{seconds:?}"
    );
}

const DIGEST: &str = "SQLITE_ANNOY_TEST_PRINT_DIGEST";

/// Runs itself once for each level (the level is decided once in a process) and compares what the children built.
#[test]
fn the_bytes_do_not_depend_on_the_instruction_set() {
    if std::env::var_os(DIGEST).is_some() {
        let digests: Vec<String> = [(30, Metric::Cosine), (280, Metric::L2), (9, Metric::Dot)]
            .iter()
            .map(|&(dim, metric)| {
                format!("{:x}", clustered(2500, dim, 4).build(metric, 2).checksum())
            })
            .collect();
        eprintln!("digest {}", digests.join(" "));
        return;
    }
    let levels: Vec<Level> = Level::ALL
        .into_iter()
        .filter(|l| l.is_available())
        .collect();
    let digests: Vec<String> = levels
        .iter()
        .map(|level| {
            let child = std::process::Command::new(std::env::current_exe().unwrap())
                .args([
                    "--exact",
                    "the_bytes_do_not_depend_on_the_instruction_set",
                    "--nocapture",
                ])
                .env(DIGEST, "1")
                .env(ISA_VARIABLE, level.name())
                .output()
                .unwrap();
            let text = String::from_utf8_lossy(&child.stderr).into_owned();
            text.lines()
                .find(|l| l.starts_with("digest "))
                .unwrap_or_else(|| panic!("{text}"))
                .to_string()
        })
        .collect();
    assert!(
        digests.windows(2).all(|w| w[0] == w[1]),
        "{levels:?} {digests:?}"
    );
}

#[test]
fn the_door_refuses_what_cannot_be_indexed() {
    let mut set = clustered(10, 4, 1);
    let refused = |set: &Set, o: BuildOptions| {
        build(&set.vectors(), &o, &Job::new())
            .unwrap_err()
            .to_string()
    };
    assert!(refused(&set, options(Metric::L2, 0, 1)).contains("trees = 0: expected 1 to 10000"));
    assert!(refused(&set, options(Metric::L2, 10_001, 1)).contains("trees = 10001"));
    assert!(refused(&set, options(Metric::L2, 1, 0)).contains("threads = 0"));
    assert!(refused(&set, options(Metric::L1, 1, 1)).contains("cosine, l2, dot"));
    set.ids[3] = 2;
    assert!(refused(&set, options(Metric::L2, 1, 1)).contains("ascending"));
    set.ids[3] = 3;
    set.rows[13] = f32::NAN;
    assert!(
        refused(&set, options(Metric::L2, 1, 1))
            .contains("rowid 3 has a component that is not finite")
    );
    let job = Job::new();
    job.stop();
    set.rows[13] = 0.0;
    let error = build(&set.vectors(), &options(Metric::L2, 1, 1), &job).unwrap_err();
    assert!(error.is::<Interrupted>());
}

#[test]
fn the_largest_dimension_works() {
    let set = clustered(40, 65_536, 4);
    let (mut scratch, none) = (Scratch::default(), FxHashSet::default());
    for metric in METRICS {
        let forest = set.build(metric, 1);
        let got = forest.exact(set.row(7), 5, &none, &mut scratch);
        assert_eq!(bits(&got), bits(&set.nearest(metric, set.row(7), 5)));
    }
}
