//! `mainstay gpus`: what the agent knows of each GPU, for people or (`--json`) for programs.
mod render;

pub use render::{render, sentence};

use super::exit::Exit;
use super::screen::{Screen, complain, show, show_json};
use crate::clock;
use crate::control::client::Client;
use serde_json::json;

pub fn main(client: &Client, json: bool) -> Exit {
    let (status, whole) = match client.status() {
        Ok(answer) => answer,
        Err(failure) => {
            complain(&failure);
            return Exit::from(&failure);
        }
    };
    if json {
        let part = json!({ "gpu_probe": whole["gpu_probe"], "gpus": whole["gpus"] });
        return show_json(&format!("{part:#}\n")).into();
    }
    let screen = Screen::of_stdout();
    show(render(&status.gpu_probe, &status.gpus, clock::wall_ms(), screen.width, screen.colour)).into()
}
