//! Go templates, as far as people use them in `--format` and `inspect -f`: fields, pipelines, `if`, `range`, `with`, variables and
//! Docker's functions, on JSON values. Pure.
//!
//! ```text
//! text ─parse─► Node… ─eval(value)─► text
//! ```
//!
//! An object whose keys all begin with a capital letter stands for one of Go's structs: a field that it lacks is an error there. Any
//! other object is a map, where it is `<no value>`. Whoever knows the struct better says with it what its fields are when they are missing.

mod eval;
mod functions;
mod parse;
mod typed;

use serde_json::Value;
use thiserror::Error;

use self::typed::Typed;
use crate::format::table;

/// How deep parentheses and blocks may be nested: the recursion is bounded by it.
const DEPTH_MAX: usize = 64;

/// Why a template means nothing.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("template parsing error: {0}")]
pub(crate) struct TemplateError(String);

impl TemplateError {
    fn new(message: impl Into<String>) -> Self {
        Self(message.into())
    }
}

/// A template that has been read.
#[derive(Debug, Clone)]
pub(crate) struct Template {
    nodes: Vec<parse::Node>,
}

impl Template {
    /// Reads a template.
    ///
    /// # Errors
    /// When it is malformed.
    pub(crate) fn parse(text: &str) -> Result<Self, TemplateError> {
        Ok(Self { nodes: parse::parse(text)? })
    }

    /// What it makes of a value.
    ///
    /// # Errors
    /// When it asks for what is not there.
    pub(crate) fn render(&self, value: &Value) -> Result<String, TemplateError> {
        self.render_typed(value, &Value::Null)
    }

    /// The same, where `zeros` has the zero values of fields that the value may lack: `{"Config": {"Shell": []}}`. What is `null` there
    /// is a pointer.
    ///
    /// # Errors
    /// As [`render`](Self::render).
    pub(crate) fn render_typed(&self, value: &Value, zeros: &Value) -> Result<String, TemplateError> {
        eval::render(&self.nodes, &Typed::new(value.clone(), zeros.clone()))
    }
}

/// A list in the form that `--format` asks for: `json`, a template for each row, or `table` and one, with a line of headings first.
///
/// `headings` is a row that has each column's heading in its place.
///
/// # Errors
/// When the template is malformed or asks for what is not there.
pub(crate) fn list(format: &str, headings: &Value, rows: &[Value]) -> Result<String, TemplateError> {
    if format == "json" {
        return Ok(rows.iter().map(|row| format!("{row}\n")).collect());
    }
    // As typed in a shell, where a tab is hard to come by.
    let format = format.replace("\\t", "\t").replace("\\n", "\n");
    let Some(columns) = format.strip_prefix("table ") else {
        let template = Template::parse(&format)?;
        return rows.iter().map(|row| Ok(template.render(row)? + "\n")).collect();
    };
    let template = Template::parse(columns.trim_start())?;
    let lines = std::iter::once(headings).chain(rows).map(|row| template.render(row));
    let cells = |line: String| line.split('\t').map(str::to_owned).collect::<Vec<_>>();
    let lines = lines.map(|line| line.map(cells)).collect::<Result<Vec<_>, _>>()?;
    Ok(table(&lines))
}

#[cfg(test)]
mod tests;
