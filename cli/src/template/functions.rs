//! The functions of templates: Go's own, and Docker's.

use std::cmp::Ordering;

use serde_json::Value;

use super::TemplateError;

/// Go's idea of truth: not zero, not empty, not nil.
pub(super) fn is_true(value: &Value) -> bool {
    match value {
        Value::Null => false,
        Value::Bool(value) => *value,
        Value::Number(number) => number.as_f64() != Some(0.0),
        Value::String(text) => !text.is_empty(),
        Value::Array(items) => !items.is_empty(),
        Value::Object(items) => !items.is_empty(),
    }
}

/// A value as Go's `%v` prints it.
pub(super) fn print(value: &Value) -> String {
    match value {
        Value::Null => "<nil>".to_owned(),
        Value::String(text) => text.clone(),
        Value::Array(items) => format!("[{}]", items.iter().map(print).collect::<Vec<_>>().join(" ")),
        Value::Object(items) => {
            let pairs: Vec<_> = items.iter().map(|(key, item)| format!("{key}:{}", print(item))).collect();
            format!("map[{}]", pairs.join(" "))
        }
        other => other.to_string(),
    }
}

/// Calls a function.
pub(super) fn call(name: &str, arguments: Vec<Value>) -> Result<Value, TemplateError> {
    let wrong = || TemplateError::new(format!("wrong arguments for {name}"));
    let text = |at: usize| arguments.get(at).map(print).ok_or_else(wrong);
    let number = |at: usize| {
        let number =
            arguments.get(at).and_then(Value::as_u64).and_then(|number| usize::try_from(number).ok());
        number.ok_or_else(wrong)
    };
    let first = || arguments.first().ok_or_else(wrong);
    Ok(match name {
        "json" => first()?.to_string().into(),
        "upper" => text(0)?.to_uppercase().into(),
        "lower" => text(0)?.to_lowercase().into(),
        "title" => title(&text(0)?).into(),
        "join" => first()?
            .as_array()
            .map(|items| items.iter().map(print).collect::<Vec<_>>().join(&text(1).unwrap_or_default()))
            .ok_or_else(wrong)?
            .into(),
        "split" => text(0)?.split(&text(1)?).map(Value::from).collect(),
        "truncate" => text(0)?.chars().take(number(1)?).collect::<String>().into(),
        "pad" => format!(
            "{}{}{}",
            " ".repeat(number(1)?.min(PAD_MAX)),
            text(0)?,
            " ".repeat(number(2)?.min(PAD_MAX))
        )
        .into(),
        "print" => arguments.iter().map(print).collect::<String>().into(),
        "println" => (arguments.iter().map(print).collect::<Vec<_>>().join(" ") + "\n").into(),
        "printf" => printf(&text(0)?, arguments.get(1..).unwrap_or_default()).into(),
        "len" => length(first()?).ok_or_else(wrong)?.into(),
        "index" => arguments.iter().skip(1).try_fold(first()?.clone(), |value, key| index(&value, key))?,
        "slice" => slice(first()?, number(1)?, number(2).ok()).ok_or_else(wrong)?,
        "not" => (!is_true(first()?)).into(),
        "and" => {
            arguments.iter().find(|value| !is_true(value)).or(arguments.last()).ok_or_else(wrong)?.clone()
        }
        "or" => arguments.iter().find(|value| is_true(value)).or(arguments.last()).ok_or_else(wrong)?.clone(),
        "eq" => {
            arguments.get(1..).is_some_and(|others| others.iter().any(|other| other == &arguments[0])).into()
        }
        "ne" => (arguments.first() != arguments.get(1)).into(),
        "lt" | "le" | "gt" | "ge" => match arguments.as_slice() {
            [a, b] => compared(name, compare(a, b).ok_or_else(wrong)?).into(),
            _ => return Err(wrong()),
        },
        _ => return Err(TemplateError::new(format!("function \"{name}\" not defined"))),
    })
}

/// The widest that `pad` makes a text, on either side.
const PAD_MAX: usize = 4096;

fn compared(name: &str, order: Ordering) -> bool {
    match name {
        "lt" => order.is_lt(),
        "le" => order.is_le(),
        "gt" => order.is_gt(),
        _ => order.is_ge(),
    }
}

fn compare(a: &Value, b: &Value) -> Option<Ordering> {
    match (a, b) {
        (Value::Number(a), Value::Number(b)) => a.as_f64()?.partial_cmp(&b.as_f64()?),
        (Value::String(a), Value::String(b)) => Some(a.cmp(b)),
        _ => None,
    }
}

fn title(text: &str) -> String {
    let mut start = true;
    let mut letter = |letter: char| {
        let shown = if start { letter.to_ascii_uppercase() } else { letter };
        start = !letter.is_alphanumeric();
        shown
    };
    text.chars().map(&mut letter).collect()
}

fn length(value: &Value) -> Option<usize> {
    match value {
        Value::String(text) => Some(text.len()),
        Value::Array(items) => Some(items.len()),
        Value::Object(items) => Some(items.len()),
        Value::Null => Some(0),
        _ => None,
    }
}

fn index(value: &Value, key: &Value) -> Result<Value, TemplateError> {
    match (value, key) {
        (Value::Array(items), Value::Number(number)) => {
            let at = number.as_u64().and_then(|at| usize::try_from(at).ok());
            let found = at.and_then(|at| items.get(at)).cloned();
            found.ok_or_else(|| {
                TemplateError::new(format!("error calling index: index out of range: {number}"))
            })
        }
        // As the zero value of a map of strings, which is what most are.
        (Value::Object(items), key) => {
            Ok(items.get(&print(key)).cloned().unwrap_or_else(|| Value::String(String::new())))
        }
        (Value::Null, _) => Err(TemplateError::new("error calling index: index of untyped nil")),
        _ => Err(TemplateError::new(format!("error calling index: can't index {}", print(value)))),
    }
}

fn slice(value: &Value, from: usize, to: Option<usize>) -> Option<Value> {
    match value {
        Value::String(text) => text.get(from..to.unwrap_or(text.len())).map(Value::from),
        Value::Array(items) => items.get(from..to.unwrap_or(items.len())).map(|items| items.to_vec().into()),
        _ => None,
    }
}

/// `%s`, `%v`, `%d` and `%q`; flags and widths are not understood.
fn printf(format: &str, arguments: &[Value]) -> String {
    let mut arguments = arguments.iter();
    let mut text = String::new();
    let mut letters = format.chars();
    while let Some(letter) = letters.next() {
        if letter != '%' {
            text.push(letter);
            continue;
        }
        match letters.next() {
            Some('%') => text.push('%'),
            Some('q') => text.push_str(
                &arguments.next().map(|value| Value::from(print(value)).to_string()).unwrap_or_default(),
            ),
            Some('s' | 'v' | 'd') => text.push_str(&arguments.next().map(print).unwrap_or_default()),
            other => text.extend(std::iter::once('%').chain(other)),
        }
    }
    text
}
