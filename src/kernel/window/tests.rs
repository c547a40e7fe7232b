//! Every instance against the plain one, on every level the processor has.

use super::reference::Plain;
use super::*;
use crate::embed::random::Random;

const SIZES: [usize; 8] = [1, 2, 15, 16, 17, 100, 300, 1024];

/// The steps of every level this machine has; a missing one is reported, and is a failure when
/// `SQLITE_ANNOY_REQUIRE_ISA` names it or a higher one. And whether their blocks round factors to bf16.
fn levels() -> Vec<(Steps, bool)> {
    let required = std::env::var("SQLITE_ANNOY_REQUIRE_ISA").ok();
    let required = required.and_then(|name| Level::ALL.into_iter().find(|l| l.name() == name));
    let mut all = Vec::new();
    for level in Level::ALL {
        if level.is_available() {
            let steps = Steps::at(level);
            assert_eq!(steps.level(), level);
            #[cfg(target_arch = "x86_64")]
            if level == Level::Avx512 && bf16::is_available() {
                all.push((steps, true));
                all.push((x86::AVX512, false));
                continue;
            }
            all.push((steps, false));
        } else {
            assert!(
                Some(level) > required,
                "level {} is required, and this processor lacks it",
                level.name()
            );
            eprintln!("skipped level {}: this processor lacks it", level.name());
        }
    }
    all
}

/// n rows of `dim` numbers in -bound..bound, padded with zeros to `stride`.
fn rows(random: &mut Random, n: usize, dim: usize, bound: f32) -> Vec<f32> {
    let stride = dim.next_multiple_of(PAD);
    let mut all = vec![0.0; n * stride];
    for row in all.chunks_mut(stride) {
        row[..dim].fill_with(|| (random.unit() * 2.0 - 1.0) * bound);
    }
    all
}

fn row_at<'a>(all: *mut f32, stride: usize, i: usize) -> Row<'a> {
    // SAFETY: the tests index rows that exist, and keep the buffer alive while they step.
    unsafe { Row::new(all.add(i * stride)) }
}

fn plain(all: &[f32], stride: usize) -> Vec<Vec<f64>> {
    all.chunks(stride)
        .map(|r| r.iter().map(|&x| f64::from(x)).collect())
        .collect()
}

/// What a block's step takes as factors.
fn factors(block: &Plain, rounds: bool) -> Plain {
    let factor = |x: &mut f64| {
        if rounds {
            *x = f64::from(f32::from_bits((*x as f32).to_bits() & 0xFFFF_0000));
        }
    };
    let mut factors = block.clone();
    for rows in [&mut factors.inputs, &mut factors.outputs] {
        rows.iter_mut().flatten().for_each(factor);
    }
    factors
}

/// `moved`: the farthest that a step can move a component. Where g is rounded to bf16 it may be 2^-9 of that away, and
/// as much again by the sigmoid.
fn assert_close(what: &str, rounds: bool, moved: f64, got: &[f32], expected: &[Vec<f64>]) {
    let expected: Vec<f64> = expected.concat();
    assert_eq!(got.len(), expected.len());
    let slack = if rounds { moved / 256.0 } else { 0.0 };
    for (i, (g, e)) in got.iter().zip(&expected).enumerate() {
        assert!(
            (f64::from(*g) - e).abs() <= slack + 2e-6 * (1.0 + e.abs()),
            "{what}: component {i} is {g}, expected {e}"
        );
    }
}

