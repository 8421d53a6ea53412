//! `--trust-ca`: the authorities that steps and containers trust beside those of their images.

use std::path::PathBuf;

use rbuild_executor::Trust;

use crate::app;
use crate::report::{Failure, Kind};

/// What the config file and then the command line name.
///
/// # Errors
/// When a file cannot be read, or is not one of certificates.
pub(crate) fn trust(files: &[PathBuf]) -> Result<Trust, Failure> {
    let configured = app::config()?.security.trust_ca;
    let mut trust = Trust::default();
    for file in configured.iter().chain(files) {
        let failed = |error: &dyn std::fmt::Display| {
            Failure::new(Kind::Input, format!("failed to trust `{}`: {error}", file.display()))
        };
        let pem = std::fs::read(file).map_err(|error| failed(&error))?;
        trust.add(&String::from_utf8_lossy(&pem)).map_err(|error| failed(&error))?;
    }
    Ok(trust)
}
