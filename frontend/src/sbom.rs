//! Bills of materials: a step that runs a scanner over a result, by BuildKit's protocol.
//!
//! The scanner is an image. It sees the result, which it cannot change, in `BUILDKIT_SCAN_SOURCE`, and writes statements
//! (`<name>.spdx.json`) into `BUILDKIT_SCAN_DESTINATION`, which is what the step gives.

use std::collections::BTreeMap;

use rbuild_image::Platform;
use rbuild_llb::{
    Definition, DefinitionError, Edge, ExecOp, ImageSource, InputIndex, Meta, Mount, MountKind, Network, Op,
    OutputIndex, Process, ResolveMode, Security, SourceOp, Vertex, VertexId,
};
use thiserror::Error;

use crate::resolver::ResolvedImage;

/// What the main statement is called, without `.spdx.json`.
pub const MAIN_STATEMENT: &str = "sbom";
const SOURCE: &str = "/run/src/core/sbom";
const DESTINATION: &str = "/run/out/";

/// Who scans.
#[derive(Debug, Clone)]
pub struct Scanner {
    /// The image.
    pub image: ResolvedImage,
    /// What it runs on.
    pub platform: Platform,
    /// What it is told, by the end of the variable `BUILDKIT_SCAN_…`.
    pub parameters: BTreeMap<String, String>,
}

/// Why a result cannot be scanned.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum ScanError {
    /// The image says nothing of what to run.
    #[error("scanner `{0}` does not have a command")]
    NoCommand(String),
    /// With the scan it is no build.
    #[error(transparent)]
    Definition(#[from] DefinitionError),
}

/// The build of the scan of a build's one result, which is for `platform`.
///
/// # Errors
/// When the scanner is none.
pub fn scan(result: &Definition, platform: &Platform, scanner: &Scanner) -> Result<Definition, ScanError> {
    let image = &scanner.image;
    let name = format!("[{platform}] generating sbom using {}", image.reference);
    let source = SourceOp::Image(ImageSource {
        reference: image.reference.clone(),
        resolve_mode: ResolveMode::Default,
        layer_limit: None,
    });
    let (of_image, of_scan) = (
        Meta { name: format!("[internal] load {}", image.reference), internal: true, ..Meta::default() },
        Meta { name, ..Meta::default() },
    );
    let scanner_platform = Some(scanner.platform.clone());
    let mut vertices = result.vertices().to_vec();
    let mut add = |op, inputs, meta| {
        let id = VertexId(u32::try_from(vertices.len()).unwrap_or(u32::MAX));
        vertices.push(Vertex { op, inputs, platform: scanner_platform.clone(), meta });
        id
    };
    let image_id = add(Op::Source(source), Vec::new(), of_image);
    let scanned = result.targets().iter().flatten().next();
    let inputs: Vec<Edge> = [Edge::from(image_id)].into_iter().chain(scanned.copied()).collect();
    let exec = Op::Exec(exec(scanner, scanned.map(|_| InputIndex(1)))?);
    let scan = add(exec, inputs, of_scan);
    Ok(Definition::new(vertices, vec![Some(scan.into())])?)
}

fn exec(scanner: &Scanner, scanned: Option<InputIndex>) -> Result<ExecOp, ScanError> {
    let mut config = scanner.image.config.config.clone();
    let words = [config.entrypoint.take(), config.cmd.take()];
    let args: Vec<String> = words.into_iter().flatten().flatten().collect();
    if args.is_empty() {
        return Err(ScanError::NoCommand(scanner.image.reference.to_string()));
    }
    config.env_set("BUILDKIT_SCAN_DESTINATION", DESTINATION);
    config.env_set("BUILDKIT_SCAN_SOURCE", SOURCE);
    for (name, value) in &scanner.parameters {
        config.env_set(&format!("BUILDKIT_SCAN_{name}"), value);
    }
    let cwd = if config.working_dir.is_empty() { "/".to_owned() } else { config.working_dir };
    let bind = |target: &str, input| Mount {
        input,
        selector: String::new(),
        target: target.to_owned(),
        output: None,
        readonly: false,
        kind: MountKind::Bind,
    };
    Ok(ExecOp {
        process: Process { args, env: config.env, cwd, ..Process::default() },
        mounts: vec![
            bind("/", Some(InputIndex(0))),
            Mount { kind: MountKind::Tmpfs { size_bytes: None }, ..bind("/tmp", None) },
            Mount { readonly: true, ..bind(SOURCE, scanned) },
            Mount { output: Some(OutputIndex(0)), ..bind(DESTINATION, None) },
        ],
        network: Network::Default,
        security: Security::Sandbox,
        secret_env: Vec::new(),
        devices: Vec::new(),
    })
}

#[cfg(test)]
mod tests {
    use rbuild_image::ImageConfig;
    use rbuild_llb::{Builder, LocalSource};

    use super::*;

    fn scanner(command: &[&str]) -> Scanner {
        let platform = Platform::new("linux", "amd64", None);
        let mut config = ImageConfig::new(platform.clone());
        config.config.entrypoint = Some(command.iter().map(|&word| word.to_owned()).collect());
        config.config.env_set("PATH", "/bin");
        let image = ResolvedImage { reference: "scanner:1".parse().unwrap(), config };
        Scanner { image, platform, parameters: [("LEVEL".to_owned(), "2".to_owned())].into() }
    }

    fn result() -> Definition {
        let mut builder = Builder::new();
        let op = Op::Source(SourceOp::Local(LocalSource::default()));
        let id = builder.add(Vertex { op, inputs: Vec::new(), platform: None, meta: Meta::default() });
        builder.finish(Some(id.into())).unwrap()
    }

    #[test]
    fn a_scanner_is_told_where_to_look_and_where_to_write() {
        let platform = Platform::new("linux", "arm64", None);
        let scan = scan(&result(), &platform, &scanner(&["/scan", "-v"])).unwrap();
        let vertex = scan.vertex(VertexId(2));
        assert_eq!(vertex.meta.name, "[linux/arm64] generating sbom using docker.io/library/scanner:1");
        assert_eq!(vertex.inputs, [VertexId(1).into(), VertexId(0).into()]);
        let Op::Exec(exec) = &vertex.op else { panic!("{:?}", vertex.op) };
        let told = [
            "PATH=/bin",
            "BUILDKIT_SCAN_DESTINATION=/run/out/",
            "BUILDKIT_SCAN_SOURCE=/run/src/core/sbom",
            "BUILDKIT_SCAN_LEVEL=2",
        ];
        assert_eq!(exec.process.env, told);
        assert_eq!(exec.process.args, ["/scan", "-v"]);
        let readonly: Vec<_> = exec.mounts.iter().filter(|mount| mount.readonly).collect();
        assert_eq!((readonly[0].target.as_str(), readonly[0].input), (SOURCE, Some(InputIndex(1))));
    }

    #[test]
    fn a_scanner_needs_a_command() {
        let platform = Platform::new("linux", "amd64", None);
        let error = scan(&result(), &platform, &scanner(&[])).unwrap_err();
        assert_eq!(error.to_string(), "scanner `docker.io/library/scanner:1` does not have a command");
    }
}
