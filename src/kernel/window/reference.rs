//! The steps of a block and of a path in plain f64: the formulas of [`window`](super), term by term. The instances are tested against it,
//! and it is tested against finite differences of the loss.

/// A block of inputs and outputs, each a row of equal length.
#[derive(Debug, Clone, PartialEq)]
pub struct Plain {
    /// x_i
    pub inputs: Vec<Vec<f64>>,
    /// o_j
    pub outputs: Vec<Vec<f64>>,
    /// y_j: 0 or 1
    pub labels: Vec<f64>,
    /// w_ij, by input: w_j, or 0 where the pair is excluded
    pub weights: Vec<Vec<f64>>,
}

fn dot(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(x, y)| x * y).sum()
}

impl Plain {
    /// L = - sum w_ij log sigma((2 y_j - 1) <x_i, o_j>)
    #[must_use]
    pub fn loss(&self) -> f64 {
        let mut sum = 0.0;
        for (x, w) in self.inputs.iter().zip(&self.weights) {
            for ((o, y), w) in self.outputs.iter().zip(&self.labels).zip(w) {
                let s = (2.0 * y - 1.0) * dot(x, o);
                sum += w * ((-s).max(0.0) + (-s.abs()).exp().ln_1p());
            }
        }
        sum
    }

    /// One step of gradient descent on the loss, at rate `alpha`, from the values before the step.
    pub fn step(&mut self, alpha: f64) {
        let before = self.clone();
        self.step_from(&before, alpha);
    }

    /// The same with `before` in place of the values before the step: x and o as factors, which may be rounded.
    pub fn step_from(&mut self, before: &Plain, alpha: f64) {
        for (i, x) in before.inputs.iter().enumerate() {
            for (j, o) in before.outputs.iter().enumerate() {
                let sigma = 1.0 / (1.0 + (-dot(x, o)).exp());
                let g = alpha * self.weights[i][j] * (self.labels[j] - sigma);
                for (to, o) in self.inputs[i].iter_mut().zip(o) {
                    *to += g * o;
                }
                for (to, x) in self.outputs[j].iter_mut().zip(x) {
                    *to += g * x;
                }
            }
        }
    }
}

/// The step of a path: an input, the place of its error, and outputs: rows (which may come again) and labels. Returns the
/// loss before the step.
pub fn path(
    x: &[f64],
    sink: &mut [f64],
    rows: &mut [Vec<f64>],
    targets: &[(usize, f64)],
    alpha: f64,
    outputs_learn: bool,
) -> f64 {
    let scores: Vec<f64> = targets.iter().map(|&(row, _)| dot(x, &rows[row])).collect();
    let mut loss = 0.0;
    for (&(row, y), s) in targets.iter().zip(scores) {
        let signed = (2.0 * y - 1.0) * s;
        loss += (-signed).max(0.0) + (-signed.abs()).exp().ln_1p();
        let g = alpha * (y - 1.0 / (1.0 + (-s).exp()));
        for (c, o) in rows[row].iter_mut().enumerate() {
            sink[c] += g * *o;
            if outputs_learn {
                *o += g * x[c];
            }
        }
    }
    loss
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::embed::random::Random;

    #[test]
    fn the_step_goes_down_the_gradient_found_by_finite_differences() {
        let seed = 11;
        let mut random = Random::new(seed, [0, 0]);
        let (m, k, dim) = (4, 3, 5);
        let mut rows = |n: usize| -> Vec<Vec<f64>> {
            (0..n)
                .map(|_| {
                    (0..dim)
                        .map(|_| f64::from(random.unit()) * 2.0 - 1.0)
                        .collect()
                })
                .collect()
        };
        let mut block = Plain {
            inputs: rows(m),
            outputs: rows(k),
            labels: vec![1.0, 0.0, 0.0],
            weights: vec![vec![1.0, 0.5, 2.0]; m],
        };
        block.weights[2][1] = 0.0;
        let mut stepped = block.clone();
        let alpha = 0.1;
        stepped.step(alpha);

        let h = 1e-6;
        for which in 0..2 {
            for row in 0..[m, k][which] {
                for c in 0..dim {
                    let at = |shift: f64| {
                        let mut moved = block.clone();
                        [&mut moved.inputs, &mut moved.outputs][which][row][c] += shift;
                        moved.loss()
                    };
                    let slope = (at(h) - at(-h)) / (2.0 * h);
                    let change = [&stepped.inputs, &stepped.outputs][which][row][c]
                        - [&block.inputs, &block.outputs][which][row][c];
                    assert!(
                        (change + alpha * slope).abs() < 1e-8,
                        "{change} against {slope} (seed {seed})"
                    );
                }
            }
        }
    }
}
