//! From nodes and a value to text.

use serde_json::Value;

use super::functions::{call, is_true, print};
use super::parse::{Block, Node, Operand, Pipeline};
use super::{DEPTH_MAX, TemplateError};

/// What Go prints where a map has no such key.
pub(super) const NO_VALUE: &str = "<no value>";

struct Scope {
    /// Innermost last; the first is `$`.
    variables: Vec<(String, Value)>,
    out: String,
    depth: usize,
}

pub(super) fn render(nodes: &[Node], value: &Value) -> Result<String, TemplateError> {
    let mut scope = Scope { variables: vec![(String::new(), value.clone())], out: String::new(), depth: 0 };
    scope.nodes(nodes, value)?;
    Ok(scope.out)
}

impl Scope {
    fn nodes(&mut self, nodes: &[Node], dot: &Value) -> Result<(), TemplateError> {
        let outer = self.variables.len();
        for node in nodes {
            match node {
                Node::Text(text) => self.out.push_str(text),
                Node::Print(pipeline) => {
                    let value = self.pipeline(pipeline, dot)?;
                    if pipeline.variables.is_empty() {
                        self.out.push_str(&print(&value));
                    }
                }
                Node::If(block) => self.choose(block, dot, false)?,
                Node::With(block) => self.choose(block, dot, true)?,
                Node::Range(block) => self.range(block, dot)?,
            }
        }
        self.variables.truncate(outer);
        Ok(())
    }

    fn choose(&mut self, block: &Block, dot: &Value, becomes_dot: bool) -> Result<(), TemplateError> {
        let outer = self.variables.len();
        let value = self.pipeline(&block.pipeline, dot)?;
        if is_true(&value) {
            self.nodes(&block.then, if becomes_dot { &value } else { dot })?;
        } else {
            self.nodes(&block.otherwise, dot)?;
        }
        self.variables.truncate(outer);
        Ok(())
    }

    fn range(&mut self, block: &Block, dot: &Value) -> Result<(), TemplateError> {
        let outer = self.variables.len();
        let items: Vec<(Value, Value)> = match self.pipeline(&block.pipeline, dot)? {
            Value::Array(items) => {
                items.into_iter().enumerate().map(|(at, item)| (at.into(), item)).collect()
            }
            Value::Object(items) => items.into_iter().map(|(key, item)| (key.into(), item)).collect(),
            Value::Null => Vec::new(),
            other => return Err(TemplateError::new(format!("range can't iterate over {}", print(&other)))),
        };
        if items.is_empty() {
            self.nodes(&block.otherwise, dot)?;
        }
        for (key, item) in items {
            self.variables.truncate(outer);
            match block.pipeline.variables.as_slice() {
                [] => {}
                [one] => self.variables.push((one.clone(), item.clone())),
                [index, one, ..] => {
                    self.variables.push((index.clone(), key));
                    self.variables.push((one.clone(), item.clone()));
                }
            }
            self.nodes(&block.then, &item)?;
        }
        self.variables.truncate(outer);
        Ok(())
    }

    fn pipeline(&mut self, pipeline: &Pipeline, dot: &Value) -> Result<Value, TemplateError> {
        self.depth += 1;
        if self.depth > DEPTH_MAX {
            return Err(TemplateError::new("nested too deep"));
        }
        let mut last = None;
        for command in &pipeline.commands {
            last = Some(self.command(command, last, dot)?);
        }
        let value = last.unwrap_or_default();
        // A range gives its variables the items, not the list.
        if let [one] = pipeline.variables.as_slice() {
            self.variables.push((one.clone(), value.clone()));
        }
        self.depth -= 1;
        Ok(value)
    }

    fn command(
        &mut self,
        operands: &[Operand],
        piped: Option<Value>,
        dot: &Value,
    ) -> Result<Value, TemplateError> {
        let (first, rest) = operands.split_first().ok_or_else(|| TemplateError::new("empty command"))?;
        let mut arguments =
            rest.iter().map(|operand| self.operand(operand, dot)).collect::<Result<Vec<_>, _>>()?;
        arguments.extend(piped);
        if let Operand::Function(name) = first {
            return call(name, arguments);
        }
        let value = self.operand(first, dot)?;
        match arguments.is_empty() {
            true => Ok(value),
            // A method in Docker, such as `.Label "name"`: here the map that it looks into.
            false => {
                let mut all = vec![value];
                all.append(&mut arguments);
                call("index", all)
            }
        }
    }

    fn operand(&mut self, operand: &Operand, dot: &Value) -> Result<Value, TemplateError> {
        match operand {
            Operand::Literal(value) => Ok(value.clone()),
            Operand::Field(names) => fields(dot, names),
            Operand::Variable(name, names) => {
                let found = self.variables.iter().rev().find(|(known, _)| known == name);
                let (_, value) =
                    found.ok_or_else(|| TemplateError::new(format!("undefined variable \"${name}\"")))?;
                fields(value, names)
            }
            Operand::Nested(pipeline, names) => fields(&self.pipeline(pipeline, dot)?, names),
            Operand::Function(name) => call(name, Vec::new()),
        }
    }
}

/// What a chain of names leads to.
fn fields(value: &Value, names: &[String]) -> Result<Value, TemplateError> {
    let mut current = value;
    for name in names {
        current = match current {
            Value::Object(object) => match object.get(name) {
                Some(found) => found,
                None if is_struct(object) => {
                    return Err(TemplateError::new(format!("can't evaluate field {name}")));
                }
                None => return Ok(Value::String(NO_VALUE.to_owned())),
            },
            Value::Null => return Err(TemplateError::new(format!("nil data; no entry for key \"{name}\""))),
            _ => {
                return Err(TemplateError::new(format!("can't evaluate field {name} in {}", print(current))));
            }
        };
    }
    Ok(current.clone())
}

fn is_struct(object: &serde_json::Map<String, Value>) -> bool {
    !object.is_empty() && object.keys().all(|key| key.starts_with(|letter: char| letter.is_ascii_uppercase()))
}
