//! `RUN --mount=…`: comma-separated fields, read in two steps.
//!
//! First, from the text alone: the fields, and `from`, which must not hold variables because it decides the order of
//! stages. Then, with the environment of the instruction: everything else.

use rbuild_llb::CacheSharing;

use crate::csv;
use crate::error::{Error, ErrorKind};
use crate::lint::parse_bool;
use crate::suggest;

const KEYS: [&str; 19] = [
    "type",
    "from",
    "source",
    "src",
    "target",
    "dst",
    "destination",
    "readonly",
    "ro",
    "readwrite",
    "rw",
    "required",
    "size",
    "id",
    "sharing",
    "mode",
    "uid",
    "gid",
    "env",
];
const TYPES: [&str; 5] = ["bind", "cache", "tmpfs", "secret", "ssh"];
const SHARING: [&str; 3] = ["shared", "private", "locked"];

/// A mount as written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct MountFlag {
    fields: Vec<Field>,
    /// The stage, context or image it takes its files from.
    pub(crate) from: Option<String>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Field {
    text: String,
    key: String,
    value: Option<String>,
}

/// What a mount is for.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) enum MountType {
    #[default]
    Bind,
    Cache,
    Tmpfs,
    Secret,
    Ssh,
}

impl MountType {
    const fn name(self) -> &'static str {
        TYPES[self as usize]
    }
}

/// A mount with its values, nothing defaulted but `readonly`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct MountSpec {
    pub(crate) kind: MountType,
    pub(crate) source: String,
    pub(crate) target: String,
    pub(crate) id: String,
    pub(crate) env: Option<String>,
    pub(crate) sharing: Option<CacheSharing>,
    pub(crate) readonly: bool,
    pub(crate) required: bool,
    pub(crate) size_bytes: Option<u64>,
    pub(crate) mode: Option<u32>,
    pub(crate) uid: Option<u32>,
    pub(crate) gid: Option<u32>,
    readonly_given: Option<bool>,
}

impl MountFlag {
    pub(super) fn parse(text: &str) -> Result<Self, Error> {
        let fields: Vec<Field> = csv::split(text)
            .map_err(|reason| ErrorKind::MountCsv { reason })?
            .into_iter()
            .map(Field::new)
            .collect();
        let from = fields.iter().rfind(|field| field.key == "from").and_then(|field| field.value.clone());
        let holds_variable =
            |text: &str| text.find('$').is_some_and(|at| text[at + 1..].chars().next().is_some());
        if from.as_deref().is_some_and(holds_variable) {
            return Err(ErrorKind::MountExpansion { key: "from".to_owned() }.into());
        }
        Ok(Self { fields, from: from.filter(|from| !from.is_empty()) })
    }

    /// Reads the fields, each value after `expand`.
    pub(crate) fn resolve(
        &self,
        expand: &mut dyn FnMut(&str) -> Result<String, Error>,
    ) -> Result<MountSpec, Error> {
        let mut mount = MountSpec::default();
        for field in &self.fields {
            match &field.value {
                Some(value) => mount.set(field, &expand(value)?)?,
                None => mount.set_bare(field)?,
            }
        }
        let default = !matches!(mount.kind, MountType::Cache | MountType::Tmpfs);
        mount.readonly = mount.readonly_given.unwrap_or(default);
        mount.check(self.from.is_some())?;
        Ok(mount)
    }
}

impl Field {
    fn new(text: String) -> Self {
        let (key, value) =
            text.split_once('=').map_or((&*text, None), |(key, value)| (key, Some(value.to_owned())));
        Self { key: key.to_ascii_lowercase(), value, text }
    }
}

impl MountSpec {
    /// A field without a value.
    fn set_bare(&mut self, field: &Field) -> Result<(), Error> {
        match field.key.as_str() {
            "readonly" | "ro" => self.readonly_given = Some(true),
            "readwrite" | "rw" => self.readonly_given = Some(false),
            "required" => self.set_required(true)?,
            _ => return Err(ErrorKind::MountField { field: field.text.clone() }.into()),
        }
        Ok(())
    }