#[test]
fn every_block_steps_as_the_plain_formulas_say() {
    for (steps, rounds) in levels() {
        let mut random = Random::new(3, [steps.level() as u64, 0]);
        for dim in SIZES {
            for m in 1..=INPUTS {
                for k in 1..=OUTPUTS {
                    // Scores of all magnitudes: the larger ones saturate.
                    let bound = [0.1, 1.0, 8.0][(m + k) % 3] / (dim as f32).sqrt();
                    let stride = dim.next_multiple_of(PAD);
                    let mut x = rows(&mut random, m, dim, bound);
                    let mut o = rows(&mut random, k, dim, bound);
                    let weights: Vec<f32> = (0..k).map(|j| [1.0, 0.5, 2.0][j % 3]).collect();
                    let excluded = (m > 2 && k > 1).then_some((m - 1, k - 1));

                    let mut expected = Plain {
                        inputs: plain(&x, stride),
                        outputs: plain(&o, stride),
                        labels: (0..k).map(|j| f64::from(u8::from(j == 0))).collect(),
                        weights: vec![weights.iter().map(|&w| f64::from(w)).collect(); m],
                    };
                    if let Some((i, j)) = excluded {
                        expected.weights[i][j] = 0.0;
                    }
                    let before = factors(&expected, rounds);
                    let loss = before.loss();
                    expected.step_from(&before, 0.05);
                    // |g| is at most .05 times the weight.
                    let moved = |total: f32| f64::from(0.05 * total * bound);
                    let of_inputs = moved(weights.iter().sum());
                    let of_outputs = moved(2.0 * m as f32);

                    let mut block = Block::new(stride);
                    // Leftovers of an earlier, larger block must not matter.
                    block.weights = [3.0; LANES];
                    block.labels = [7.0; LANES];
                    block.n_outputs = OUTPUTS;
                    block.clear_outputs();
                    block.alpha = 0.05;
                    for i in 0..m {
                        let row = row_at(x.as_mut_ptr(), stride, i);
                        block.input(row, row);
                    }
                    for (j, &w) in weights.iter().enumerate() {
                        block.output(row_at(o.as_mut_ptr(), stride, j), j == 0, w);
                    }
                    if let Some((i, j)) = excluded {
                        block.exclude(i, j);
                    }
                    steps.block(&mut block);
                    let what = format!(
                        "{} (bf16: {rounds}) dim {dim}, {m} inputs, {k} outputs",
                        steps.level().name(),
                    );
                    assert!(
                        (block.loss() - loss).abs() < 1e-5 * (1.0 + loss),
                        "{what}: loss {} {loss}",
                        block.loss()
                    );
                    assert_close(&what, rounds, of_inputs, &x, &expected.inputs);
                    assert_close(&what, rounds, of_outputs, &o, &expected.outputs);
                }
            }
        }
    }
}

#[test]
fn an_error_goes_to_its_sink_and_repeated_inputs_add_up() {
    for (steps, rounds) in levels() {
        let mut random = Random::new(4, [0, 0]);
        let (dim, stride) = (20, 32);
        let mut x = rows(&mut random, 2, dim, 0.5);
        let mut o = rows(&mut random, 2, dim, 0.5);
        let mut sinks = vec![0.0; 2 * stride];
        let before = x.clone();
        let mut expected = Plain {
            inputs: plain(&x, stride),
            outputs: plain(&o, stride),
            labels: vec![1.0, 0.0],
            weights: vec![vec![1.0; 2]; 2],
        };
        let factors = factors(&expected, rounds);
        expected.step_from(&factors, 0.5);
        let mut block = Block::new(stride);
        block.alpha = 0.5;
        for i in 0..2 {
            block.input(
                row_at(x.as_mut_ptr(), stride, i),
                row_at(sinks.as_mut_ptr(), stride, i),
            );
            block.output(row_at(o.as_mut_ptr(), stride, i), i == 0, 1.0);
        }
        steps.block(&mut block);
        assert_eq!(x, before, "an input with a sink of its own is only read");
        let moved: Vec<f32> = before.iter().zip(&sinks).map(|(b, s)| b + s).collect();
        assert_close("sinks", rounds, 0.5, &moved, &expected.inputs);
        assert_close("outputs", rounds, 0.5, &o, &expected.outputs);

        // The same row twice moves twice as far.
        let mut once = before.clone();
        let mut out = rows(&mut random, 1, dim, 0.5);
        let kept = out.clone();
        let step = |x: &mut Vec<f32>, o: &mut Vec<f32>, times: usize| {
            let mut block = Block::new(stride);
            block.alpha = 0.5;
            for _ in 0..times {
                let row = row_at(x.as_mut_ptr(), stride, 0);
                block.input(row, row);
            }
            block.output(row_at(o.as_mut_ptr(), stride, 0), true, 1.0);
            steps.block(&mut block);
        };
        step(&mut once, &mut out, 1);
        let mut twice = before.clone();
        out = kept;
        step(&mut twice, &mut out, 2);
        for c in 0..dim {
            let (one, two) = (once[c] - before[c], twice[c] - before[c]);
            // The rounded error is multiplied once, or twice.
            let slack = 1e-6 + if rounds { one.abs() / 64.0 } else { 0.0 };
            assert!((two - 2.0 * one).abs() < slack, "{one} {two}");
        }
    }
}

