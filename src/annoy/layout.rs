//! Where a number is in a node of a file.

use anyhow::{Result, bail};

use crate::spelling::did_you_mean;
use crate::vector::Metric;

/// What near means in a file of Annoy.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AnnoyMetric {
    /// Euclidean distance of the unit vectors: the root of twice our cosine distance.
    Angular,
    /// The l2 distance.
    Euclidean,
    /// The l1 distance.
    Manhattan,
    /// The inner product, larger is nearer.
    Dot,
    /// The number of bits that differ. A component is a bit, set if it is above .5.
    Hamming,
}

impl AnnoyMetric {
    /// All of them.
    pub const ALL: [AnnoyMetric; 5] = [
        AnnoyMetric::Angular,
        AnnoyMetric::Euclidean,
        AnnoyMetric::Manhattan,
        AnnoyMetric::Dot,
        AnnoyMetric::Hamming,
    ];

    /// Its name in Annoy.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            AnnoyMetric::Angular => "angular",
            AnnoyMetric::Euclidean => "euclidean",
            AnnoyMetric::Manhattan => "manhattan",
            AnnoyMetric::Dot => "dot",
            AnnoyMetric::Hamming => "hamming",
        }
    }

    /// The metric of this name.
    ///
    /// # Errors
    /// An unknown name; the message lists those there are.
    pub fn parse(name: &str) -> Result<AnnoyMetric> {
        let names = Self::ALL.map(Self::name);
        match Self::ALL.into_iter().find(|m| m.name() == name) {
            Some(metric) => Ok(metric),
            None => bail!(
                "unknown metric '{name}' of Annoy: expected one of {}{}",
                names.join(", "),
                did_you_mean(name, names)
            ),
        }
    }

    /// The metric under which an index has the same neighbours in the same order. For bits that is l2 over components 0 and
    /// 1, whose square is the number of bits that differ.
    #[must_use]
    pub fn of_index(self) -> Metric {
        match self {
            AnnoyMetric::Angular => Metric::Cosine,
            AnnoyMetric::Euclidean | AnnoyMetric::Hamming => Metric::L2,
            AnnoyMetric::Manhattan => Metric::L1,
            AnnoyMetric::Dot => Metric::Dot,
        }
    }

    /// What Annoy calls the metric of an index.
    #[must_use]
    pub fn of(metric: Metric) -> AnnoyMetric {
        match metric {
            Metric::Cosine => AnnoyMetric::Angular,
            Metric::L2 => AnnoyMetric::Euclidean,
            Metric::L1 => AnnoyMetric::Manhattan,
            Metric::Dot => AnnoyMetric::Dot,
            Metric::Hamming => AnnoyMetric::Hamming,
        }
    }
}

/// The places of a node's numbers, in bytes from its start.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Layout {
    pub(super) metric: AnnoyMetric,
    pub(super) dim: usize,
    /// Bytes of a node.
    pub(super) node: usize,
    pub(super) children: usize,
    pub(super) vector: usize,
    /// The most items that a node can list.
    pub(super) bucket: usize,
}

impl Layout {
    /// That of Annoy 1.17, as released.
    pub(super) fn new(metric: AnnoyMetric, dim: usize) -> Layout {
        let (children, vector) = match metric {
            AnnoyMetric::Angular => (4, 12),
            AnnoyMetric::Euclidean | AnnoyMetric::Manhattan => (8, 16),
            AnnoyMetric::Dot | AnnoyMetric::Hamming => (4, 16),
        };
        Layout::with(metric, dim, children, vector)
    }

    /// All that a file of this metric can have. After 1.17.3, nodes of `dot` got two numbers more.
    pub(super) fn all(metric: AnnoyMetric, dim: usize) -> Vec<Layout> {
        let mut all = vec![Layout::new(metric, dim)];
        if metric == AnnoyMetric::Dot {
            all.push(Layout::with(metric, dim, 4, 24));
        }
        all
    }

    fn with(metric: AnnoyMetric, dim: usize, children: usize, vector: usize) -> Layout {
        let bytes = match metric {
            AnnoyMetric::Hamming => dim.div_ceil(64) * 8,
            _ => dim * 4,
        };
        Layout {
            metric,
            dim,
            node: vector + bytes,
            children,
            vector,
            bucket: (vector + bytes - children) / 4,
        }
    }

    /// The node of a bit of a plane, as Annoy numbers bits: from the high end of each word.
    pub(super) fn bit_number(bit: usize) -> u64 {
        (bit / 64 * 64 + 63 - bit % 64) as u64
    }
}
