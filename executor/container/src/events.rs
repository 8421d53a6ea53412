//! What is noted in the store's log of events when a container changes.

use rbuild_cache::Subject;

use crate::{Container, ContainerState, Containers, KnownNetworks, NetworkMode, NetworkRecord, Status};

const NS_PER_SECOND: i64 = 1_000_000_000;

/// Something that happened to a container, in Docker's words.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Noted {
    pub(crate) action: String,
    pub(crate) attributes: Vec<(&'static str, String)>,
}

impl Noted {
    fn new(action: impl Into<String>) -> Self {
        Self { action: action.into(), attributes: Vec::new() }
    }
}

/// What one state has become the next by; `None` where nothing happened that anybody waits for.
pub(crate) fn of_change(before: &ContainerState, after: &ContainerState) -> Option<Noted> {
    let is_up = |status: &Status| matches!(status, Status::Running(_) | Status::Paused(_));
    match (&before.status, &after.status) {
        (Status::Running(_), Status::Running(_)) => of_health(before, after),
        (Status::Running(_), Status::Paused(_)) => Some(Noted::new("pause")),
        (Status::Paused(_), Status::Running(_)) => Some(Noted::new("unpause")),
        (_, Status::Running(_)) => Some(Noted::new("start")),
        (before, Status::Restarting { code, .. }) if is_up(before) => Some(died(*code, None)),
        (before, Status::Exited(ended)) if is_up(before) => {
            Some(died(ended.code, Some((ended.finished - ended.started) / NS_PER_SECOND)))
        }
        _ => None,
    }
}

fn died(code: i32, seconds: Option<i64>) -> Noted {
    let duration = seconds.map(|seconds| ("execDuration", seconds.to_string()));
    let attributes = duration.into_iter().chain([("exitCode", code.to_string())]).collect();
    Noted { attributes, ..Noted::new("die") }
}

fn of_health(before: &ContainerState, after: &ContainerState) -> Option<Noted> {
    let status = |state: &ContainerState| state.health.as_ref().map(|health| health.status);
    let now = status(after).filter(|now| status(before) != Some(*now))?;
    Some(Noted::new(format!("health_status: {}", now.name())))
}

impl Containers {
    /// Notes what happened to a container, in Docker's words.
    pub fn note<'a>(
        &self,
        container: &'a Container,
        action: &str,
        attributes: impl IntoIterator<Item = (&'a str, String)>,
    ) {
        let spec = &container.state.spec;
        let labels = spec.config.labels.iter().map(|(name, value)| (name.as_str(), value.clone()));
        let own = [("image", spec.image.clone()), ("name", container.name.clone())];
        let all = labels.chain(own).chain(attributes);
        self.store().note(Subject::Container, action, &container.id, all);
    }

    /// Notes that a container has joined its networks, or left them.
    pub(crate) fn note_networks(&self, container: &Container, action: &str) {
        let known = KnownNetworks::of(self.store());
        let mode = &container.state.spec.network;
        let alone = match mode {
            NetworkMode::Host | NetworkMode::None => Some(mode.to_string()),
            NetworkMode::Networks(_) | NetworkMode::Container(_) => None,
        };
        let names = mode.attachments().iter().map(|attachment| &attachment.network).chain(&alone);
        // One that was removed meanwhile has nothing to be told of.
        for record in names.filter_map(|name| known.get(name).ok()) {
            self.note_network(&record, action, Some(container));
        }
    }

    /// Notes what happened to a network.
    pub fn note_network(&self, record: &NetworkRecord, action: &str, container: Option<&Container>) {
        let own = [("name", record.config.name.clone()), ("type", record.driver.name().to_owned())];
        let container = container.map(|container| ("container", container.id.clone()));
        self.store().note(Subject::Network, action, &record.id, own.into_iter().chain(container));
    }

    /// The same, of a container of which only the id is known.
    pub(crate) fn note_change(&self, id: &str, noted: Noted) {
        // One that is gone by now is noted as gone.
        let Ok(container) = self.get(id) else { return };
        self.note(&container, &noted.action, noted.attributes);
    }
}
