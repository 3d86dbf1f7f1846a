#![doc = include_str!("ARCHITECTURE.md")]

pub mod agent;
pub mod alert;
pub mod cli;
pub mod clock;
pub mod config;
pub mod control;
mod descriptors;
pub mod gpu;
pub mod heart;
pub mod kinds;
mod lookout;
pub mod policy;
pub mod printable;
mod privileges;
pub mod proxy;
pub mod redact;
pub mod shim;
mod shortage;
pub mod systemd;
mod threads;
