//! Estimates: one idea a file. Pure functions of counts and sums; no clock, no chance, no I/O.

pub mod cholesky;
pub mod importance;
pub mod laplace;
pub mod linear;
pub mod moments;
pub mod scaler;
pub mod sequence;
pub mod special;
