//! `type=…,key=value,…`: how BuildKit spells outputs, caches and attestations.

use std::collections::BTreeMap;

use rbuild_solver::images::{Compression, CompressionConfig};
use thiserror::Error;

/// The pairs of one word, taken one after the other.
#[derive(Debug)]
pub(crate) struct Fields {
    /// `output`, `cache` or `attestation`, for messages.
    what: &'static str,
    pairs: Vec<(String, String)>,
}

/// Why a pair cannot be.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub(crate) enum FieldError {
    #[error("{what} type `{kind}` has no key `{key}`")]
    UnknownKey { what: &'static str, kind: String, key: String },
    #[error("{what} key `{key}` cannot be `{value}`")]
    Value { what: &'static str, key: String, value: String },
}

impl Fields {
    pub(crate) fn split(what: &'static str, text: &str) -> Self {
        let pair = |field: &str| {
            let (key, value) = field.split_once('=').unwrap_or((field, ""));
            (key.trim().to_ascii_lowercase(), value.to_owned())
        };
        Self { what, pairs: text.split(',').map(pair).collect() }
    }

    /// Of pairs that were read otherwise, each key once.
    pub(crate) fn of(what: &'static str, pairs: BTreeMap<String, String>) -> Self {
        Self { what, pairs: pairs.into_iter().collect() }
    }

    /// What was not taken.
    pub(crate) fn rest(self) -> BTreeMap<String, String> {
        self.pairs.into_iter().collect()
    }

    pub(crate) fn take(&mut self, key: &str) -> Option<String> {
        let at = self.pairs.iter().position(|(found, _)| found == key)?;
        Some(self.pairs.remove(at).1)
    }

    pub(crate) fn flag(&mut self, key: &str, default: bool) -> Result<bool, FieldError> {
        match self.take(key).as_deref() {
            None => Ok(default),
            Some("true" | "1" | "") => Ok(true),
            Some("false" | "0") => Ok(false),
            Some(value) => Err(self.value(key, value)),
        }
    }

    /// What a text stands for, if it is there.
    pub(crate) fn parse<T>(
        &mut self,
        key: &str,
        parse: impl FnOnce(&str) -> Option<T>,
    ) -> Result<Option<T>, FieldError> {
        let Some(value) = self.take(key) else { return Ok(None) };
        parse(&value).map(Some).ok_or_else(|| self.value(key, &value))
    }

    /// `compression`, `compression-level` and `force-compression`.
    pub(crate) fn compression(&mut self) -> Result<CompressionConfig, FieldError> {
        let compression = self.parse("compression", compression)?.unwrap_or_default();
        let level = self.parse("compression-level", |level| level.parse().ok())?;
        Ok(CompressionConfig { compression, level, force: self.flag("force-compression", false)? })
    }

    pub(crate) fn nothing_left(&self, kind: &str) -> Result<(), FieldError> {
        match self.pairs.first() {
            None => Ok(()),
            Some((key, _)) => {
                let (kind, key) = (kind.to_owned(), key.clone());
                Err(FieldError::UnknownKey { what: self.what, kind, key })
            }
        }
    }

    fn value(&self, key: &str, value: &str) -> FieldError {
        FieldError::Value { what: self.what, key: key.to_owned(), value: value.to_owned() }
    }
}

/// A form of compression, as BuildKit calls it.
pub(crate) fn compression(name: &str) -> Option<Compression> {
    match name {
        "gzip" => Some(Compression::Gzip),
        "zstd" => Some(Compression::Zstd),
        "uncompressed" | "none" => Some(Compression::None),
        _ => None,
    }
}
