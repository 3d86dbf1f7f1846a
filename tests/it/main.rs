//! The one integration-test binary: it drives the built `mainstay` and the fake engine as a user's shell would.
mod agent;
mod cli;
mod config;
mod control;
mod corpus;
mod explain;
mod gpu;
mod help;
mod hostile_text;
mod metrics;
mod proxy;
mod shim;
mod simulation;
mod support;
mod systemd;
mod tidy;
