//! CBOW: groups of neighbouring positions, whose means are summed up together and share their noise.

use anyhow::Result;

use super::{CBOW_NOISE, GROUP, NOBODY, Worker, collect, even};
use crate::embed::options::CbowGradient;
use crate::kernel::dispatch::prefetch;
use crate::kernel::window::{Mean, Path};

/// Nodes so far from the root are fetched ahead; nearer ones are in the second cache: 2^10 rows of 100 dimensions take
/// half a megabyte.
const FAR: usize = 10;
/// Nodes are fetched for the word that comes so many later; where its path is written, as long before.
const AHEAD: usize = 2;

impl Worker<'_> {
    /// Trains the positions `from..to` of the kept document, a group at a time.
    pub(super) fn cbow(&mut self, from: usize, to: usize) -> Result<()> {
        let shared = self.shared;
        let n_noise = CBOW_NOISE * shared.options.negative;
        if shared.nodes.is_some() {
            // At once: where paths begin is in no near cache, but these look-ups don't wait for each other.
            let words = self.kept[from..].iter().take(to - from + 2 * AHEAD);
            self.tree_paths.clear();
            self.tree_paths
                .extend(words.map(|&id| shared.tree.path(id)));
        }
        for first in (from..to).step_by(GROUP) {
            let last = (first + GROUP).min(to);
            let n = self.means_of(first, last, from);
            if n == 0 {
                continue;
            }
            shared.steps.gather(&mut self.span);
            let measured = self.is_measured();
            if measured {
                self.losses[self.epoch].n += n as u64;
            }
            if let Some(output) = &shared.output {
                self.pairs.clear();
                for (m, &center) in self.centers[..n].iter().enumerate() {
                    self.pairs
                        .push(self.means[m], self.errors[m], output.row(center));
                }
                let drawn = (first - from) / GROUP * n_noise;
                self.fetch_group(last, drawn + n_noise);
                self.block.fetch_during(n_noise.div_ceil(even(n_noise)));
                shared.steps.pairs(&mut self.pairs);
                if measured {
                    self.add_loss(self.pairs.loss())?;
                }
                self.block.inputs(&self.means, &self.errors, n);
                collect(&mut self.drawn, &self.noise[drawn..drawn + n_noise], NOBODY);
                self.noise_steps(None, 1.0 / CBOW_NOISE as f32, measured)?;
            }
            if shared.nodes.is_some() {
                self.tree_steps_of_means(n, first, from, measured)?;
            }
            shared.steps.scatter(&mut self.span);
        }
        Ok(())
    }

    /// Hierarchical softmax: n means, each against the nodes on the path to its centre. Their group begins at `first`,
    /// the list of paths at `from`.
    fn tree_steps_of_means(
        &mut self,
        n: usize,
        first: usize,
        from: usize,
        measured: bool,
    ) -> Result<()> {
        let shared = self.shared;
        let Some(scratch) = &mut self.paths else {
            return Ok(());
        };
        shared.job.check()?;
        let mut loss = 0.0;
        for m in 0..n {
            if let Some(path) = self.tree_paths.get(first - from + m + 2 * AHEAD) {
                prefetch(bytemuck::cast_slice(path));
            }
            let next = self.tree_paths.get(first - from + m + AHEAD);
            let next = next.and_then(|path| path.get(FAR..));
            let entering = first + m + GROUP + shared.options.window;
            let path = Path {
                input: self.means[m],
                sink: self.errors[m],
                is_first: shared.output.is_none(),
                targets: shared.tree.path(self.centers[m]),
                soon: (self.rows.get(entering).copied(), next.unwrap_or(&[])),
            };
            shared.steps.path(scratch, &path);
            if measured {
                loss += scratch.loss(&path);
            }
        }
        self.add_loss(loss)
    }

    /// Asks for the rows of the group that begins at a position: the words that enter its windows, its centres, and its
    /// noise words, which begin at `drawn`.
    fn fetch_group(&mut self, first: usize, drawn: usize) {
        let shared = self.shared;
        let Some(output) = &shared.output else { return };
        let n = self.kept.len();
        let entering = first + shared.options.window;
        for &row in &self.rows[entering.min(n)..(entering + GROUP).min(n)] {
            self.block.fetch(row);
        }
        for &id in &self.kept[first.min(n)..(first + GROUP).min(n)] {
            self.block.fetch(output.row(id));
        }
        for &id in self
            .noise
            .iter()
            .skip(drawn)
            .take(CBOW_NOISE * shared.options.negative)
        {
            self.block.fetch(output.row(id));
        }
    }

    /// Lays out the span of the positions `first..last`, the means of their contexts, and the centres. Returns how many
    /// have a context.
    fn means_of(&mut self, first: usize, last: usize, from: usize) -> usize {
        let options = self.shared.options;
        let corrected = options.cbow_gradient == CbowGradient::Corrected;
        self.span.clear();
        let mut n = 0;
        self.centers = [NOBODY; GROUP];
        let mut windows = [(0, 0); GROUP];
        let (mut low, mut high) = (first, last);
        for (window, position) in windows.iter_mut().zip(first..last) {
            *window = self.window(position, from);
            low = low.min(window.0);
            high = high.max(window.1);
        }
        self.span.rows(&self.rows[low..high]);
        for (&(window_low, window_high), position) in windows.iter().zip(first..last) {
            let n_context = window_high - window_low - 1;
            if n_context == 0 {
                continue;
            }
            let inverse = 1.0 / n_context as f32;
            self.span.mean(Mean {
                from: window_low - low,
                to: window_high - low,
                own: position - low,
                factor: if options.cbow_mean { inverse } else { 1.0 },
                // See `CbowGradient`: gensim has it the other way round.
                share: if options.cbow_mean == corrected {
                    inverse
                } else {
                    1.0
                },
                mean: self.means[n],
                error: self.errors[n],
            });
            self.centers[n] = self.kept[position];
            n += 1;
        }
        n
    }
}
