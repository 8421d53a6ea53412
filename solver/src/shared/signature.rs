//! Who vouches for a document of a shared cache: an Ed25519 signature in its annotations.
//!
//! Signed is all that is believed of a document: its manifest as it is read, without the signature itself and without when it was
//! last used, which readers note. The key of a record is in it, so that a signature is of no use under another name.
//!
//! Keys are read in the forms that people have: PEM as `openssl genpkey -algorithm ed25519` and `openssl pkey -pubout` write it, and
//! the public line of `ssh-keygen -t ed25519`.

use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use rbuild_image::Manifest;
use ring::signature::{ED25519, Ed25519KeyPair, KeyPair as _, UnparsedPublicKey};
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{PrivatePkcs8KeyDer, SubjectPublicKeyInfoDer};
use thiserror::Error;

use super::record::USED;

const SIGNATURE: &str = "dev.rbuild.cache.signature";
/// What is signed begins with this, so that a signature of something else is none.
const DOMAIN: &[u8] = b"rbuild.cache.document.v1\n";
/// What a public key begins with in its standard form, before its 32 bytes (RFC 8410).
const SPKI_PREFIX: [u8; 12] = [0x30, 0x2a, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x03, 0x21, 0x00];
const SSH_NAME: &str = "ssh-ed25519";

/// Why a text is no key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum KeyError {
    /// It is in none of the forms.
    #[error("it is neither PEM nor a public line of OpenSSH")]
    Form,
    /// It is a key of another kind, or damaged.
    #[error("it holds no Ed25519 key")]
    Kind,
}

/// A key to sign with.
pub struct SigningKey(Ed25519KeyPair);

impl fmt::Debug for SigningKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SigningKey").finish_non_exhaustive()
    }
}

impl SigningKey {
    /// Reads a private key: PEM.
    ///
    /// # Errors
    /// When it is none.
    pub fn parse(text: &str) -> Result<Self, KeyError> {
        let der = PrivatePkcs8KeyDer::from_pem_slice(text.as_bytes()).map_err(|_| KeyError::Form)?;
        Ed25519KeyPair::from_pkcs8_maybe_unchecked(der.secret_pkcs8_der())
            .map(Self)
            .map_err(|_| KeyError::Kind)
    }

    /// The key that its signatures are verified with.
    pub fn public(&self) -> PublicKey {
        PublicKey(self.0.public_key().as_ref().to_vec())
    }
}

/// A key to verify with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PublicKey(Vec<u8>);

impl PublicKey {
    /// Reads a public key: PEM, or a line of OpenSSH.
    ///
    /// # Errors
    /// When it is none.
    pub fn parse(text: &str) -> Result<Self, KeyError> {
        let text = text.trim();
        if let Some(line) = text.strip_prefix(SSH_NAME) {
            return Self::from_ssh(line).ok_or(KeyError::Kind);
        }
        let der = SubjectPublicKeyInfoDer::from_pem_slice(text.as_bytes()).map_err(|_| KeyError::Form)?;
        let bytes = der.as_ref().strip_prefix(&SPKI_PREFIX).filter(|bytes| bytes.len() == 32);
        bytes.map(|bytes| Self(bytes.to_vec())).ok_or(KeyError::Kind)
    }

    /// The rest of a line: two strings, each after its length, in base64 (RFC 8709).
    fn from_ssh(line: &str) -> Option<Self> {
        let bytes = STANDARD.decode(line.split_whitespace().next()?).ok()?;
        let name_length = u32::try_from(SSH_NAME.len()).ok()?;
        let prefix = [&name_length.to_be_bytes(), SSH_NAME.as_bytes(), &32u32.to_be_bytes()].concat();
        let key = bytes.strip_prefix(prefix.as_slice()).filter(|key| key.len() == 32)?;
        Some(Self(key.to_vec()))
    }

    fn signed(&self, manifest: &Manifest) -> bool {
        let signature = manifest.annotations.get(SIGNATURE).and_then(|text| STANDARD.decode(text).ok());
        let key = UnparsedPublicKey::new(&ED25519, &self.0);
        signature.is_some_and(|signature| key.verify(&signed_part(manifest), &signature).is_ok())
    }
}

/// Whom this machine believes, and how it makes others believe it.
#[derive(Debug, Default)]
pub struct Trust {
    /// What documents are signed with.
    pub sign: Option<SigningKey>,
    /// Who must have signed a document. Empty: who may write to the cache is believed.
    pub require: Vec<PublicKey>,
}

impl Trust {
    /// Signs a document, where there is a key for that.
    pub(crate) fn seal(&self, mut manifest: Manifest) -> Manifest {
        if let Some(SigningKey(key)) = &self.sign {
            let signature = STANDARD.encode(key.sign(&signed_part(&manifest)));
            manifest.annotations.insert(SIGNATURE.to_owned(), signature);
        }
        manifest
    }

    /// Whether what a document says is believed.
    pub(crate) fn accepts(&self, manifest: &Manifest) -> bool {
        self.require.is_empty() || self.require.iter().any(|key| key.signed(manifest))
    }

    /// Whether what others wrote, and is not here, may be written on: not with a signature that nobody put under it before.
    pub(crate) const fn may_pass_on(&self) -> bool {
        self.sign.is_none() || !self.require.is_empty()
    }

