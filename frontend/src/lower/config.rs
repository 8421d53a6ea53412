//! Instructions that only change what the image says of itself.

use rbuild_image::Healthcheck;
use rbuild_llb::SourceRange;

use super::state::Current;
use super::{Lowerer, history};
use crate::args::CONTROL_ARGS;
use crate::error::{Error, ErrorKind};
use crate::expand::{Expander, Variables};
use crate::instruction::{ArgDeclaration, Command, CommandLine, Pair};
use crate::lint::{Rule, checks};

impl Lowerer<'_> {
    /// The value given for the build, or else the default, or else the global value; or else the name is declared
    /// and has none.
    pub(super) fn arg(
        &mut self,
        current: &mut Current,
        command: &Command,
        declarations: &[ArgDeclaration],
    ) -> Result<(), Error> {
        let mut shown = Vec::new();
        for declaration in declarations {
            let key = &declaration.key;
            checks::secret_name("ARG", key, command, self.linter);
            let global = self.globals.env.get(key);
            let (value, is_inherited) = match (self.options.build_args.get(key), &declaration.default) {
                (Some(given), _) => (Some(given.clone()), false),
                (None, Some(default)) => (Some(self.expand(current, command, default)?), false),
                (None, None) => (global.map(str::to_owned), global.is_some()),
            };
            self.outline.arg(self.text, command, key, is_inherited);
            if let Some(value) = &value
                && !CONTROL_ARGS.contains(&key.as_str())
            {
                current.state.env.set(key, value);
            }
            self.outline.arg_value(key, value.as_deref());
            shown.push(value.as_ref().map_or_else(|| key.clone(), |value| format!("{key}={value}")));
            current.state.args.push((key.clone(), value));
        }
        self.record(current, format!("ARG {}", shown.join(" ")));
        Ok(())
    }

    /// Every value sees the environment as it was before the line.
    pub(super) fn env(
        &mut self,
        current: &mut Current,
        command: &Command,
        pairs: &[Pair],
    ) -> Result<(), Error> {
        let pairs = self.pairs(current, command, pairs, "ENV")?;
        let mut shown = String::from("ENV");
        for (key, value) in pairs {
            checks::secret_name("ENV", &key, command, self.linter);
            shown.push_str(&format!(" {key}={value}"));
            current.state.env.set(&key, &value);
            current.state.config.config.env_set(&key, &value);
        }
        self.record(current, shown);
        Ok(())
    }

    pub(super) fn label(
        &mut self,
        current: &mut Current,
        command: &Command,
        pairs: &[Pair],
    ) -> Result<(), Error> {
        let pairs = self.pairs(current, command, pairs, "LABEL")?;
        let mut shown = String::from("LABEL");
        for (key, value) in pairs {
            shown.push_str(&format!(" {key}={value}"));
            current.state.config.config.labels.insert(key, value);
        }
        self.record(current, shown);
        Ok(())
    }

    fn pairs(
        &mut self,
        current: &Current,
        command: &Command,
        pairs: &[Pair],
        keyword: &str,
    ) -> Result<Vec<(String, String)>, Error> {
        if pairs.iter().any(|pair| pair.is_legacy) {
            let message = format!(
                "\"{keyword} key=value\" should be used instead of legacy \"{keyword} key value\" format"
            );
            self.linter.report(Rule::LegacyKeyValueFormat, &command.comments, command.range, message);
        }
        pairs
            .iter()
            .map(|pair| {
                let key = self.expand(current, command, &pair.key)?;
                Ok((key, self.expand(current, command, &pair.value)?))
            })
            .collect()
    }

    pub(super) fn cmd(&mut self, current: &mut Current, command: &Command, line: &CommandLine) {
        let before = current.cmd.replace(command.range);
        self.check_once(before, command);
        let args = self.command_words(current, command, line);
        let created_by = format!("CMD {}", history::quoted_list(&args));
        let config = &mut current.state.config.config;
        config.cmd = (!args.is_empty()).then_some(args);
        config.args_escaped = true;
        self.record(current, created_by);
    }

    /// A new entrypoint makes the inherited CMD meaningless, but not one of the same stage.
    pub(super) fn entrypoint(&mut self, current: &mut Current, command: &Command, line: &CommandLine) {
        let before = current.entrypoint.replace(command.range);
        self.check_once(before, command);
        let args = self.command_words(current, command, line);
        let created_by = format!("ENTRYPOINT {}", history::quoted_list(&args));
        let config = &mut current.state.config.config;
        config.entrypoint = (!args.is_empty()).then_some(args);
        if current.cmd.is_none() {
            config.cmd = None;
        }
        self.record(current, created_by);
    }

    fn command_words(&mut self, current: &Current, command: &Command, line: &CommandLine) -> Vec<String> {
        match line {
            CommandLine::Exec(args) => args.clone(),
            CommandLine::Shell(text) => {
                if current.state.config.config.shell.as_ref().is_none_or(Vec::is_empty) {
                    let keyword = command.keyword.to_uppercase();
                    let message = format!(
                        "JSON arguments recommended for {keyword} to prevent unintended behavior related to OS signals"
                    );
                    self.linter.report(Rule::JSONArgsRecommended, &command.comments, command.range, message);
                }
                let mut args = current.state.shell();
                args.push(text.clone());
                args
            }
        }
    }

    /// Reports the earlier of two, as that is the one without effect.
    fn check_once(&mut self, before: Option<SourceRange>, command: &Command) {
        if let Some(range) = before {
            let keyword = command.keyword.to_uppercase();
            let message = format!(
                "Multiple {keyword} instructions should not be used in the same stage because only the last one will be used"
            );
            self.linter.report(Rule::MultipleInstructionsDisallowed, &command.comments, range, message);
        }
    }

    pub(super) fn healthcheck(&mut self, current: &mut Current, command: &Command, check: &Healthcheck) {
        let before = current.healthcheck.replace(command.range);
        self.check_once(before, command);
        let shown = format!("HEALTHCHECK {}", history::quoted_healthcheck(check));
        current.state.config.config.healthcheck = Some(check.clone());
        self.record(current, shown);
    }

    pub(super) fn maintainer(&self, current: &mut Current, name: &str) {
        current.state.config.author = Some(name.to_owned());
        self.record(current, format!("MAINTAINER {name}"));
    }

    /// Kept as text for the images on top of this one. No history entry, as in BuildKit.
    pub(super) fn onbuild(current: &mut Current, trigger: &str) {
        current.state.config.config.on_build.push(trigger.to_owned());
    }

    pub(super) fn shell(&self, current: &mut Current, shell: &[String]) {
        current.state.config.config.shell = Some(shell.to_vec());
        self.record(current, format!("SHELL {}", history::plain_list(shell)));
    }

    pub(super) fn stop_signal(
        &mut self,
        current: &mut Current,
        command: &Command,
        signal: &str,
    ) -> Result<(), Error> {
        let signal = self.expand(current, command, signal)?;
        if !is_signal(&signal) {
            return Err(ErrorKind::Signal { signal }.into());
        }
        self.record(current, format!("STOPSIGNAL {signal}"));
        current.state.config.config.stop_signal = signal;
        Ok(())
    }

    pub(super) fn user(&mut self, current: &mut Current, command: &Command, user: &str) -> Result<(), Error> {
        let user = self.expand(current, command, user)?;
        self.record(current, format!("USER {user}"));
        current.state.config.config.user = user;
        Ok(())
    }

    pub(super) fn volume(
        &mut self,
        current: &mut Current,
        command: &Command,
        volumes: &[String],
    ) -> Result<(), Error> {
        let volumes = self.expand_all(current, command, volumes)?;
        if volumes.iter().any(String::is_empty) {
            return Err(ErrorKind::BlankVolume.into());
        }
        self.record(current, format!("VOLUME {}", history::plain_list(&volumes)));
        current.state.config.config.volumes.extend(volumes);
        Ok(())
    }

    /// A word may expand to several ports.
    pub(super) fn expose(
        &mut self,
        current: &mut Current,
        command: &Command,
        ports: &[String],
    ) -> Result<(), Error> {
        let mut exposed = Vec::new();
        for word in ports {
            let words = self.expand_with(current, command, Expander::new(self.escape), word)?.words;
            for port in &words {
                self.check_port(command, port);
                exposed.extend(parse_port(port)?);
            }
        }
        self.record(current, format!("EXPOSE {}", history::plain_list(&exposed)));
        current.state.config.config.exposed_ports.extend(exposed);
        Ok(())
    }

    fn check_port(&mut self, command: &Command, port: &str) {
        let protocol = port.split_once('/').map(|(_, protocol)| protocol).unwrap_or_default();
        if protocol.bytes().any(|byte| byte.is_ascii_uppercase()) {
            let message = format!("Defined protocol '{port}' in EXPOSE instruction should be lowercase");
            self.linter.report(Rule::ExposeProtoCasing, &command.comments, command.range, message);
        }
        if port.contains(':') {
            let message = format!(
                "EXPOSE instruction should not define an IP address or host-port mapping, found '{port}'"
            );
            self.linter.report(Rule::ExposeInvalidFormat, &command.comments, command.range, message);
        }
    }
}

