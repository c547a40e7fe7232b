//! Skip-gram: a window at a time.

use anyhow::Result;

use super::{Worker, any_twice, collect};
use crate::embed::vocab::WordId;
use crate::kernel::window::{INPUTS, OUTPUTS};

/// The rows of the window this many positions ahead are fetched.
const AHEAD: usize = 2;

impl Worker<'_> {
    /// Trains the positions `from..to` of the kept document.
    pub(super) fn skip_gram(&mut self, from: usize, to: usize) -> Result<()> {
        let n_noise = self.shared.options.negative;
        self.list_outputs(from, to);
        for position in from..to {
            self.fetch_window(position + AHEAD, from, to);
            let (low, high) = self.window(position, from);
            if high - low == 1 {
                continue;
            }
            let measured = self.is_measured();
            if measured {
                self.losses[self.epoch].n += (high - low - 1) as u64;
            }
            let center = self.kept[position];
            let first = (position - from) * n_noise;
            let drawn = &self.noise[first..first + n_noise];
            if high - low > INPUTS + 1 {
                collect(&mut self.drawn, drawn, center);
                for (low, high) in [(low, position), (position + 1, high)] {
                    for next in (low..high).step_by(INPUTS) {
                        self.block.clear_inputs();
                        for row in &self.rows[next..(next + INPUTS).min(high)] {
                            self.block.input(*row, *row);
                        }
                        self.window_steps(center, measured)?;
                    }
                }
                continue;
            }
            self.block.window(&self.rows, low, position, high);
            let outputs = self.outputs.get((position - from) * (1 + n_noise)..);
            let outputs: Option<&[_; OUTPUTS]> = outputs.and_then(<[_]>::first_chunk);
            match outputs.copied() {
                // The usual case: one block.
                Some(outputs) if !any_twice(drawn, center) => {
                    self.tree_steps(center, measured)?;
                    self.block.word_and_noise(&outputs, 1 + n_noise);
                    self.step(measured)?;
                }
                _ => {
                    collect(&mut self.drawn, drawn, center);
                    self.window_steps(center, measured)?;
                }
            }
        }
        Ok(())
    }

    /// Lists the output vectors of word and noise, if they fit a block.
    fn list_outputs(&mut self, from: usize, to: usize) {
        self.outputs.clear();
        let n_noise = self.shared.options.negative;
        let Some(output) = &self.shared.output else {
            return;
        };
        if n_noise >= OUTPUTS {
            return;
        }
        for (&center, drawn) in self.kept[from..to].iter().zip(self.noise.chunks(n_noise)) {
            self.outputs.push(output.row(center));
            self.outputs.extend(drawn.iter().map(|&id| output.row(id)));
        }
        let n = self.outputs.len();
        self.outputs.resize(n + OUTPUTS, output.row(0));
    }

    /// Trains the inputs of the block on the word between them.
    fn window_steps(&mut self, center: WordId, measured: bool) -> Result<()> {
        self.tree_steps(center, measured)?;
        self.noise_steps(Some(center), 1.0, measured)
    }

    /// Asks for the rows of a window that comes soon: the word that enters it, the centre's and the noise words'.
    fn fetch_window(&mut self, position: usize, from: usize, to: usize) {
        if position >= to {
            return;
        }
        let entering = position + self.windows[position - from] as usize;
        if let Some(&entering) = self.rows.get(entering) {
            self.block.fetch(entering);
        }
        let n = 1 + self.shared.options.negative;
        if let Some(rows) = self.outputs.get((position - from) * n..) {
            for &row in rows.iter().take(n) {
                self.block.fetch(row);
            }
        }
    }
}
