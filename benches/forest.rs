//! Building, approximate search and exact search over clustered vectors.
//!
//! `cargo bench --no-default-features --bench forest`

use std::hint::black_box;

use criterion::{BenchmarkId, Criterion, criterion_group, criterion_main};
use rustc_hash::FxHashSet;
use sqlite_annoy::forest::{
    Budget, BuildOptions, Bytes, Forest, Scratch, VectorStore, Vectors, build,
};
use sqlite_annoy::job::Job;
use sqlite_annoy::vector::Metric;

/// `n` vectors around a hundred centres.
fn clustered(n: usize, dim: usize) -> Vec<f32> {
    let mut state = 1u64;
    let mut normal = || {
        // Four uniform numbers added up: near enough to a normal one.
        (0..4).fold(-2.0, |sum, _| {
            state = state
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1);
            sum + (state >> 40) as f32 / (1 << 24) as f32
        })
    };
    let centres: Vec<f32> = (0..100 * dim).map(|_| normal()).collect();
    (0..n)
        .flat_map(|i| {
            let centre = &centres[i % 100 * dim..][..dim];
            centre
                .iter()
                .map(|c| c + 0.7 * normal())
                .collect::<Vec<_>>()
        })
        .collect()
}

fn forest(rows: &[f32], dim: usize, trees: u32) -> Forest<Bytes> {
    let ids: Vec<i64> = (0..(rows.len() / dim) as i64).collect();
    let vectors = Vectors {
        dim,
        ids: &ids,
        rows,
    };
    let options = BuildOptions {
        metric: Metric::Cosine,
        trees,
        seed: 1,
        threads: 2,
        store: VectorStore::F32,
    };
    let image = build(&vectors, &options, &Job::new()).expect("sound vectors");
    Forest::open(image.to_bytes()).expect("a file just built")
}

fn building(c: &mut Criterion) {
    let mut group = c.benchmark_group("build");
    group.sample_size(10);
    let rows = clustered(10_000, 100);
    for trees in [1, 20] {
        group.bench_function(BenchmarkId::new("10000 x 100, trees", trees), |b| {
            b.iter(|| black_box(forest(&rows, 100, trees)));
        });
    }
    group.finish();
}

fn searching(c: &mut Criterion) {
    let none = FxHashSet::default();
    for (n, dim) in [(10_000, 100), (100_000, 100), (20_000, 768)] {
        let rows = clustered(n, dim);
        let forest = forest(&rows, dim, 1);
        let mut scratch = Scratch::default();
        let mut group = c.benchmark_group(format!("search {n} x {dim}, k 10"));
        // Another query each time: one alone would find its leaves in the cache.
        let mut at = 0;
        let mut query = || {
            at = (at + 7919) % n;
            &rows[at * dim..][..dim]
        };
        for recall in [0.9, 0.95, 0.99] {
            group.bench_function(BenchmarkId::new("recall", recall), |b| {
                b.iter(|| forest.search(query(), 10, Budget::Recall(recall), &none, &mut scratch));
            });
        }
        group.bench_function("search_k 1000", |b| {
            b.iter(|| forest.search(query(), 10, Budget::SearchK(1000), &none, &mut scratch));
        });
        group.bench_function("exact", |b| {
            b.iter(|| forest.exact(query(), 10, &none, &mut scratch));
        });
        group.finish();
    }
}

criterion_group!(benches, building, searching);
criterion_main!(benches);
