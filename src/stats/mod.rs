//! Estimates: one idea a file. Pure functions of counts and sums; no clock, no chance, no I/O.

pub mod importance;
pub mod moments;
pub mod sequence;
pub mod special;
