//! Certificate authorities that processes trust beside those of their image: `--trust-ca`.
//!
//! One file in `/dev`, which is memory and in no layer, has the image's own authorities and the added ones, and variables lead
//! programs to it. The image's bundle stays as it is: what maintains it replaces it by renaming, which no mount would survive.

use std::os::fd::{AsFd as _, BorrowedFd};

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use rustix::fs::{CWD, Mode, OFlags, openat};
use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::init::read_beneath;

/// Names in `/dev`.
const BUNDLE: &str = "rbuild-ca.pem";
const APT: &str = "rbuild-apt.conf";

/// What programs read in the place of the distribution's bundle, and where it leads them.
const VARIABLES: [(&str, &str); 9] = [
    ("SSL_CERT_FILE", BUNDLE),
    ("CURL_CA_BUNDLE", BUNDLE),
    ("GIT_SSL_CAINFO", BUNDLE),
    ("REQUESTS_CA_BUNDLE", BUNDLE),
    ("PIP_CERT", BUNDLE),
    ("NODE_EXTRA_CA_CERTS", BUNDLE),
    ("AWS_CA_BUNDLE", BUNDLE),
    ("CARGO_HTTP_CAINFO", BUNDLE),
    ("APT_CONFIG", APT),
];

/// Where distributions keep their bundle: Debian, Fedora, openSUSE, older ones of these, Alpine.
const BUNDLES: [&str; 6] = [
    "etc/ssl/certs/ca-certificates.crt",
    "etc/pki/tls/certs/ca-bundle.crt",
    "etc/ssl/ca-bundle.pem",
    "etc/pki/tls/cacert.pem",
    "etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem",
    "etc/ssl/cert.pem",
];
/// The largest bundle that is taken over; the usual ones are a quarter of a megabyte.
const BUNDLE_SIZE_BYTES_MAX: u64 = 8 << 20;

/// The authorities, as PEM; none by default.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Trust(String);

/// Why a text is not of certificates.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum TrustError {
    /// There is no certificate in it.
    #[error("it has no certificate in PEM (`-----BEGIN CERTIFICATE-----`)")]
    Empty,
    /// Something else that is no step's to see, such as a private key.
    #[error("line {line}: `{label}` is no certificate")]
    Other {
        /// Where it begins.
        line: usize,
        /// What it calls itself.
        label: String,
    },
    /// It begins, and is damaged or does not end.
    #[error("line {line}: the certificate that begins here is damaged")]
    Damaged {
        /// Where it begins.
        line: usize,
    },
}

impl Trust {
    /// Adds the certificates of a PEM file; what stands between them is left out.
    ///
    /// # Errors
    /// When it is anything else. Then nothing of it was added.
    pub fn add(&mut self, pem: &str) -> Result<(), TrustError> {
        let mut added = String::new();
        let mut lines = (1..).zip(pem.lines().map(str::trim));
        while let Some((line, begin)) = lines.next() {
            let Some(label) = marker(begin, "BEGIN") else { continue };
            if !matches!(label, "CERTIFICATE" | "X509 CERTIFICATE") {
                return Err(TrustError::Other { line, label: label.to_owned() });
            }
            let mut body = String::new();
            let ended = lines.by_ref().map(|(_, text)| text).find(|text| {
                let end = text.starts_with("-----");
                body.push_str(if end { "" } else { text });
                end
            });
            if ended.and_then(|text| marker(text, "END")) != Some(label) || !is_der_sequence(&body) {
                return Err(TrustError::Damaged { line });
            }
            added += &armoured(&body);
        }
        if added.is_empty() {
            return Err(TrustError::Empty);
        }
        self.0 += &added;
        Ok(())
    }

    /// The files of `/dev`, if there is anything to trust. The bundle of the machine stands in for that of an image without one, as
    /// this file is in the place of one that a step may install.
    pub(crate) fn files(&self, image: BorrowedFd<'_>) -> Vec<(&'static str, Vec<u8>)> {
        if self.0.is_empty() {
            return Vec::new();
        }
        let machine = || openat(CWD, "/", OFlags::PATH | OFlags::CLOEXEC, Mode::empty()).ok();
        let of_machine = || machine().and_then(|root| bundle(root.as_fd()));
        let mut bundle = bundle(image).or_else(of_machine).unwrap_or_default();
        bundle.push(b'\n');
        bundle.extend_from_slice(self.0.as_bytes());
        let apt = format!("Acquire::https::CAInfo \"/dev/{BUNDLE}\";\n");
        vec![(BUNDLE, bundle), (APT, apt.into_bytes())]
    }

    /// Leads a process to the files, where its environment does not lead it elsewhere.
    pub(crate) fn tell(&self, environment: &mut Vec<String>) {
        if self.0.is_empty() {
            return;
        }
        for (name, file) in VARIABLES {
            if !environment.iter().any(|line| line.split_once('=').is_some_and(|(set, _)| set == name)) {
                environment.push(format!("{name}=/dev/{file}"));
            }
        }
    }
}

