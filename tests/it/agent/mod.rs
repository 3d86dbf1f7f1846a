//! The agent from outside: the built program over fake engines, which show the faults that real ones cannot be made to.
mod addresses;
mod blame;
mod boot;
mod causes;
mod cpu_fallback;
mod endings;
mod faults;
mod incidents;
mod memory;
mod operator;
mod output;
mod peers;
mod privileges;
pub mod rig;
mod secrets;
mod shims;
mod signals;
mod starting;
