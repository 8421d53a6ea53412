//! `rbuild events`: what happened to containers, images, networks and volumes, and what happens. Docker's words and lines.

use std::collections::BTreeMap;
use std::io::{self, Write as _};
use std::thread::sleep;
use std::time::Duration;

use rbuild_cache::{StoreEvent, Subject};
use serde_json::{Value, json};

use super::filter::{invalid, time_ns};
use super::{FAILED, templated};
use crate::app::{App, unix_now_ns};
use crate::args::EventsArgs;
use crate::format::{go_time_ns, visible};
use crate::report::Failure;
use crate::template::{Template, TemplateError};

const NS_PER_SECOND: i64 = 1_000_000_000;
/// How long nothing is looked for after nothing was found.
const PAUSE: Duration = Duration::from_millis(100);

/// The form of a line.
enum Form {
    Text,
    Json,
    Template(Template),
}

pub(crate) fn run(app: &App, args: &EventsArgs) -> Result<u8, Failure> {
    let time = |text: &Option<String>| text.as_deref().map(time_ns).transpose();
    let since = time(&args.since)?.unwrap_or_else(unix_now_ns);
    let until = time(&args.until)?.unwrap_or(i64::MAX);
    let filters = Filters::parse(&args.filters)?;
    let form = Form::parse(args.format.as_deref()).map_err(templated)?;
    let mut reader = app.store()?.events();
    loop {
        // Looked at before the log: what is noted after it is not asked for.
        let is_over = unix_now_ns() > until;
        while let Some(event) = reader.next_event()? {
            if (since..=until).contains(&event.time)
                && filters.select(&event)
                && !write_line(&form.render(&event).map_err(templated)?)?
            {
                return Ok(0);
            }
        }
        if is_over {
            return Ok(0);
        }
        sleep(PAUSE);
    }
}

/// Writes a line. Whether anybody is there to read on.
fn write_line(line: &str) -> Result<bool, Failure> {
    let mut out = io::stdout().lock();
    match out
        .write_all(visible(line).as_bytes())
        .and_then(|()| out.write_all(b"\n"))
        .and_then(|()| out.flush())
    {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(false),
        Err(error) => Err(Failure::new(FAILED, format!("failed to write to standard output: {error}"))),
    }
}

impl Form {
    fn parse(format: Option<&str>) -> Result<Self, TemplateError> {
        match format {
            None | Some("") => Ok(Self::Text),
            Some("json") => Ok(Self::Json),
            Some(text) => Template::parse(text).map(Self::Template),
        }
    }

    fn render(&self, event: &StoreEvent) -> Result<String, TemplateError> {
        match self {
            Self::Text => Ok(as_text(event)),
            Self::Json => Ok(as_json(event).to_string()),
            Self::Template(template) => template.render(&as_go(event)),
        }
    }
}

/// `TIME container start ID (image=app, name=web)`.
fn as_text(event: &StoreEvent) -> String {
    let attributes: Vec<String> =
        event.attributes.iter().map(|(name, value)| format!("{name}={value}")).collect();
    let StoreEvent { time, kind, action, id, .. } = event;
    format!("{} {} {action} {id} ({})", go_time_ns(*time), kind.name(), attributes.join(", "))
}

/// As Docker's API has it.
fn as_json(event: &StoreEvent) -> Value {
    let mut json = json!({
        "Type": event.kind.name(),
        "Action": event.action,
        "Actor": { "ID": event.id, "Attributes": event.attributes },
        "scope": "local",
        "time": event.time / NS_PER_SECOND,
        "timeNano": event.time,
    });
    if matches!(event.kind, Subject::Container | Subject::Image) {
        json["status"] = event.action.clone().into();
        json["id"] = event.id.clone().into();
    }
    if let (Subject::Container, Some(image)) = (event.kind, event.attributes.get("image")) {
        json["from"] = image.clone().into();
    }
    json
}

/// As templates know it.
fn as_go(event: &StoreEvent) -> Value {
    json!({
        "Type": event.kind.name(),
        "Action": event.action,
        "Status": event.action,
        "ID": event.id,
        "From": event.attributes.get("image").filter(|_| event.kind == Subject::Container),
        "Actor": { "ID": event.id, "Attributes": event.attributes },
        "Scope": "local",
        "Time": event.time / NS_PER_SECOND,
        "TimeNano": event.time,
    })
}

/// Values of one name are alternatives, names are all to be met.
#[derive(Default)]
struct Filters(BTreeMap<String, Vec<String>>);