#[test]
fn pairs_step_as_blocks_of_one_input_and_one_output() {
    for (steps, _) in levels() {
        let mut random = Random::new(5, [0, 0]);
        for dim in SIZES {
            for n in 1..=INPUTS {
                let stride = dim.next_multiple_of(PAD);
                let mut x = rows(&mut random, n, dim, 1.0 / (dim as f32).sqrt());
                let mut o = rows(&mut random, n, dim, 1.0 / (dim as f32).sqrt());
                let (mut inputs, mut outputs, mut loss) =
                    (plain(&x, stride), plain(&o, stride), 0.0);
                for i in 0..n {
                    let mut one = Plain {
                        inputs: vec![inputs[i].clone()],
                        outputs: vec![outputs[i].clone()],
                        labels: vec![1.0],
                        weights: vec![vec![1.0]],
                    };
                    loss += one.loss();
                    one.step(0.1);
                    (inputs[i], outputs[i]) = (one.inputs.remove(0), one.outputs.remove(0));
                }
                // What an error was before does not matter.
                let mut errors = vec![9.0; n * stride];
                let mut pairs = Pairs::new(stride);
                pairs.alpha = 0.1;
                for i in 0..n {
                    let row = row_at(x.as_mut_ptr(), stride, i);
                    let error = row_at(errors.as_mut_ptr(), stride, i);
                    pairs.push(row, error, row_at(o.as_mut_ptr(), stride, i));
                }
                steps.pairs(&mut pairs);
                x.iter_mut().zip(&errors).for_each(|(x, e)| *x += e);
                let what = format!("{} dim {dim}, {n} pairs", steps.level().name());
                assert!((pairs.loss() - loss).abs() < 1e-5 * (1.0 + loss), "{what}");
                assert_close(&what, false, 0.0, &x, &inputs);
                assert_close(&what, false, 0.0, &o, &outputs);
            }
        }
    }
}

#[test]
fn every_path_steps_as_the_plain_formulas_say() {
    for (steps, _) in levels() {
        let seed = 7;
        let mut random = Random::new(seed, [steps.level() as u64, 0]);
        for dim in SIZES {
            for n in [0, 1, 3, 4, 5, 8, 13, 16, 17, 33, 70] {
                // Where the error goes: to the input, or elsewhere, added or written; and whether outputs learn.
                let kinds = [
                    (false, false, true),
                    (true, false, true),
                    (true, true, true),
                    (true, true, false),
                ];
                for (is_apart, is_first, outputs_learn) in kinds {
                    let stride = dim.next_multiple_of(PAD);
                    let bound = [0.1, 1.0, 8.0][n % 3] / (dim as f32).sqrt();
                    let mut x = rows(&mut random, 1, dim, bound);
                    let mut sink = rows(&mut random, 1, dim, bound);
                    let mut o = rows(&mut random, 80, dim, bound);
                    // Some rows come twice.
                    let targets: Vec<Target> = (0..n as u32)
                        .map(|i| Target::new((i * i + 3) % 80, random.below(2) == 1))
                        .collect();

                    let (before, mut outputs) = (plain(&x, stride).remove(0), plain(&o, stride));
                    let mut expected = match (is_apart, is_first) {
                        (false, _) => before.clone(),
                        (true, false) => plain(&sink, stride).remove(0),
                        (true, true) => vec![0.0; stride],
                    };
                    let labels: Vec<(usize, f64)> = targets
                        .iter()
                        .map(|t| (t.row() as usize, f64::from(u8::from(t.label()))))
                        .collect();
                    let loss = reference::path(
                        &before,
                        &mut expected,
                        &mut outputs,
                        &labels,
                        0.05,
                        outputs_learn,
                    );

                    let input = row_at(x.as_mut_ptr(), stride, 0);
                    // SAFETY: 80 rows of the vector, which is not touched otherwise while they are used.
                    let mut scratch = Paths::new(unsafe { Rows::new(o.as_mut_ptr(), 80, stride) });
                    scratch.alpha = 0.05;
                    scratch.outputs_learn = outputs_learn;
                    let path = Path {
                        input,
                        sink: if is_apart {
                            row_at(sink.as_mut_ptr(), stride, 0)
                        } else {
                            input
                        },
                        is_first,
                        targets: &targets,
                        soon: (Some(input), &targets[..n / 2]),
                    };
                    let unchanged = o.clone();
                    steps.path(&mut scratch, &path);
                    let what = format!(
                        "{} dim {dim}, {n} outputs, apart {is_apart}, first {is_first}, seed {seed}",
                        steps.level().name()
                    );
                    let found = scratch.loss(&path);
                    assert!(
                        (found - loss).abs() < 1e-5 * (1.0 + loss),
                        "{what}: loss {found} {loss}"
                    );
                    assert_close(
                        &what,
                        false,
                        0.0,
                        if is_apart { &sink } else { &x },
                        &[expected],
                    );
                    if is_apart {
                        assert_close(&what, false, 0.0, &x, &[before]);
                    }
                    assert_close(&what, false, 0.0, &o, &outputs);
                    assert!(outputs_learn || o == unchanged, "{what}");
                }
            }
        }
    }
}

