//! Arithmetic on vector values, for every element type that has it.
//!
//! Distances use the kernels of this processor: f32 sums for float32 and float16, exact integers for int8 and bit. They
//! agree with sqlite-vec's to f32 rounding; the last bits differ between instruction sets. (Searches return f64
//! distances that do not: see [`super::exact`].) Where an f32 sum overflows, or is so small that underflow may have
//! eaten into it, the f64 reference takes over, so huge and tiny components have their true distance too.
//!
//! A result that cannot be a vector (an infinite component, an int8 out of range) is refused with its index.

use std::borrow::Cow;

use anyhow::{Result, bail, ensure};
use half::f16;

use super::Vector;
use super::{Metric, exact};
use crate::kernel::{Pairwise, Parts, kernels, scalar};

/// Below this, underflow of 2^-150 for each of 2^16 terms is more than f32 rounding of a sum: 2^-134 * 2^24, rounded up.
const TINY: f32 = 1e-30;

/// A distance, as SQL shows it: int8 has whole l1 distances and inner products.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Number {
    /// A whole number.
    Integer(i64),
    /// Any other.
    Real(f64),
}

/// Distance between two vectors. l2 is the true root, cosine 1 - cos in [0, 2] and 1 when a vector is zero, dot the
/// negated inner product; hamming is for bit vectors, the others for all but them.
///
/// # Errors
/// When element types or dimensions differ, the metric is not for this element type, or a component is NaN or infinite.
pub fn distance(metric: Metric, a: &Vector<'_>, b: &Vector<'_>) -> Result<Number> {
    check_pair(a, b)?;
    let k = kernels();
    let value = match (a, b) {
        (Vector::F32(x), Vector::F32(y)) if metric != Metric::Hamming => {
            Number::Real(of_floats(&k.f32, metric, x, y))
        }
        (Vector::F16(x), Vector::F16(y)) if metric != Metric::Hamming => {
            Number::Real(of_floats(&k.f16, metric, x, y))
        }
        (Vector::Int8(x), Vector::Int8(y)) if metric != Metric::Hamming => {
            of_bytes(&k.i8, metric, x, y)
        }
        (Vector::Bit(x), Vector::Bit(y)) if metric == Metric::Hamming => {
            Number::Real((k.hamming)(x, y) as f64)
        }
        _ => bail!(
            "Cannot calculate {} between two {}.",
            match metric {
                Metric::Cosine => "cosine distance",
                Metric::L2 => "L2 distance",
                Metric::Dot => "inner product",
                Metric::L1 => "L1 distance",
                Metric::Hamming => "hamming distance",
            },
            plural(a)
        ),
    };
    if let Number::Real(x) = value
        && !x.is_finite()
    {
        a.check_finite()?;
        b.check_finite()?;
    }
    Ok(value)
}

fn of_floats<T: Copy + Into<f64>>(k: &Pairwise<T, f32>, metric: Metric, a: &[T], b: &[T]) -> f64 {
    let sound = |sum: f32| sum.abs() >= TINY && sum.is_finite();
    match metric {
        Metric::Cosine => {
            let Parts { dot, aa, bb } = (k.cosine)(a, b);
            if sound(aa) && sound(bb) && dot.is_finite() {
                exact::cosine_from(dot.into(), aa.into(), bb.into())
            } else {
                let Parts { dot, aa, bb } = scalar::cosine(a, b);
                exact::cosine_from(dot, aa, bb)
            }
        }
        Metric::L2 => {
            let sum = (k.squared_l2)(a, b);
            let sum = if sound(sum) {
                sum.into()
            } else {
                scalar::squared_l2(a, b)
            };
            sum.sqrt()
        }
        Metric::L1 => {
            let sum = (k.l1)(a, b);
            if sound(sum) {
                sum.into()
            } else {
                scalar::l1(a, b)
            }
        }
        Metric::Dot | Metric::Hamming => {
            let sum = (k.dot)(a, b);
            -if sound(sum) {
                sum.into()
            } else {
                scalar::dot(a, b)
            }
        }
    }
}

fn of_bytes(k: &Pairwise<i8, i64>, metric: Metric, a: &[i8], b: &[i8]) -> Number {
    match metric {
        Metric::Cosine => {
            let Parts { dot, aa, bb } = (k.cosine)(a, b);
            Number::Real(exact::cosine_from(dot as f64, aa as f64, bb as f64))
        }
        Metric::L2 => Number::Real(((k.squared_l2)(a, b) as f64).sqrt()),
        Metric::L1 => Number::Integer((k.l1)(a, b)),
        Metric::Dot | Metric::Hamming => Number::Integer(-(k.dot)(a, b)),
    }
}

