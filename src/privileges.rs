//! What a child gets of the unit's privileges: nothing. The unit gives the agent CAP_SYSLOG for /dev/kmsg as an ambient
//! capability, which every exec would hand on to shims, engines and the GPU probe.
use rustix::io::Errno;
use rustix::thread::{
    CapabilitySet, CapabilitySets, capabilities, clear_ambient_capability_set, set_capabilities,
};
use std::io;

/// Leaves no capability for the next exec to hand on, beyond those of the account itself. Safe between fork and exec.
pub fn give_none_to_children() -> io::Result<()> {
    match clear_ambient_capability_set() {
        // A kernel, or a sandbox that plays one, without an ambient set has none to hand on.
        Ok(()) | Err(Errno::INVAL) => {}
        Err(why) => return Err(why.into()),
    }
    // Of these alone nothing is handed on: only a program file that is marked for them could take one up again.
    let without = |own| CapabilitySets { inheritable: CapabilitySet::empty(), ..own };
    let _ = capabilities(None).and_then(|own| set_capabilities(None, without(own)));
    Ok(())
}