    /// Whether a document need not be written again for want of a signature. Who has no key writes none.
    pub(crate) fn is_content_with(&self, manifest: &Manifest) -> bool {
        let Some(own) = &self.sign else { return true };
        own.public().signed(manifest) || (!self.require.is_empty() && self.accepts(manifest))
    }
}

fn signed_part(manifest: &Manifest) -> Vec<u8> {
    let mut manifest = manifest.clone();
    manifest.annotations.retain(|name, _| name != SIGNATURE && name != USED);
    [DOMAIN, &manifest.to_bytes()].concat()
}

#[cfg(test)]
mod tests {
    use rbuild_image::{Descriptor, MediaType};

    use super::*;

    // Made with `openssl genpkey -algorithm ed25519`; the public line is the same key's.
    const PRIVATE: &str = "-----BEGIN PRIVATE KEY-----\nMC4CAQAwBQYDK2VwBCIEIC7/NiSId64k/pUQeBCFaRveDEYtLKEtd4McrSNX7s58\n-----END PRIVATE KEY-----\n";
    const PUBLIC: &str = "-----BEGIN PUBLIC KEY-----\nMCowBQYDK2VwAyEA24k3E4NTMWf+QPNsyUKd7h2weC2Q3SSN61/qL8GBDak=\n-----END PUBLIC KEY-----\n";
    const SSH: &str =
        "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAINuJNxODUzFn/kDzbMlCne4dsHgtkN0kjetf6i/BgQ2p me@here";
    const OTHER: &str = "-----BEGIN PUBLIC KEY-----\nMCowBQYDK2VwAyEACCHtkLDQRd7vAdcmjtVd/SMNMGMVeET1M1dPnX+nGwg=\n-----END PUBLIC KEY-----\n";

    fn manifest(key: &str) -> Manifest {
        let mut manifest = Manifest::new(Descriptor::of(MediaType::OciConfig, b"{}"), Vec::new());
        manifest.annotations.insert("key".to_owned(), key.to_owned());
        manifest
    }

    fn trust(require: &[&str]) -> Trust {
        let require = require.iter().map(|key| PublicKey::parse(key).unwrap()).collect();
        Trust { sign: Some(SigningKey::parse(PRIVATE).unwrap()), require }
    }

    #[test]
    fn keys_are_read_in_all_their_forms() {
        let key = SigningKey::parse(PRIVATE).unwrap().public();
        assert_eq!(PublicKey::parse(PUBLIC).unwrap(), key);
        assert_eq!(PublicKey::parse(SSH).unwrap(), key);
        assert_ne!(PublicKey::parse(OTHER).unwrap(), key);
        for (text, expected) in [
            ("", KeyError::Form),
            ("key", KeyError::Form),
            (PRIVATE, KeyError::Form),
            ("ssh-ed25519 AAAA", KeyError::Kind),
            ("-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----\n", KeyError::Kind),
        ] {
            assert_eq!(PublicKey::parse(text), Err(expected), "{text}");
        }
        assert!(SigningKey::parse(PUBLIC).is_err());
        assert!(!format!("{:?}", trust(&[])).contains("Ed25519KeyPair"));
    }

    #[test]
    fn what_is_signed_is_believed_and_nothing_else() {
        let sealed = trust(&[]).seal(manifest("a"));
        let altered = |change: fn(&mut Manifest)| {
            let mut manifest = sealed.clone();
            change(&mut manifest);
            manifest
        };
        assert!(trust(&[PUBLIC]).accepts(&sealed));
        assert!(trust(&[OTHER, SSH]).accepts(&sealed));
        assert!(!trust(&[OTHER]).accepts(&sealed));
        assert!(trust(&[]).accepts(&manifest("a")));
        let used =
            |manifest: &mut Manifest| drop(manifest.annotations.insert(USED.to_owned(), "86400".to_owned()));
        assert!(trust(&[PUBLIC]).accepts(&altered(used)), "readers note the day");
        let changes: [fn(&mut Manifest); 5] = [
            |manifest| drop(manifest.annotations.insert("key".to_owned(), "b".to_owned())),
            |manifest| drop(manifest.annotations.insert("more".to_owned(), String::new())),
            |manifest| drop(manifest.annotations.remove(SIGNATURE)),
            |manifest| drop(manifest.annotations.insert(SIGNATURE.to_owned(), "AAAA".to_owned())),
            |manifest| manifest.layers.push(Descriptor::of(MediaType::OciLayer, b"planted")),
        ];
        for (number, change) in changes.into_iter().enumerate() {
            assert!(!trust(&[PUBLIC]).accepts(&altered(change)), "change {number}");
        }
    }

    #[test]
    fn who_signs_signs_again_what_others_wrote() {
        let unsigned = manifest("a");
        let sealed = trust(&[]).seal(unsigned.clone());
        assert!(Trust::default().is_content_with(&unsigned));
        assert!(trust(&[]).is_content_with(&sealed));
        assert!(!trust(&[]).is_content_with(&unsigned));
        assert!(trust(&[OTHER, PUBLIC]).is_content_with(&sealed));
        assert!(trust(&[OTHER]).is_content_with(&sealed), "it could only sign it once more");
        let keyless = Trust { sign: None, require: trust(&[PUBLIC]).require };
        assert!(keyless.is_content_with(&unsigned), "it could write nothing better");
    }
}
