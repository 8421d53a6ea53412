//! Dropping capabilities.

use rustix::io::Errno;
use rustix::thread::{
    CapabilitySet, CapabilitySets, capabilities, clear_ambient_capability_set,
    remove_capability_from_bounding_set, set_capabilities,
};

use crate::Capabilities;
use crate::handshake::{Step, StepExt as _};

/// Makes `keep` the most that this process and all it executes can ever have.
pub(super) fn limit_bounding_set(keep: Capabilities) -> Step<()> {
    for number in 0..u64::BITS {
        if keep.bits() >> number & 1 == 1 {
            continue;
        }
        match remove_capability_from_bounding_set(CapabilitySet::from_bits_retain(1 << number)) {
            // The kernel knows no higher one.
            Err(Errno::INVAL) => break,
            other => other.step("limit the bounding set of capabilities")?,
        }
    }
    Ok(())
}

/// Keeps only `keep` of what is left after the change of user. Nothing is inheritable, nothing ambient.
pub(super) fn limit(keep: Capabilities) -> Step<()> {
    let current = capabilities(None).step("read the capabilities")?;
    let kept = current.permitted & CapabilitySet::from_bits_retain(keep.bits());
    let sets = CapabilitySets { effective: kept, permitted: kept, inheritable: CapabilitySet::empty() };
    set_capabilities(None, sets).step("limit the capabilities")?;
    match clear_ambient_capability_set() {
        // Linux before 4.3 has none.
        Err(Errno::INVAL) => Ok(()),
        other => other.step("clear the ambient capabilities"),
    }
}