/// Euclidean norm: the true root of the sum of squares.
///
/// # Errors
/// For a bit vector, and when a component is NaN or infinite.
pub fn norm(v: &Vector<'_>) -> Result<f64> {
    let norm = match v {
        Vector::F32(x) => exact::dot(x, x).sqrt(),
        Vector::F16(x) => scalar::dot(x, x).sqrt(),
        Vector::Int8(x) => ((kernels().i8.dot)(x, x) as f64).sqrt(),
        Vector::Bit(_) => bail!("Cannot calculate the norm of a bitvector."),
    };
    if !norm.is_finite() {
        v.check_finite()?;
    }
    Ok(norm)
}

/// The vector at norm 1, rounded once from f64; a zero vector stays as it is.
///
/// # Errors
/// For anything but float32 and float16, and when a component is NaN or infinite.
pub fn normalize(v: &Vector<'_>) -> Result<Vector<'static>> {
    ensure!(
        matches!(v, Vector::F32(_) | Vector::F16(_)),
        "only float32 vectors are supported when normalizing"
    );
    let norm = norm(v)?;
    let divisor = if norm == 0.0 { 1.0 } else { norm };
    map(v, |x| x / divisor)
}

/// Every component times `factor`.
///
/// # Errors
/// For int8 and bit vectors, and when a component or a product is NaN or infinite.
pub fn scale(v: &Vector<'_>, factor: f64) -> Result<Vector<'static>> {
    ensure!(
        matches!(v, Vector::F32(_) | Vector::F16(_)),
        "only float32 and float16 vectors are supported when scaling"
    );
    ensure!(factor.is_finite(), "the factor must be a finite number");
    map(v, |x| x * factor)
}

/// Applies `f` to every component of a float vector. The result is checked, which checks `v` too: no `f` here makes a
/// finite number of NaN or infinity.
fn map(v: &Vector<'_>, f: impl Fn(f64) -> f64) -> Result<Vector<'static>> {
    let result = match v {
        Vector::F32(v) => Vector::F32(v.iter().map(|&x| f(x.into()) as f32).collect()),
        Vector::F16(v) => Vector::F16(v.iter().map(|&x| f16::from_f64(f(x.into()))).collect()),
        Vector::Int8(_) | Vector::Bit(_) => bail!("expected a float32 or float16 vector"),
    };
    result.check_finite()?;
    Ok(result)
}

/// Component by component a + b.
///
/// # Errors
/// When element types or dimensions differ, for bit vectors, and when a sum is out of the element type's range.
pub fn add(a: &Vector<'_>, b: &Vector<'_>) -> Result<Vector<'static>> {
    combine(a, b, "add", |x, y| x + y, i8::checked_add)
}

/// Component by component a - b.
///
/// # Errors
/// As [`add`].
pub fn sub(a: &Vector<'_>, b: &Vector<'_>) -> Result<Vector<'static>> {
    combine(a, b, "subtract", |x, y| x - y, i8::checked_sub)
}

fn combine(
    a: &Vector<'_>,
    b: &Vector<'_>,
    verb: &str,
    of_floats: fn(f32, f32) -> f32,
    of_bytes: fn(i8, i8) -> Option<i8>,
) -> Result<Vector<'static>> {
    check_pair(a, b)?;
    let result = match (a, b) {
        (Vector::F32(a), Vector::F32(b)) => {
            Vector::F32(a.iter().zip(&**b).map(|(&x, &y)| of_floats(x, y)).collect())
        }
        (Vector::F16(a), Vector::F16(b)) => {
            let pairs = a.iter().zip(&**b);
            Vector::F16(
                pairs
                    .map(|(x, y)| f16::from_f32(of_floats(x.to_f32(), y.to_f32())))
                    .collect(),
            )
        }
        (Vector::Int8(a), Vector::Int8(b)) => {
            let mut sums = Vec::with_capacity(a.len());
            for (i, (&x, &y)) in a.iter().zip(&**b).enumerate() {
                match of_bytes(x, y) {
                    Some(sum) => sums.push(sum),
                    None => bail!("component {i} of the result is out of range for int8"),
                }
            }
            Vector::Int8(Cow::Owned(sums))
        }
        _ => bail!("Cannot {verb} two bitvectors together."),
    };
    // A sum is finite only when both its terms are.
    result.check_finite()?;
    Ok(result)
}

