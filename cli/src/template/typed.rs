//! A value with what is known of its type, which JSON does not tell: of a field that is missing or `null`, Go knows whether it would be
//! a list, a map, a text or a pointer, and prints it so.

use serde_json::{Map, Value};

use super::TemplateError;
use super::functions::{is_true, print};

/// What Go prints where a map has no such key.
const NO_VALUE: &str = "<no value>";

/// A value, and its zero value. Of one of Go's structs that is an object with the zero values of those fields that may be missing.
#[derive(Debug, Clone, Default)]
pub(super) struct Typed {
    value: Value,
    zero: Value,
    /// Whether it is what a map has no key for: nil to all who work with it, and told when it is printed.
    is_missing: bool,
}

impl From<Value> for Typed {
    fn from(value: Value) -> Self {
        Self::new(value, Value::Null)
    }
}

impl Typed {
    pub(super) const fn new(value: Value, zero: Value) -> Self {
        Self { value, zero, is_missing: false }
    }

    /// As it is printed.
    pub(super) fn text(self) -> String {
        if self.is_missing { NO_VALUE.to_owned() } else { print(&self.into_seen()) }
    }

    /// As all but `json` see it: what is nil is empty.
    pub(super) fn into_seen(self) -> Value {
        if self.value.is_null() { self.zero } else { self.value }
    }

    /// As `json` sees it: lists and maps that are nil are `null`.
    pub(super) fn into_json(self) -> Value {
        match self.zero {
            Value::Array(_) | Value::Object(_) => self.value,
            _ => self.into_seen(),
        }
    }

    /// No zero value is true.
    pub(super) fn is_true(&self) -> bool {
        is_true(&self.value)
    }

    /// What a chain of names leads to.
    pub(super) fn fields(&self, names: &[String]) -> Result<Self, TemplateError> {
        let (mut value, mut zero) = (&self.value, &self.zero);
        for name in names {
            let field_zero = zero.get(name);
            value = match if value.is_null() { zero } else { value } {
                Value::Object(object) => match object.get(name) {
                    Some(found) => found,
                    None if field_zero.is_some() => &Value::Null,
                    None if is_struct(object) => {
                        return Err(TemplateError::new(format!("can't evaluate field {name}")));
                    }
                    None => return Ok(Self { is_missing: true, ..Self::default() }),
                },
                Value::Null => {
                    return Err(TemplateError::new(format!("nil data; no entry for key \"{name}\"")));
                }
                other => {
                    let message = format!("can't evaluate field {name} in {}", print(other));
                    return Err(TemplateError::new(message));
                }
            };
            zero = field_zero.unwrap_or(&Value::Null);
        }
        Ok(Self::new(value.clone(), zero.clone()))
    }
}

fn is_struct(object: &Map<String, Value>) -> bool {
    !object.is_empty() && object.keys().all(|key| key.starts_with(|letter: char| letter.is_ascii_uppercase()))
}
