//! A stable text form of a definition, for golden tests and `rbuild debug llb`.
//!
//! One line for each vertex, `#<id> <name>`, then its inputs and its op as indented JSON. Source ranges are shown
//! as `@first-last`.

use std::fmt;

use crate::Definition;

impl fmt::Display for Definition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for id in self.ids() {
            let vertex = self.vertex(id);
            write!(f, "#{} {}", id.0, vertex.meta.name)?;
            if let Some(range) = vertex.meta.source {
                write!(f, " @{}-{}", range.line_first, range.line_last)?;
            }
            if let Some(platform) = &vertex.platform {
                write!(f, " ({platform})")?;
            }
            if vertex.meta.ignore_cache {
                f.write_str(" no-cache")?;
            }
            writeln!(f)?;
            if !vertex.inputs.is_empty() {
                f.write_str("  inputs:")?;
                for edge in &vertex.inputs {
                    write!(f, " #{}.{}", edge.vertex.0, edge.output.0)?;
                }
                writeln!(f)?;
            }
            let op = serde_json::to_string_pretty(&vertex.op).map_err(|_| fmt::Error)?;
            for line in op.lines() {
                writeln!(f, "  {line}")?;
            }
        }
        self.targets().iter().try_for_each(|target| match target {
            Some(edge) => writeln!(f, "result: #{}.{}", edge.vertex.0, edge.output.0),
            None => writeln!(f, "result: scratch"),
        })
    }
}