#[test]
#[should_panic(expected = "a target beyond the 2 rows")]
fn a_target_that_is_no_row_is_refused() {
    let mut o = vec![0.0; 2 * PAD];
    let mut x = vec![0.0; PAD];
    let input = row_at(x.as_mut_ptr(), PAD, 0);
    // SAFETY: two rows.
    let mut scratch = Paths::new(unsafe { Rows::new(o.as_mut_ptr(), 2, PAD) });
    let path = Path {
        input,
        sink: input,
        is_first: false,
        targets: &[Target::new(2, true)],
        soon: (None, &[]),
    };
    Steps::at(Level::Portable).path(&mut scratch, &path);
}

#[test]
fn a_span_gives_the_means_of_its_windows_and_takes_their_errors_back() {
    for (steps, _) in levels() {
        let seed = 6;
        let mut random = Random::new(seed, [0, 0]);
        for dim in [1usize, 16, 100, 300] {
            for n in [1, 2, 7, 40] {
                let stride = dim.next_multiple_of(PAD);
                let mut x = rows(&mut random, n, dim, 1.0);
                let before = plain(&x, stride);
                let mut span = Span::new(stride);
                for i in 0..n {
                    span.rows(&[row_at(x.as_mut_ptr(), stride, i)]);
                }
                let n_means = n.min(INPUTS);
                let mut h = rows(&mut random, n_means, dim, 1.0);
                let mut errors = rows(&mut random, n_means, dim, 1.0);
                let means: Vec<Mean> = (0..n_means)
                    .map(|own| Mean {
                        from: own.saturating_sub(random.below(5) as usize),
                        to: (own + 1 + random.below(5) as usize).min(n),
                        own,
                        factor: 0.25,
                        share: 0.5,
                        mean: row_at(h.as_mut_ptr(), stride, own),
                        error: row_at(errors.as_mut_ptr(), stride, own),
                    })
                    .collect();
                means.iter().for_each(|&m| span.mean(m));
                steps.gather(&mut span);
                errors.copy_from_slice(&rows(&mut random, n_means, dim, 1.0));
                steps.scatter(&mut span);

                let mut expected_h = Vec::new();
                let mut expected_x = before.clone();
                for (m, mean) in means.iter().enumerate() {
                    let mut sum = vec![0.0; stride];
                    for r in (mean.from..mean.to).filter(|&r| r != mean.own) {
                        for c in 0..stride {
                            sum[c] += 0.25 * before[r][c];
                            expected_x[r][c] += 0.5 * f64::from(errors[m * stride + c]);
                        }
                    }
                    expected_h.push(sum);
                }
                let what = format!("{} dim {dim}, {n} rows, seed {seed}", steps.level().name());
                let close = |got: &[f32], expected: &[Vec<f64>]| {
                    // Sums of up to 40 rows of numbers up to 1.
                    got.iter()
                        .zip(expected.concat())
                        .all(|(&g, e)| (f64::from(g) - e).abs() < 2e-5)
                };
                assert!(close(&h, &expected_h), "{what}: means");
                assert!(close(&x, &expected_x), "{what}: rows");
            }
        }
    }
}
