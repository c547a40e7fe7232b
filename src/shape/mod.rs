//! The shape of a set of vectors: groups, and a picture in the plane.
//!
//! * mod `cluster`: k-means.
//! * mod `project`: the two directions in which the vectors differ most.
//!
//! Both give the same numbers for any number of threads: rows are compared in parallel, and added up in their order.

mod cluster;
mod project;

pub use cluster::{ClusterOptions, Clusters, cluster};
pub use project::project;
