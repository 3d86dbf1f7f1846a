//! `[gpu]`: the watch over the GPUs.
use super::section::Section;
use super::value::flag;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Gpu {
    /// Whether the driver is asked how each GPU is.
    pub probe: bool,
}

pub(super) fn read(mut section: Section<'_>) -> Gpu {
    let gpu = Gpu { probe: section.read("probe", flag).unwrap_or(true) };
    for (key, what) in
        [("kernel_log", "`kernel_log` is not supported yet"), ("fence", "`fence` is not supported yet")]
    {
        section.refuse(key, what, "remove it");
    }
    section.finish();
    gpu
}
