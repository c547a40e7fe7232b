//! A plane between rows: 2-means on a sample, as Annoy has it.
//!
//! What counts is what Annoy will compute for a query: the side of a row is the sign of `normal . row + offset`, with the
//! very numbers that are written. Sums are those of [`exact`], so a file has the same bytes on every processor.

use super::layout::AnnoyMetric;
use crate::forest::Random;
use crate::vector::exact;

/// Rows looked at to find two centres.
const SAMPLE: usize = 96;
/// Rounds of 2-means on them.
const ROUNDS: usize = 3;
/// Tries before rows are dealt out without a plane.
const TRIES: usize = 3;
/// The larger side of a cut may have this part of the rows, as in Annoy.
const UNEVEN: f64 = 0.95;
/// Bits tried before all are.
const BITS: usize = 20;

/// What a node asks of a row.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Plane {
    /// The side of a plane. All zeros where nothing tells the rows apart.
    Normal { normal: Vec<f32>, offset: f32 },
    /// Whether this component is set.
    Bit(usize),
}

/// Rows by number, row-major.
#[derive(Clone, Copy)]
pub(super) struct Rows<'a> {
    pub(super) metric: AnnoyMetric,
    pub(super) dim: usize,
    pub(super) rows: &'a [f32],
}

impl<'a> Rows<'a> {
    pub(super) fn row(&self, i: u32) -> &'a [f32] {
        &self.rows[i as usize * self.dim..][..self.dim]
    }

    pub(super) fn is_set(component: f32) -> bool {
        component > 0.5
    }

    /// Whether the planes go through the origin.
    fn is_directions(&self) -> bool {
        matches!(self.metric, AnnoyMetric::Angular | AnnoyMetric::Dot)
    }
}

/// Divides `members` in place: first those of child 0, then those of child 1. Returns the plane and how many are of child 0;
/// both children get at least one, for at least two members.
pub(super) fn split(rows: &Rows, members: &mut Vec<u32>, random: &mut Random) -> (Plane, usize) {
    let n = members.len();
    for _ in 0..TRIES {
        let plane = match rows.metric {
            AnnoyMetric::Hamming => bit(rows, members, random),
            _ => between(rows, members, random),
        };
        let Some(plane) = plane else { break };
        let (left, right): (Vec<u32>, Vec<u32>) =
            members.iter().partition(|&&row| !plane.side(rows.row(row)));
        let larger = left.len().max(right.len());
        if larger < n && larger as f64 <= UNEVEN * n as f64 {
            let at = left.len();
            *members = left;
            members.extend(right);
            return (plane, at);
        }
    }
    // Every second row to each side; a query is as near to one as to the other.
    let even = members.iter().step_by(2).copied();
    let odd = members.iter().skip(1).step_by(2).copied();
    *members = even.chain(odd).collect();
    let plane = match rows.metric {
        AnnoyMetric::Hamming => Plane::Bit(0),
        _ => Plane::Normal {
            normal: vec![0.0; rows.dim],
            offset: 0.0,
        },
    };
    (plane, n.div_ceil(2))
}

impl Plane {
    /// Whether the row goes to child 1.
    fn side(&self, row: &[f32]) -> bool {
        match self {
            Plane::Normal { normal, offset } => exact::dot(normal, row) + f64::from(*offset) > 0.0,
            Plane::Bit(bit) => Rows::is_set(row[*bit]),
        }
    }
}

/// The plane between two centres; `None` if the sample is all one point.
fn between(rows: &Rows, members: &[u32], random: &mut Random) -> Option<Plane> {
    let sample: Vec<Vec<f32>> = (0..SAMPLE.min(members.len()))
        .map(|i| {
            let pick = if members.len() <= SAMPLE {
                i
            } else {
                random.below(members.len())
            };
            point(rows, members[pick])
        })
        .collect();
    let first = sample[random.below(sample.len())].clone();
    let others: Vec<&Vec<f32>> = sample.iter().filter(|p| **p != first).collect();
    if others.is_empty() {
        return None;
    }
    let second = others[random.below(others.len())].clone();
    let mut plane = halfway(rows, [&first, &second]);
    for _ in 0..ROUNDS {
        let sides: (Vec<&Vec<f32>>, Vec<&Vec<f32>>) =
            sample.iter().partition(|point| plane.side(point));
        if sides.0.is_empty() || sides.1.is_empty() {
            break;
        }
        plane = halfway(rows, [&mean(&sides.0), &mean(&sides.1)]);
    }
    Some(plane)
}

/// A row as a point: its direction, where only that counts.
fn point(rows: &Rows, row: u32) -> Vec<f32> {
    let row = rows.row(row);
    let norm = exact::dot(row, row).sqrt();
    if rows.is_directions() && norm > 0.0 {
        row.iter().map(|&x| (f64::from(x) / norm) as f32).collect()
    } else {
        row.to_vec()
    }
}

fn mean(points: &[&Vec<f32>]) -> Vec<f32> {
    let mut sum = vec![0.0f64; points.first().map_or(0, |p| p.len())];
    for point in points {
        for (s, &x) in sum.iter_mut().zip(point.iter()) {
            *s += f64::from(x);
        }
    }
    let n = points.len() as f64;
    sum.into_iter().map(|s| (s / n) as f32).collect()
}

/// The plane halfway between two points, the first on the positive side.
fn halfway(rows: &Rows, [first, second]: [&Vec<f32>; 2]) -> Plane {
    let difference: Vec<f64> = first
        .iter()
        .zip(second)
        .map(|(&a, &b)| f64::from(a) - f64::from(b))
        .collect();
    let norm = difference.iter().map(|d| d * d).sum::<f64>().sqrt();
    let normal: Vec<f32> = difference
        .iter()
        .map(|d| if norm > 0.0 { (d / norm) as f32 } else { 0.0 })
        .collect();
    let offset = if rows.is_directions() {
        0.0
    } else {
        (-(exact::dot(&normal, first) + exact::dot(&normal, second)) / 2.0) as f32
    };
    Plane::Normal { normal, offset }
}

/// The bit that divides most evenly of some; of all, if none of them divides. `None` if all rows are the same.
fn bit(rows: &Rows, members: &[u32], random: &mut Random) -> Option<Plane> {
    let smaller_side = |bit: usize| {
        let set = members
            .iter()
            .filter(|&&row| Rows::is_set(rows.row(row)[bit]))
            .count();
        set.min(members.len() - set)
    };
    let best = |bits: &mut dyn Iterator<Item = usize>| {
        bits.map(|bit| (smaller_side(bit), std::cmp::Reverse(bit)))
            .max()
            .filter(|(side, _)| *side > 0)
    };
    let (_, bit) = best(&mut (0..BITS).map(|_| random.below(rows.dim)))
        .or_else(|| best(&mut (0..rows.dim)))?;
    Some(Plane::Bit(bit.0))
}