    fn set(&mut self, field: &Field, value: &str) -> Result<(), Error> {
        let key = field.key.as_str();
        let invalid = || Error::new(ErrorKind::MountValue { key: key.to_owned(), value: value.to_owned() });
        match key {
            "type" => self.kind = mount_type(value)?,
            "from" => {}
            "source" | "src" => self.source = value.to_owned(),
            "target" | "dst" | "destination" => self.target = value.to_owned(),
            "readonly" | "ro" => self.readonly_given = Some(parse_bool(value).ok_or_else(invalid)?),
            "readwrite" | "rw" => self.readonly_given = Some(!parse_bool(value).ok_or_else(invalid)?),
            "required" => self.set_required(parse_bool(value).ok_or_else(invalid)?)?,
            "size" if self.kind == MountType::Tmpfs => {
                self.size_bytes = Some(parse_size_bytes(value).ok_or_else(invalid)?);
            }
            "size" => return Err(self.unexpected(key)),
            "id" => self.id = value.to_owned(),
            "env" => self.env = Some(value.to_owned()),
            "sharing" => self.sharing = Some(sharing(value)?),
            "mode" => self.mode = Some(u32::from_str_radix(value, 8).map_err(|_| invalid())?),
            "uid" => self.uid = Some(value.parse().map_err(|_| invalid())?),
            "gid" => self.gid = Some(value.parse().map_err(|_| invalid())?),
            _ => {
                let (key, field) = (key.to_owned(), field.text.clone());
                let similar = suggest::nearest(&key, KEYS);
                return Err(ErrorKind::MountKey { key, field, similar }.into());
            }
        }
        Ok(())
    }

    fn set_required(&mut self, required: bool) -> Result<(), Error> {
        if !matches!(self.kind, MountType::Secret | MountType::Ssh) {
            return Err(self.unexpected("required"));
        }
        self.required = required;
        Ok(())
    }

    /// Which fields go together.
    fn check(&self, has_from: bool) -> Result<(), Error> {
        let has_owner = matches!(self.kind, MountType::Cache | MountType::Secret | MountType::Ssh);
        let forbidden = [
            ("mode", !has_owner && self.mode.is_some()),
            ("uid", !has_owner && self.uid.is_some()),
            ("gid", !has_owner && self.gid.is_some()),
            ("sharing", self.kind != MountType::Cache && self.sharing.is_some()),
            ("env", self.kind != MountType::Secret && self.env.is_some()),
            ("source", self.kind == MountType::Ssh && !self.source.is_empty()),
            ("from", self.kind == MountType::Ssh && has_from),
        ];
        if let Some((key, _)) = forbidden.iter().find(|(_, is_forbidden)| *is_forbidden) {
            return Err(self.unexpected(key));
        }
        if self.kind != MountType::Secret {
            return Ok(());
        }
        if has_from {
            return Err(ErrorKind::SecretFrom.into());
        }
        match (self.source.is_empty(), self.id.is_empty()) {
            (true, true) if self.target.is_empty() => Err(ErrorKind::SecretName.into()),
            (false, false) => Err(ErrorKind::SecretTwoNames.into()),
            _ => Ok(()),
        }
    }

    fn unexpected(&self, key: &str) -> Error {
        ErrorKind::MountKeyForType { key: key.to_owned(), kind: self.kind.name() }.into()
    }
}

fn mount_type(value: &str) -> Result<MountType, Error> {
    Ok(match value.to_ascii_lowercase().as_str() {
        "bind" => MountType::Bind,
        "cache" => MountType::Cache,
        "tmpfs" => MountType::Tmpfs,
        "secret" => MountType::Secret,
        "ssh" => MountType::Ssh,
        _ => {
            let similar = suggest::nearest(value, TYPES);
            return Err(ErrorKind::MountType { found: value.to_owned(), similar }.into());
        }
    })
}

fn sharing(value: &str) -> Result<CacheSharing, Error> {
    Ok(match value.to_ascii_lowercase().as_str() {
        "shared" => CacheSharing::Shared,
        "private" => CacheSharing::Private,
        "locked" => CacheSharing::Locked,
        _ => {
            let similar = suggest::nearest(value, SHARING);
            return Err(ErrorKind::MountSharing { found: value.to_owned(), similar }.into());
        }
    })
}

/// Reads a size as Docker writes it: `64m`, `1.5g`, `1GiB`, in powers of 1024.
pub fn parse_size_bytes(text: &str) -> Option<u64> {
    let digits = text.find(|character: char| !(character.is_ascii_digit() || character == '.'));
    let (number, unit) = text.split_at(digits.unwrap_or(text.len()));
    let unit = unit.trim_start().to_ascii_lowercase();
    let exponent = match unit.as_str() {
        "" | "b" => 0,
        "k" | "kb" | "kib" => 1,
        "m" | "mb" | "mib" => 2,
        "g" | "gb" | "gib" => 3,
        "t" | "tb" | "tib" => 4,
        "p" | "pb" | "pib" => 5,
        _ => return None,
    };
    let bytes = number.parse::<f64>().ok()? * 1024_f64.powi(exponent);
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "checked to be in range")]
    (bytes < 9e18).then_some(bytes as u64)
}
