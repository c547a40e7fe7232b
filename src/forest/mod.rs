//! From vectors to neighbours.
