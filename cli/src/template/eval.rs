//! From nodes and a value to text.

use serde_json::Value;

use super::functions::{call, print};
use super::parse::{Block, Node, Operand, Pipeline};
use super::typed::Typed;
use super::{DEPTH_MAX, TemplateError};

struct Scope {
    /// Innermost last; the first is `$`.
    variables: Vec<(String, Typed)>,
    out: String,
    depth: usize,
}

pub(super) fn render(nodes: &[Node], value: &Typed) -> Result<String, TemplateError> {
    let mut scope = Scope { variables: vec![(String::new(), value.clone())], out: String::new(), depth: 0 };
    scope.nodes(nodes, value)?;
    Ok(scope.out)
}

impl Scope {
    fn nodes(&mut self, nodes: &[Node], dot: &Typed) -> Result<(), TemplateError> {
        let outer = self.variables.len();
        for node in nodes {
            match node {
                Node::Text(text) => self.out.push_str(text),
                Node::Print(pipeline) => {
                    let value = self.pipeline(pipeline, dot)?;
                    if pipeline.variables.is_empty() {
                        self.out.push_str(&value.text());
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

    fn choose(&mut self, block: &Block, dot: &Typed, becomes_dot: bool) -> Result<(), TemplateError> {
        let outer = self.variables.len();
        let value = self.pipeline(&block.pipeline, dot)?;
        if value.is_true() {
            self.nodes(&block.then, if becomes_dot { &value } else { dot })?;
        } else {
            self.nodes(&block.otherwise, dot)?;
        }
        self.variables.truncate(outer);
        Ok(())
    }

    fn range(&mut self, block: &Block, dot: &Typed) -> Result<(), TemplateError> {
        let outer = self.variables.len();
        let items: Vec<(Typed, Typed)> = match self.pipeline(&block.pipeline, dot)?.into_seen() {
            Value::Array(items) => {
                let items = items.into_iter().enumerate();
                items.map(|(at, item)| (Value::from(at).into(), item.into())).collect()
            }
            Value::Object(items) => {
                items.into_iter().map(|(key, item)| (Value::from(key).into(), item.into())).collect()
            }
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

    fn pipeline(&mut self, pipeline: &Pipeline, dot: &Typed) -> Result<Typed, TemplateError> {
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
        piped: Option<Typed>,
        dot: &Typed,
    ) -> Result<Typed, TemplateError> {
        let (first, rest) = operands.split_first().ok_or_else(|| TemplateError::new("empty command"))?;
        let mut arguments =
            rest.iter().map(|operand| self.operand(operand, dot)).collect::<Result<Vec<_>, _>>()?;
        arguments.extend(piped);
        if let Operand::Function(name) = first {
            // As JSON, what is nil is no longer empty.
            let plain = if name == "json" { Typed::into_json } else { Typed::into_seen };
            return call(name, arguments.into_iter().map(plain).collect()).map(Typed::from);
        }
        let value = self.operand(first, dot)?;
        match arguments.is_empty() {
            true => Ok(value),
            // A method in Docker, such as `.Label "name"`: here the map that it looks into.
            false => {
                let all = std::iter::once(value).chain(arguments).map(Typed::into_seen);
                call("index", all.collect()).map(Typed::from)
            }
        }
    }

    fn operand(&mut self, operand: &Operand, dot: &Typed) -> Result<Typed, TemplateError> {
        match operand {
            Operand::Literal(value) => Ok(value.clone().into()),
            Operand::Field(names) => dot.fields(names),
            Operand::Variable(name, names) => {
                let found = self.variables.iter().rev().find(|(known, _)| known == name);
                let (_, value) =
                    found.ok_or_else(|| TemplateError::new(format!("undefined variable \"${name}\"")))?;
                value.fields(names)
            }
            Operand::Nested(pipeline, names) => self.pipeline(pipeline, dot)?.fields(names),
            Operand::Function(name) => call(name, Vec::new()).map(Typed::from),
        }
    }
}
