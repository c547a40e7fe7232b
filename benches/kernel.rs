//! Kernels on every level side by side, on vectors in cache: `cargo bench --bench kernel -- "dot f32"`.
#![allow(missing_docs)] // criterion_group! makes an undocumented public function.

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use half::f16;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use sqlite_annoy::kernel::{Kernels, Level};
use sqlite_annoy::vector::exact;
use std::hint::black_box;

const DIMS: [usize; 3] = [100, 384, 768];

/// Times `call` for every dim and every level this machine has.
fn compare(c: &mut Criterion, name: &str, call: impl Fn(&Kernels, &Vectors)) {
    let mut group = c.benchmark_group(name);
    for dim in DIMS {
        let vectors = Vectors::new(dim);
        group.throughput(Throughput::Elements(dim as u64));
        for k in Level::ALL.into_iter().filter_map(Kernels::at) {
            group.bench_function(BenchmarkId::new(k.level.name(), dim), |b| {
                b.iter(|| call(black_box(k), black_box(&vectors)));
            });
        }
    }
    group.finish();
}

struct Vectors {
    f32: [Vec<f32>; 9],
    f16: [Vec<f16>; 2],
    i8: [Vec<i8>; 2],
    bit: [Vec<u8>; 2],
}

impl Vectors {
    fn new(dim: usize) -> Vectors {
        let mut rng = StdRng::seed_from_u64(1);
        let f32: [Vec<f32>; 9] =
            std::array::from_fn(|_| (0..dim).map(|_| rng.random_range(-1.0..1.0)).collect());
        Vectors {
            f16: [0, 1].map(|i| f32[i].iter().map(|&x| f16::from_f32(x)).collect()),
            i8: [0, 1].map(|i| f32[i].iter().map(|&x| (x * 127.0) as i8).collect()),
            bit: std::array::from_fn(|_| (0..dim / 8).map(|_| rng.random()).collect()),
            f32,
        }
    }
}

fn pairwise(c: &mut Criterion) {
    macro_rules! each {
        ($($field:ident $kernel:ident),*) => {$(
            compare(c, concat!(stringify!($kernel), " ", stringify!($field)), |k, v| {
                black_box((k.$field.$kernel)(&v.$field[0], &v.$field[1]));
            });
        )*};
    }
    each!(f32 dot, f32 squared_l2, f32 l1, f32 cosine);
    each!(f16 dot, f16 squared_l2, f16 l1, f16 cosine);
    each!(i8 dot, i8 squared_l2, i8 l1, i8 cosine);
    compare(c, "hamming bit", |k, v| {
        black_box((k.hamming)(&v.bit[0], &v.bit[1]));
    });
}

/// Eight rows exactly, against the plain loop that defines their scores.
fn rerank(c: &mut Criterion) {
    compare(c, "rerank squared_l2 8 rows", |k, v| {
        let rows: [&[f32]; 8] = std::array::from_fn(|i| &v.f32[i + 1][..]);
        let mut scores = [0.0; 8];
        (k.rerank.squared_l2)(&v.f32[0], &rows, &mut scores);
        black_box(scores);
    });
    compare(c, "rerank dot_and_norm 8 rows", |k, v| {
        let rows: [&[f32]; 8] = std::array::from_fn(|i| &v.f32[i + 1][..]);
        let (mut dots, mut norms) = ([0.0; 8], [0.0; 8]);
        (k.rerank.dot_and_norm)(&v.f32[0], &rows, &mut dots, &mut norms);
        black_box((dots, norms));
    });
    let v = Vectors::new(768);
    c.bench_function("plain loop squared_l2 8 rows/768", |b| {
        b.iter(|| {
            black_box(&v.f32[1..])
                .iter()
                .map(|row| exact::squared_l2(&v.f32[0], row))
                .sum::<f64>()
        });
    });
}

criterion_group!(benches, pairwise, rerank);
criterion_main!(benches);
