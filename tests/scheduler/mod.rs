//! The loop, on real databases: what runs, in which order, what stops it, and what is left after a failure.

mod aside;
mod due;
mod failure;
mod hands;
mod lanes;
mod order;
mod reload;
mod slices;
mod steering;
pub mod trips;
