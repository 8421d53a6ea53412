//! `--attest`, `--provenance` and `--sbom`: nothing is attested yet, so what scripts say to have it so is taken, and all else refused.

use rbuild_frontend::parse_bool;

use crate::args::BuildArgs;
use crate::report::{Failure, Kind};

/// Refuses to attest.
///
/// # Errors
/// When an attestation is asked for.
pub(super) fn refuse(args: &BuildArgs) -> Result<(), Failure> {
    let flags = [("--provenance", &args.provenance), ("--sbom", &args.sbom)];
    for (flag, value) in flags.into_iter().filter_map(|(flag, value)| Some((flag, value.as_ref()?))) {
        if !is_off(value) {
            return Err(unsupported(flag, value));
        }
    }
    match args.attestations.iter().find(|spec| !is_disabled(spec)) {
        Some(spec) => Err(unsupported("--attest", spec)),
        None => Ok(()),
    }
}

fn is_off(value: &str) -> bool {
    value.is_empty() || parse_bool(value) == Some(false) || is_disabled(value)
}

/// `type=sbom,disabled=true`.
fn is_disabled(spec: &str) -> bool {
    let fields = spec.split(',').filter_map(|field| field.split_once('='));
    spec.is_empty()
        || fields.filter(|(key, _)| *key == "disabled").any(|(_, value)| parse_bool(value) == Some(true))
}

fn unsupported(flag: &str, value: &str) -> Failure {
    Failure::new(Kind::Input, format!("`{flag}={value}`: attestations are not supported yet"))
        .hint("`--provenance=false --sbom=false` builds without them, as rbuild always does")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_absence_of_attestations_is_granted() {
        for off in ["", "false", "0", "mode=max,disabled=true"] {
            assert!(is_off(off), "{off}");
        }
        for on in ["true", "1", "mode=min", "mode=max,disabled=false", "nonsense"] {
            assert!(!is_off(on), "{on}");
        }
        assert!(is_disabled("type=sbom,disabled=true") && !is_disabled("type=sbom"));
    }
}
