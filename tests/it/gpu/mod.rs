//! The GPU probe through the built program: a real agent over a fake engine, and a fake driver library that the real
//! nvml-wrapper loads into the real probe.
pub mod driver;
mod readings;
mod troubles;
mod unkillable;
