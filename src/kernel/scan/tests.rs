use super::*;

#[test]
fn estimates_are_the_same_bits_on_every_level_and_near_the_plain_sum() {
    let mut state = 5u64;
    let mut byte = || {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1);
        (state >> 56) as u8
    };
    for bits in [Bits::One, Bits::Two] {
        for dim in [
            1, 3, 4, 5, 8, 9, 15, 16, 17, 24, 25, 31, 32, 33, 50, 100, 128, 384, 785, 4128,
        ] {
            // A group of 64, and one of 48.
            let n = 112;
            let size = bits.block_bytes(dim);
            let g: Vec<i8> = (0..dim)
                .map(|d| match (d + dim) % 7 {
                    // The sums nearest to overflow.
                    0 if dim % 2 == 0 => 127,
                    _ if dim == 4128 || dim == 785 => 127,
                    _ => (byte() as i8).max(-127),
                })
                .collect();
            let all = if bits == Bits::One { 1 } else { 3 };
            let levels: Vec<u8> = (0..n * dim)
                .map(|i| if i < dim { all } else { byte() & all })
                .collect();
            let mut codes = vec![0u8; n / BLOCK * size];
            // Numbers that bfloat16 holds without rounding.
            let constant: Vec<f32> = (0..n).map(|_| f32::from(byte())).collect();
            let gain: Vec<f32> = (0..n).map(|_| f32::from(byte() / 2) / 128.0).collect();
            let width = dim.next_multiple_of(8);
            let most = bits.group();
            for (i, group) in codes.chunks_mut(most / BLOCK * size).enumerate() {
                let rows = group.len() / size * BLOCK;
                let mut padded = vec![0; rows * width];
                for v in 0..rows {
                    let row = i * most + v;
                    padded[v * width..][..dim].copy_from_slice(&levels[row * dim..][..dim]);
                    let constant = if row == 35 { f32::NAN } else { constant[row] };
                    put_factors(group, rows, v, constant, gain[row]);
                    let (c, g) = factors(group, rows, v);
                    assert!((c == constant || row == 35) && g == gain[row]);
                }
                bits.pack(&padded, rows, group);
            }
            let mut all = Vec::new();
            for level in Level::ALL.into_iter().filter(|l| l.is_available()) {
                let mut query = ScanQuery::default();
                query.prepare(level, bits, &g, 0.01);
                let mut out = vec![0.0; n];
                estimates(level, &query, &codes, 2.5, &mut out);
                assert!(out[35].is_nan(), "a slot that pads is never near");
                for (row, &got) in out.iter().enumerate().filter(|(row, _)| *row != 35) {
                    let u = |d: usize| match bits {
                        Bits::One => 2 * i32::from(levels[row * dim + d]) - 1,
                        Bits::Two => 2 * i32::from(levels[row * dim + d]) - 3,
                    };
                    let dot: i32 = (0..dim).map(|d| u(d) * i32::from(g[d])).sum();
                    let want = 2.5 + constant[row] - gain[row] * 0.01 * dot as f32;
                    // Each dimension of the query is off by half a step of at most 6 * 127 / 60.
                    let off = if bits == Bits::One {
                        6.35 * dim as f32
                    } else {
                        0.0
                    };
                    let tolerance = gain[row] * 0.01 * off + 1e-3 + 1e-6 * want.abs();
                    assert!(
                        (got - want).abs() <= tolerance,
                        "{level:?} {bits:?} {dim}: {got} {want}"
                    );
                }
                let mut sorted: Vec<f32> = out.iter().copied().filter(|x| !x.is_nan()).collect();
                sorted.sort_by(f32::total_cmp);
                for limit in [f32::INFINITY, sorted[20], sorted[0], -1e30] {
                    let (mut slots, mut found) = (vec![9], vec![1.0]);
                    let both = (2.5, limit);
                    survivors(
                        level, &query, &codes, &codes, both, 100, &mut slots, &mut found,
                    );
                    let want: Vec<usize> = (0..n).filter(|&i| out[i] <= limit).collect();
                    let got: Vec<usize> = slots[1..].iter().map(|&s| s as usize - 100).collect();
                    assert_eq!(got, want, "{level:?} {bits:?} {dim} {limit}");
                    let same = want.iter().zip(&found[1..]).all(|(&i, f)| out[i] == *f);
                    assert!(same && found.len() == slots.len());
                }
                all.push(out.iter().map(|x| x.to_bits()).collect::<Vec<_>>());
            }
            assert!(all.windows(2).all(|w| w[0] == w[1]), "{bits:?} {dim}");
        }
    }
}