impl Filters {
    fn parse(texts: &[String]) -> Result<Self, Failure> {
        let mut filters = Self::default();
        for text in texts {
            let known = ["container", "event", "image", "label", "network", "scope", "type", "volume"];
            let pair = text.split_once('=').filter(|(name, _)| known.contains(name));
            let (name, value) = pair.ok_or_else(|| invalid(text))?;
            filters.0.entry(name.to_owned()).or_default().push(value.to_owned());
        }
        Ok(filters)
    }

    fn select(&self, event: &StoreEvent) -> bool {
        self.0.iter().all(|(name, values)| match name.as_str() {
            // Labels are all to be there.
            "label" => values.iter().all(|label| has_label(event, label)),
            name => values.iter().any(|value| is_met(event, name, value)),
        })
    }
}

fn has_label(event: &StoreEvent, label: &str) -> bool {
    let (name, wanted) = label.split_once('=').map_or((label, None), |(name, value)| (name, Some(value)));
    event.attributes.get(name).is_some_and(|found| wanted.is_none_or(|wanted| found == wanted))
}

fn is_met(event: &StoreEvent, name: &str, value: &str) -> bool {
    let attribute = |name: &str| event.attributes.get(name).map_or("", String::as_str);
    let is_named = |kind| {
        let id = event.id.strip_prefix("sha256:").unwrap_or(&event.id);
        event.kind == kind
            && (attribute("name") == value || event.id == value || (value.len() > 3 && id.starts_with(value)))
    };
    let is_image = |found: &str| found == value || found.strip_suffix(":latest") == Some(value);
    match name {
        "type" => event.kind.name() == value,
        // `health_status: healthy` is one of `health_status`.
        "event" => event.action == value || event.action.split(": ").next() == Some(value),
        "container" => is_named(Subject::Container) || attribute("container").starts_with(value),
        "image" => {
            let named = if event.kind == Subject::Image { "name" } else { "image" };
            is_named(Subject::Image) || is_image(attribute(named))
        }
        "network" => is_named(Subject::Network),
        "volume" => is_named(Subject::Volume),
        _ => value == "local",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(kind: Subject, action: &str, id: &str, attributes: &[(&str, &str)]) -> StoreEvent {
        let attributes = attributes.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
        StoreEvent {
            time: 1_795_296_017_000_000_018,
            kind,
            action: action.to_owned(),
            id: id.to_owned(),
            attributes: attributes.collect(),
        }
    }

    #[test]
    fn filters_select() {
        let start = event(
            Subject::Container,
            "start",
            "f61a4542",
            &[("image", "app:latest"), ("name", "web"), ("l", "1")],
        );
        let pull = event(Subject::Image, "pull", "app:latest", &[("name", "app")]);
        let well = event(Subject::Container, "health_status: healthy", "00", &[("name", "db")]);
        let cases: [(&[&str], [bool; 3]); 13] = [
            (&[], [true, true, true]),
            (&["type=container"], [true, false, true]),
            (&["type=container", "type=image"], [true, true, true]),
            (&["type=image", "event=start"], [false, false, false]),
            (&["event=health_status"], [false, false, true]),
            (&["container=web"], [true, false, false]),
            (&["container=f61a"], [true, false, false]),
            (&["container=x"], [false, false, false]),
            (&["image=app"], [true, true, false]),
            (&["label=l"], [true, false, false]),
            (&["label=l=1", "label=m"], [false, false, false]),
            (&["volume=web"], [false, false, false]),
            (&["scope=local"], [true, true, true]),
        ];
        for (texts, expected) in cases {
            let texts: Vec<String> = texts.iter().map(ToString::to_string).collect();
            let filters = Filters::parse(&texts).unwrap();
            assert_eq!([&start, &pull, &well].map(|event| filters.select(event)), expected, "{texts:?}");
        }
        for wrong in ["x=1", "type", ""] {
            assert!(Filters::parse(&[wrong.to_owned()]).is_err(), "{wrong}");
        }
    }

    #[test]
    fn events_are_shown_as_docker_shows_them() {
        let die =
            event(Subject::Container, "die", "f6", &[("name", "web"), ("image", "app"), ("exitCode", "3")]);
        let text = as_text(&die);
        assert!(
            text.contains(".000000018")
                && text.ends_with(" container die f6 (exitCode=3, image=app, name=web)"),
            "{text}"
        );
        let json = as_json(&die);
        assert_eq!(
            (&json["status"], &json["from"], &json["time"]),
            (&"die".into(), &"app".into(), &1_795_296_017.into())
        );
        let form = Form::parse(Some("{{.Actor.Attributes.exitCode}} {{.Status}} {{.From}}")).unwrap();
        assert_eq!(form.render(&die).unwrap(), "3 die app");
        let volume = as_json(&event(Subject::Volume, "create", "v", &[]));
        assert!(volume.get("status").is_none(), "{volume}");
    }
}
