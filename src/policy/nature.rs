//! What has to change before a start that failed can succeed.

/// Decides how often it is tried again. Beside the cause, which says what happened: one cause may have several natures (a
/// model that is not there may be a mount that is late, or a wrong name).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Nature {
    /// The engine, or nobody knows what: a strike.
    Engine,
    /// What the operator wrote, or installed: a strike, and the second one is held.
    Configuration,
    /// What is not there yet, or is held by another process: a driver, a mount, a name service, a port, a container's name,
    /// GPU memory. It passes by itself. No strike, never held.
    Environment,
    /// A limit of this host that a system call of our own met. No strike, never held.
    Shortage,
}
