//! Rows of any element type that are in no index, one after the other.
//!
//! float16 rows are widened and scored as float32 ([`super::scan`]). int8 sums are exact integers, so kernel and definition
//! agree to the bit: cosine, l2, dot and l1 are what [`crate::vector::exact`] makes of the same numbers as floats (as long as
//! its f64 sums are exact, below 2^53). Bits have one distance, hamming: how many differ.

use anyhow::{Result, bail, ensure};
use half::slice::HalfFloatSliceExt;

use super::scan::RowScan;
use super::topk::{Hit, TopK};
use crate::kernel::kernels;
use crate::vector::{Element, Metric, Vector, exact};

/// A scan of rows of one element type for one query.
pub struct TypedScan<'q> {
    metric: Metric,
    query: &'q Vector<'q>,
    /// For floats.
    floats: Option<RowScan<'q>>,
    buffer: Vec<f32>,
}

/// A query as the scan of its type wants it: float16 widened.
#[must_use]
pub fn widened<'a>(query: &'a Vector<'a>) -> Vec<f32> {
    match query {
        Vector::F32(q) => q.to_vec(),
        Vector::F16(q) => q.to_f32_vec(),
        Vector::Int8(_) | Vector::Bit(_) => Vec::new(),
    }
}

impl<'q> TypedScan<'q> {
    /// A scan that scores rows against `query`; `wide` is what [`widened`] makes of it.
    ///
    /// # Errors
    /// When the metric means nothing for the element type.
    pub fn new(metric: Metric, query: &'q Vector<'q>, wide: &'q [f32]) -> Result<Self> {
        ensure!(
            query.element() != Element::Bit || metric == Metric::Hamming,
            "Cannot calculate {} distance between two bitvectors.",
            metric.name()
        );
        Ok(TypedScan {
            metric,
            query,
            floats: (!wide.is_empty()).then(|| RowScan::new(metric, wide)),
            buffer: vec![0.0; wide.len()],
        })
    }

    /// Scores a row of the query's type and dimension, and gives it to `best`.
    ///
    /// # Errors
    /// When a component is NaN or infinite.
    pub fn push(&mut self, rowid: i64, row: &Vector<'_>, best: &mut TopK) -> Result<()> {
        debug_assert_eq!(row.dim(), self.query.dim());
        let distance = match (self.query, row) {
            (Vector::Int8(q), Vector::Int8(x)) => {
                let sums = &kernels().i8;
                match self.metric {
                    Metric::Cosine => {
                        let p = (sums.cosine)(q, x);
                        exact::cosine_from(p.dot as f64, p.aa as f64, p.bb as f64)
                    }
                    Metric::L2 => ((sums.squared_l2)(q, x) as f64).sqrt(),
                    Metric::Dot => -((sums.dot)(q, x) as f64),
                    Metric::L1 => (sums.l1)(q, x) as f64,
                    Metric::Hamming => {
                        let differ = |(q, x): &(&i8, &i8)| (**q > 0) != (**x > 0);
                        q.iter().zip(x.iter()).filter(differ).count() as f64
                    }
                }
            }
            (Vector::Bit(q), Vector::Bit(x)) => (kernels().hamming)(q, x) as f64,
            (_, row) => {
                match row {
                    Vector::F16(x) => x.convert_to_f32_slice(&mut self.buffer),
                    Vector::F32(x) => self.buffer.copy_from_slice(x),
                    _ => bail!("a row of another type than the query"),
                }
                if let Some(scan) = &self.floats
                    && !scan.push(rowid, &self.buffer, best)
                {
                    row.check_finite()?;
                }
                return Ok(());
            }
        };
        best.push(Hit { rowid, distance });
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::rngs::StdRng;
    use rand::{RngExt, SeedableRng};

    #[test]
    fn every_type_has_the_distances_of_its_numbers_as_floats() {
        let seed = 20_261_127;
        eprintln!("seed {seed}");
        let mut rng = StdRng::seed_from_u64(seed);
        for round in 0..300 {
            let dim = 8 * rng.random_range(1..40);
            for element in [Element::F16, Element::Int8, Element::Bit] {
                let mut vector = || {
                    let components: Vec<f64> = (0..dim)
                        .map(|_| match element {
                            Element::Bit => f64::from(rng.random_range(0..2)),
                            Element::Int8 => f64::from(rng.random_range(-128..128)),
                            _ => rng.random_range(-2.0..2.0),
                        })
                        .collect();
                    Vector::from_components(element, &components).unwrap()
                };
                let (query, row) = (vector(), vector());
                let floats = |v: &Vector<'_>| -> Vec<f32> {
                    (0..dim).map(|i| v.component(i).unwrap() as f32).collect()
                };
                let (q, x) = (floats(&query), floats(&row));
                for metric in Metric::ALL {
                    let wide = widened(&query);
                    let Ok(mut scan) = TypedScan::new(metric, &query, &wide) else {
                        assert!(element == Element::Bit && metric != Metric::Hamming);
                        continue;
                    };
                    let mut best = TopK::new(1);
                    scan.push(1, &row, &mut best).unwrap();
                    let got = best.into_sorted()[0].distance;
                    let want = exact::distance(metric, &q, &x) + 0.0;
                    assert_eq!(
                        got.to_bits(),
                        want.to_bits(),
                        "{element:?} {metric:?} {round}"
                    );
                }
            }
        }
    }
}