/// `[[address:]host:]port[-port][/protocol]`: each port of the container, with its protocol.
fn parse_port(text: &str) -> Result<Vec<String>, Error> {
    let error = |reason| Error::from(ErrorKind::Port { port: text.to_owned(), reason });
    let (before, container) = text.rsplit_once(':').map_or(("", text), |(before, port)| (before, port));
    let (ports, protocol) = container.split_once('/').unwrap_or((container, ""));
    let protocol = match protocol.to_ascii_lowercase().as_str() {
        "" => "tcp".to_owned(),
        protocol @ ("tcp" | "udp" | "sctp") => protocol.to_owned(),
        _ => return Err(error("the protocol is none of tcp, udp and sctp")),
    };
    if ports.is_empty() {
        return Err(error("no port"));
    }
    let (first, last) = parse_range(ports).ok_or_else(|| error("not a port or a range of ports"))?;
    if !before.is_empty() {
        check_host(before, last - first).map_err(error)?;
    }
    Ok((first..=last).map(|port| format!("{port}/{protocol}")).collect())
}

fn parse_range(text: &str) -> Option<(u16, u16)> {
    let (first, last) = text.split_once('-').unwrap_or((text, text));
    let range = (first.parse().ok()?, last.parse().ok()?);
    (range.0 <= range.1).then_some(range)
}