/// What stands in a line of PEM that begins or ends something.
fn marker<'a>(line: &'a str, word: &str) -> Option<&'a str> {
    line.strip_prefix("-----")?.strip_prefix(word)?.strip_prefix(' ')?.strip_suffix("-----")
}

/// With lines of 64, as the strictest readers want them.
fn armoured(body: &str) -> String {
    let lines = body.as_bytes().chunks(64).map(String::from_utf8_lossy);
    let lines: Vec<_> = lines.collect();
    format!("-----BEGIN CERTIFICATE-----\n{}\n-----END CERTIFICATE-----\n", lines.join("\n"))
}

/// Whether this is base64 of one whole DER sequence, as a certificate is.
fn is_der_sequence(base64: &str) -> bool {
    let Ok(der) = BASE64_STANDARD.decode(base64) else { return false };
    let Some((&[0x30, first], rest)) = der.split_first_chunk() else { return false };
    // From 128 on the first byte says how many bytes the length has.
    let (size, content) = match first.checked_sub(0x80) {
        None => (usize::from(first), rest),
        Some(count @ 1..=4) if rest.len() >= usize::from(count) => {
            let (length, content) = rest.split_at(count.into());
            (length.iter().fold(0, |size, byte| size << 8 | usize::from(*byte)), content)
        }
        Some(_) => return false,
    };
    content.len() == size
}

fn bundle(root: BorrowedFd<'_>) -> Option<Vec<u8>> {
    BUNDLES.iter().find_map(|path| read_beneath(root, path.as_ref(), BUNDLE_SIZE_BYTES_MAX).ok().flatten())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A sequence of 200 zero bytes: more is not looked at here, but by those who read it.
    fn certificate() -> String {
        let der: Vec<u8> = [0x30, 0x81, 200].into_iter().chain([0; 200]).collect();
        armoured(&BASE64_STANDARD.encode(der))
    }

    #[test]
    fn certificates_are_taken_and_nothing_else_is() {
        let one = certificate();
        let bare = one.replace("-----BEGIN CERTIFICATE-----", "").replace("-----END CERTIFICATE-----", "");
        let key = "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n";
        let mut trust = Trust::default();
        trust.add(&format!("# mine\r\n{}", one.replace('\n', "\r\n"))).unwrap();
        assert_eq!(trust.0, one);
        let lines = one.lines().count();
        let other = TrustError::Other { line: lines + 1, label: "PRIVATE KEY".to_owned() };
        let cases = [
            (String::new(), TrustError::Empty),
            (bare, TrustError::Empty),
            (one.clone() + key, other),
            (one.replacen("MI", "MJ", 1), TrustError::Damaged { line: 1 }),
            (one.replace("-----END CERTIFICATE-----\n", ""), TrustError::Damaged { line: 1 }),
            (one.replace("END CERTIFICATE", "END PRIVATE KEY"), TrustError::Damaged { line: 1 }),
            (format!("\n{}", one.replacen("AAAA", "", 1)), TrustError::Damaged { line: 2 }),
            (format!("{one}\n{one}").replace("AAAA", "!!!!"), TrustError::Damaged { line: 1 }),
        ];
        for (text, expected) in cases {
            assert_eq!(trust.add(&text).unwrap_err(), expected, "{text}");
        }
        assert_eq!(trust.0, one);
    }

    #[test]
    fn the_image_s_bundle_comes_first_and_links_stay_in_the_image() {
        let image = tempfile::tempdir().unwrap();
        let mut trust = Trust::default();
        let root = std::fs::File::open(image.path()).unwrap();
        assert!(trust.files(root.as_fd()).is_empty());
        trust.add(&certificate()).unwrap();
        std::fs::create_dir_all(image.path().join("etc/ssl/certs")).unwrap();
        std::fs::create_dir_all(image.path().join("usr")).unwrap();
        // No file can be read without an end.
        nix::unistd::mkfifo(&image.path().join("etc/ssl/ca-bundle.pem"), nix::sys::stat::Mode::S_IRWXU)
            .unwrap();
        std::fs::write(image.path().join("usr/bundle"), "image's").unwrap();
        std::os::unix::fs::symlink("/../usr/bundle", image.path().join("etc/ssl/cert.pem")).unwrap();
        let files = trust.files(root.as_fd());
        assert_eq!(files[0], (BUNDLE, format!("image's\n{}", trust.0).into_bytes()));
        assert_eq!(files[1].0, APT);
    }

    #[test]
    fn what_a_step_sets_itself_stays() {
        let mut environment = vec!["CURL_CA_BUNDLE=/mine".to_owned(), "PIP_CERT=".to_owned()];
        Trust::default().tell(&mut environment);
        assert_eq!(environment.len(), 2);
        Trust(certificate()).tell(&mut environment);
        assert_eq!(environment.len(), VARIABLES.len());
        assert_eq!(environment.iter().filter(|line| line.ends_with("=/dev/rbuild-ca.pem")).count(), 6);
        assert!(environment.contains(&"APT_CONFIG=/dev/rbuild-apt.conf".to_owned()));
    }
}