/// Components `start` to `end - 1`.
///
/// # Errors
/// When the range is empty or not within the vector; for bit vectors also when it does not begin and end at a byte.
pub fn slice(v: &Vector<'_>, start: i64, end: i64) -> Result<Vector<'static>> {
    let dim = v.dim();
    let Ok(first) = usize::try_from(start) else {
        bail!("slice 'start' index must be a postive number.")
    };
    let Ok(last) = usize::try_from(end) else {
        bail!("slice 'end' index must be a postive number.")
    };
    ensure!(
        first <= dim,
        "slice 'start' index is greater than the number of dimensions"
    );
    ensure!(
        last <= dim,
        "slice 'end' index is greater than the number of dimensions"
    );
    ensure!(
        first <= last,
        "slice 'start' index is greater than 'end' index"
    );
    ensure!(
        first < last,
        "slice 'start' index is equal to the 'end' index, vectors must have non-zero length"
    );
    let part = match v {
        Vector::F32(v) => Vector::F32(Cow::Borrowed(&v[first..last])),
        Vector::F16(v) => Vector::F16(Cow::Borrowed(&v[first..last])),
        Vector::Int8(v) => Vector::Int8(Cow::Borrowed(&v[first..last])),
        Vector::Bit(v) => {
            ensure!(
                first.is_multiple_of(8),
                "start index must be divisible by 8."
            );
            ensure!(last.is_multiple_of(8), "end index must be divisible by 8.");
            Vector::Bit(Cow::Borrowed(&v[first / 8..last / 8]))
        }
    };
    part.check_finite()?;
    Ok(part.into_owned())
}

/// Float components in [-1, 1] as int8 in [-128, 127], by sqlite-vec's formula: `(x + 1) / step - 128` towards zero
/// with `step` = 2/255 in f32. Components beyond are clamped.
///
/// # Errors
/// For int8 and bit vectors, and when a component is NaN or infinite.
pub fn quantize_int8(v: &Vector<'_>) -> Result<Vector<'static>> {
    // `as` clamps.
    let code = |x: f64| ((x + 1.0) / f64::from(2.0f32 / 255.0) - 128.0) as i8;
    v.check_finite()?;
    match v {
        Vector::F32(v) => Ok(Vector::Int8(v.iter().map(|&x| code(x.into())).collect())),
        Vector::F16(v) => Ok(Vector::Int8(v.iter().map(|&x| code(x.into())).collect())),
        Vector::Int8(_) | Vector::Bit(_) => bail!(
            "Can only quantize float vectors to int8, found {}",
            v.element().name()
        ),
    }
}

/// One bit for each component: set when it is above zero.
///
/// # Errors
/// When the dimension is not divisible by 8, for bit vectors, and when a component is NaN or infinite.
pub fn quantize_binary(v: &Vector<'_>) -> Result<Vector<'static>> {
    ensure!(
        !matches!(v, Vector::Bit(_)),
        "Can only binary quantize float or int8 vectors"
    );
    ensure!(
        v.dim().is_multiple_of(8),
        "Binary quantization requires vectors with a length divisible by 8"
    );
    v.check_finite()?;
    let above_zero = |i| v.component(i).is_some_and(|x| x > 0.0);
    let byte = |at| (0..8).fold(0, |byte, i| byte | u8::from(above_zero(8 * at + i)) << i);
    Ok(Vector::Bit((0..v.dim() / 8).map(byte).collect()))
}

/// float32 components of a float vector: widening is exact.
///
/// # Errors
/// When a component is NaN or infinite, and for int8 and bit vectors.
pub fn to_f32(v: Vector<'_>) -> Result<Vector<'_>> {
    v.check_finite()?;
    match v {
        Vector::F16(v) => Ok(Vector::F32(v.iter().map(|x| x.to_f32()).collect())),
        Vector::F32(_) => Ok(v),
        Vector::Int8(_) | Vector::Bit(_) => bail!(
            "expected a float32 or float16 vector, found {}",
            v.element().name()
        ),
    }
}

/// float16 components of a float vector, rounded to nearest even.
///
/// # Errors
/// When a component is NaN, infinite or beyond 65504, and for int8 and bit vectors.
pub fn to_f16(v: Vector<'_>) -> Result<Vector<'_>> {
    v.check_finite()?;
    let v = match v {
        Vector::F32(v) => v,
        Vector::F16(_) => return Ok(v),
        Vector::Int8(_) | Vector::Bit(_) => bail!(
            "expected a float32 or float16 vector, found {}",
            v.element().name()
        ),
    };
    let halves: Vec<f16> = v.iter().map(|&x| f16::from_f32(x)).collect();
    match halves.iter().position(|x| !x.is_finite()) {
        Some(i) => bail!(
            "component {i} of the vector is {}: out of range for float16",
            v[i]
        ),
        None => Ok(Vector::F16(Cow::Owned(halves))),
    }
}

/// Refuses a pair of different element types or dimensions.
fn check_pair(a: &Vector<'_>, b: &Vector<'_>) -> Result<()> {
    ensure!(
        a.element() == b.element(),
        "Vector type mistmatch. First vector has type {}, while the second has type {}.",
        a.element().name(),
        b.element().name()
    );
    ensure!(
        a.dim() == b.dim(),
        "Vector dimension mistmatch. First vector has {} dimensions, while the second has {} dimensions.",
        a.dim(),
        b.dim()
    );
    Ok(())
}

fn plural(v: &Vector<'_>) -> &'static str {
    match v {
        Vector::F32(_) => "float32 vectors",
        Vector::F16(_) => "float16 vectors",
        Vector::Int8(_) => "int8 vectors",
        Vector::Bit(_) => "bitvectors",
    }
}
