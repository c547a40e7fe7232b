//! Two BLOBs as vectors of any element type: decoding, arithmetic, quantising, and the scans of tables.
#![no_main]

use libfuzzer_sys::arbitrary::{self, Arbitrary};
use libfuzzer_sys::fuzz_target;
use sqlite_annoy::forest::{RowScan, TopK, TypedScan, widened};
use sqlite_annoy::vector::math::{self, Number};
use sqlite_annoy::vector::{
    Element, Metric, Vector, check_f32, exact, f32_from_blob, f32_in, json,
};

#[derive(Debug, Arbitrary)]
struct Case {
    element: u8,
    a: Vec<u8>,
    b: Vec<u8>,
    shift: u8,
    factor: f64,
    start: i8,
    end: i16,
}

fn elements() -> [Element; 4] {
    [Element::F32, Element::F16, Element::Int8, Element::Bit]
}

fuzz_target!(|case: Case| {
    let element = elements()[usize::from(case.element) % 4];
    // At every alignment.
    let shift = usize::from(case.shift % 8);
    let mut moved = vec![0; shift];
    moved.extend(&case.a);
    let blob = &moved[shift..];
    let decoded = Vector::decode(element, blob);
    let Ok(a) = decoded else {
        assert!(Vector::from_blob(element, blob).is_err());
        return;
    };
    assert_eq!(a.bytes(), case.a);
    assert!(a.component(a.dim()).is_none());
    let finite = Vector::from_blob(element, blob).is_ok();
    assert_eq!(
        finite,
        (0..a.dim()).all(|i| a.component(i).is_some_and(f64::is_finite))
    );
    if element == Element::F32 {
        let mut buffer = Vec::new();
        let same = f32_in(blob, &mut buffer).unwrap();
        assert_eq!(same.len(), a.dim());
        assert_eq!(check_f32(same).is_ok(), finite);
        assert_eq!(f32_from_blob(blob).is_ok(), finite);
    }
    let text = json::print(&a);
    if finite {
        assert_eq!(
            json::parse(element, text.as_bytes())
                .map(|v| v.dim())
                .ok()
                .unwrap_or(a.dim()),
            a.dim()
        );
    }
    for v in [
        math::normalize(&a),
        math::scale(&a, case.factor),
        math::slice(&a, case.start.into(), case.end.into()),
        math::quantize_int8(&a),
        math::quantize_binary(&a),
        math::to_f32(a.clone()),
        math::to_f16(a.clone()),
    ]
    .into_iter()
    .flatten()
    {
        // A slice may leave out what is not finite.
        assert!(v.check_finite().is_ok());
    }
    if let Ok(norm) = math::norm(&a) {
        assert!(finite && norm >= 0.0);
    }
    let Ok(b) = Vector::decode(element, &case.b) else {
        return;
    };
    for v in [math::add(&a, &b), math::sub(&a, &b)].into_iter().flatten() {
        assert!(v.check_finite().is_ok() && v.dim() == a.dim());
    }
    for metric in Metric::ALL {
        let distance = math::distance(metric, &a, &b);
        if let Ok(distance) = distance {
            let distance = match distance {
                Number::Integer(n) => n as f64,
                Number::Real(x) => x,
            };
            assert!(
                !distance.is_nan() && (distance >= 0.0 || metric == Metric::Dot),
                "{metric:?} {distance}"
            );
            assert!(b.check_finite().is_ok() && finite && a.dim() == b.dim());
        }
        if a.dim() != b.dim() || !finite {
            continue;
        }
        let wide = widened(&a);
        let Ok(mut scan) = TypedScan::new(metric, &a, &wide) else {
            continue;
        };
        let mut best = TopK::new(2);
        if scan.push(7, &b, &mut best).is_err() {
            assert!(b.check_finite().is_err());
            continue;
        }
        scan.push(8, &a, &mut best).unwrap();
        let hits = best.into_sorted();
        assert_eq!(hits.len(), 2);
        assert!(hits[0].distance <= hits[1].distance, "{hits:?}");
        if let (Vector::F32(x), Vector::F32(y)) = (&a, &b)
            && metric != Metric::Hamming
        {
            let truth = exact::distance(metric, x, y);
            let got = hits.iter().find(|h| h.rowid == 7).unwrap().distance;
            assert_eq!((got + 0.0).to_bits(), (truth + 0.0).to_bits(), "{metric:?}");
            let (scan, mut one) = (RowScan::new(metric, x.as_ref()), TopK::new(1));
            assert!(scan.push(7, y, &mut one));
            assert_eq!(
                (one.into_sorted()[0].distance + 0.0).to_bits(),
                (truth + 0.0).to_bits()
            );
        }
    }
});
