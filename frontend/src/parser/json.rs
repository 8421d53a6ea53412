//! The JSON form of arguments.

use serde_json::Value;

use super::{Error, ErrorKind};

/// The strings of a JSON array. `None` when the text is not JSON: then it is the shell form.
///
/// # Errors
/// When it is an array of other things.
pub(crate) fn array(text: &str) -> Result<Option<Vec<String>>, Error> {
    if !text.trim_start().starts_with('[') {
        return Ok(None);
    }
    let Ok(values) = serde_json::from_str::<Vec<Value>>(text) else { return Ok(None) };
    values
        .into_iter()
        .map(|value| match value {
            Value::String(text) => Ok(text),
            _ => Err(ErrorKind::NotStrings.into()),
        })
        .collect::<Result<_, _>>()
        .map(Some)
}