/// The part for the host, which has no effect but must be well-formed.
fn check_host(text: &str, count: u16) -> Result<(), &'static str> {
    let (address, ports) = text.rsplit_once(':').map_or(("", text), |(address, ports)| (address, ports));
    let address = address.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(address);
    if !address.is_empty() && address.parse::<std::net::IpAddr>().is_err() {
        return Err("the address is invalid");
    }
    if ports.is_empty() {
        return Ok(());
    }
    let (first, last) = parse_range(ports).ok_or("the host port is invalid")?;
    if last - first != count && count != 0 {
        return Err("the ranges of container and host are of different size");
    }
    Ok(())
}

/// Linux's signals by name. Numbers are accepted too.
const SIGNALS: [&str; 33] = [
    "ABRT", "ALRM", "BUS", "CHLD", "CLD", "CONT", "FPE", "HUP", "ILL", "INT", "IO", "IOT", "KILL", "PIPE",
    "POLL", "PROF", "PWR", "QUIT", "SEGV", "STKFLT", "STOP", "SYS", "TERM", "TRAP", "TSTP", "TTIN", "TTOU",
    "URG", "USR1", "USR2", "VTALRM", "WINCH", "XCPU",
];
/// Distance of the real-time signals that can be counted from either end.
const RTMIN_PLUS_MAX: u32 = 15;
const RTMAX_MINUS_MAX: u32 = 14;

fn is_signal(text: &str) -> bool {
    if let Ok(number) = text.parse::<i64>() {
        return number != 0;
    }
    let upper = text.to_ascii_uppercase();
    let name = upper.strip_prefix("SIG").unwrap_or(&upper);
    let within = |prefix: &str, max: u32| {
        let number = name.strip_prefix(prefix).and_then(|rest| rest.parse::<u32>().ok());
        number.is_some_and(|number| (1..=max).contains(&number))
    };
    SIGNALS.contains(&name)
        || matches!(name, "XFSZ" | "RTMIN" | "RTMAX")
        || within("RTMIN+", RTMIN_PLUS_MAX)
        || within("RTMAX-", RTMAX_MINUS_MAX)
}
