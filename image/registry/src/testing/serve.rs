//! What the fake registry answers.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use rbuild_image::Digest;

use super::message::{Answer, Request};
use super::{Door, State, Token};

/// What it says to a request that came to this `host:port`.
pub(super) fn answer(state: &mut State, request: &Request, host: &str) -> Answer {
    let path = request.path.split('?').next().unwrap_or_default();
    if path == "/token" {
        return token(state, request);
    }
    if let Some(name) = path.strip_prefix("/files/") {
        return file(state, request, name);
    }
    let Some(path) = path.strip_prefix("/v2/") else { return Answer::new(404) };
    if let Some(refusal) = refusal(state, request, path, host) {
        return refusal;
    }
    if path.is_empty() {
        return Answer::new(200);
    }
    if path == "_catalog" {
        let names: Vec<_> = state.repositories.keys().collect();
        return json(&serde_json::json!({ "repositories": names }));
    }
    route(state, request, path).unwrap_or_else(|| Answer::new(404))
}

/// `<repository>/<kind>/<rest>`.
fn route(state: &mut State, request: &Request, path: &str) -> Option<Answer> {
    if let Some((repository, id)) = path.split_once("/blobs/uploads/") {
        return Some(upload(state, request, repository, id));
    }
    if let Some((repository, digest)) = path.split_once("/blobs/") {
        let blob = state.repositories.get(repository)?.blobs.get(digest);
        let found = |blob: &Vec<u8>| Answer::new(200).body(blob.clone());
        return Some(blob.map_or_else(|| Answer::error(404, "BLOB_UNKNOWN"), found));
    }
    if let Some((repository, selector)) = path.split_once("/manifests/") {
        return Some(manifest(state, request, repository, selector));
    }
    let repository = path.strip_suffix("/tags/list")?;
    Some(tags(state, request, repository))
}

/// One tag a page, to have pages.
fn tags(state: &State, request: &Request, repository: &str) -> Answer {
    let Some(found) = state.repositories.get(repository) else { return Answer::error(404, "NAME_UNKNOWN") };
    let last = request.query("last").into_iter().next().unwrap_or_default();
    let mut rest = found.tags.keys().filter(|tag| **tag > last);
    let page: Vec<_> = rest.next().into_iter().collect();
    let answer = json(&serde_json::json!({ "name": repository, "tags": page }));
    match (page.first(), rest.next()) {
        (Some(tag), Some(_)) => {
            answer.header("Link", format!("</v2/{repository}/tags/list?n=1&last={tag}>; rel=\"next\""))
        }
        _ => answer,
    }
}

fn manifest(state: &mut State, request: &Request, repository: &str, selector: &str) -> Answer {
    let repository = match request.method.as_str() {
        "PUT" => state.repositories.entry(repository.to_owned()).or_default(),
        _ => match state.repositories.get_mut(repository) {
            Some(repository) => repository,
            None => return Answer::error(404, "NAME_UNKNOWN"),
        },
    };
    if request.method == "PUT" {
        let digest = Digest::of(&request.body).to_string();
        let media_type = request.header("content-type").unwrap_or_default().to_owned();
        repository.manifests.insert(digest.clone(), (media_type, request.body.clone()));
        if !selector.contains(':') {
            repository.tags.insert(selector.to_owned(), digest.clone());
        }
        return Answer::new(201).header("Docker-Content-Digest", digest);
    }
    if request.method == "DELETE" {
        repository.tags.retain(|_, digest| digest != selector);
        return Answer::new(if repository.manifests.remove(selector).is_some() { 202 } else { 404 });
    }
    let digest = repository.tags.get(selector).map_or(selector, String::as_str);
    match repository.manifests.get(digest) {
        None => Answer::error(404, "MANIFEST_UNKNOWN"),
        Some((media_type, bytes)) => Answer::new(200)
            .header("Content-Type", media_type)
            .header("Docker-Content-Digest", digest)
            .body(bytes.clone()),
    }
}

fn upload(state: &mut State, request: &Request, repository: &str, id: &str) -> Answer {
    let place = |id: &str| format!("/v2/{repository}/blobs/uploads/{id}?state=kept");
    match request.method.as_str() {
        "POST" => {
            if mount(state, request, repository).is_some() {
                return Answer::new(201);
            }
            let id = state.next_name("upload");
            state.uploads.insert(id.clone(), Vec::new());
            Answer::new(202).header("Location", place(&id))
        }
        "PATCH" => {
            let Some(upload) = state.uploads.get_mut(id) else {
                return Answer::error(404, "BLOB_UPLOAD_UNKNOWN");
            };
            let start =
                request.header("content-range").and_then(|range| range.split_once('-')?.0.parse().ok());
            // What has no length has no range either: it is all there is.
            if request.header("content-length").is_some() && start != Some(upload.len()) {
                return Answer::new(416);
            }
            upload.extend_from_slice(&request.body);
            Answer::new(202).header("Location", place(id))
        }
        "GET" => match state.uploads.get(id).map(Vec::len) {
            Some(size) => Answer::new(204)
                .header("Location", place(id))
                .header("Range", format!("0-{}", size.saturating_sub(1))),
            None => Answer::error(404, "BLOB_UPLOAD_UNKNOWN"),
        },
        "PUT" => close_upload(state, request, repository, id),
        "DELETE" if state.uploads.remove(id).is_some() => Answer::new(204),
        _ => Answer::error(404, "BLOB_UPLOAD_UNKNOWN"),
    }
}

fn mount(state: &mut State, request: &Request, repository: &str) -> Option<()> {
    let (digest, from) = (request.query("mount").pop()?, request.query("from").pop()?);
    let blob = state.repositories.get(&from)?.blobs.get(&digest)?.clone();
    state.repositories.entry(repository.to_owned()).or_default().blobs.insert(digest, blob);
    Some(())
}

fn close_upload(state: &mut State, request: &Request, repository: &str, id: &str) -> Answer {
    let Some(mut blob) = state.uploads.remove(id) else { return Answer::error(404, "BLOB_UPLOAD_UNKNOWN") };
    blob.extend_from_slice(&request.body);
    let digest = Digest::of(&blob).to_string();
    if request.query("digest") != [digest.as_str()] || request.query("state") != ["kept"] {
        return Answer::error(400, "DIGEST_INVALID");
    }
    state.repositories.entry(repository.to_owned()).or_default().blobs.insert(digest.clone(), blob);
    Answer::new(201).header("Docker-Content-Digest", digest)
}

fn file(state: &State, request: &Request, name: &str) -> Answer {
    let Some(file) = state.files.get(name) else { return Answer::new(404) };
    let same_tag = |name| file.etag.is_some() && request.header(name) == file.etag.as_deref();
    if same_tag("if-none-match") {
        return Answer::new(304);
    }
    let answer = Answer::new(200).body(file.content.clone());
    let answer = file.etag.iter().fold(answer, |answer, etag| answer.header("ETag", etag));
    file.last_modified.iter().fold(answer, |answer, date| answer.header("Last-Modified", date))
}

fn json(value: &serde_json::Value) -> Answer {
    Answer::new(200).header("Content-Type", "application/json").body(value.to_string())
}

/// The answer for those who are not let in.
fn refusal(state: &mut State, request: &Request, path: &str, host: &str) -> Option<Answer> {
    let denied =
        |challenge: String| Some(Answer::error(401, "UNAUTHORIZED").header("WWW-Authenticate", challenge));
    let authorization = request.header("authorization").unwrap_or_default();
    match state.door.clone() {
        Door::Open => None,
        Door::Basic(user, password) if authorization == basic(&user, &password) => None,
        Door::Basic(..) => denied("Basic realm=\"fake, \\\"quoted\\\"\"".to_owned()),
        Door::Token { .. } => {
            let needed = needed_scopes(request, path);
            let token = authorization.strip_prefix("Bearer ").and_then(|token| state.tokens.get_mut(token));
            let holds = |token: &&mut Token| {
                token.uses_left > 0
                    && needed.iter().all(|need| token.scopes.iter().any(|have| covers(have, need)))
            };
            if let Some(token) = token.filter(holds) {
                token.uses_left -= 1;
                return None;
            }
            let scope = needed.join(" ");
            denied(format!("Bearer realm=\"http://{host}/token\",service=\"fake\",scope=\"{scope}\""))
        }
    }
}

fn basic(user: &str, password: &str) -> String {
    format!("Basic {}", STANDARD.encode(format!("{user}:{password}")))
}

fn needed_scopes(request: &Request, path: &str) -> Vec<String> {
    let repository = ["/blobs/", "/manifests/", "/tags/"].iter().find_map(|kind| path.split_once(kind));
    let Some((repository, _)) = repository else { return vec!["registry:catalog:*".to_owned()] };
    let actions = if matches!(request.method.as_str(), "GET" | "HEAD") { "pull" } else { "pull,push" };
    let from = request.query("from").into_iter().map(|from| format!("repository:{from}:pull"));
    std::iter::once(format!("repository:{repository}:{actions}")).chain(from).collect()
}

/// `repository:a:pull,push` covers `repository:a:pull`.
fn covers(have: &str, need: &str) -> bool {
    let split =
        |scope: &str| scope.rsplit_once(':').map(|(name, actions)| (name.to_owned(), actions.to_owned()));
    match (split(have), split(need)) {
        (Some((name, have)), Some((needed, need))) => {
            name == needed && need.split(',').all(|action| have.split(',').any(|granted| granted == action))
        }
        _ => false,
    }
}

/// The token server.
fn token(state: &mut State, request: &Request) -> Answer {
    let Door::Token { login, uses } = state.door.clone() else { return Answer::new(404) };
    let (scopes, known) = match request.method.as_str() {
        "POST" => {
            let scopes = request.form("scope").unwrap_or_default();
            let known = login.as_ref().is_some_and(|(_, secret)| {
                request.form("refresh_token").as_deref() == Some(secret)
                    && request.form("service").as_deref() == Some("fake")
            });
            (scopes.split(' ').map(str::to_owned).collect(), known)
        }
        _ => {
            let known = login.as_ref().is_none_or(|(user, password)| {
                request.header("authorization") == Some(basic(user, password).as_str())
            });
            (request.query("scope"), known && request.query("service") == ["fake"])
        }
    };
    if !known {
        return Answer::new(401).body(r#"{"details":"incorrect username or password"}"#);
    }
    let token = state.next_name("token");
    state.tokens.insert(token.clone(), Token { uses_left: uses, scopes });
    json(&serde_json::json!({ "token": token, "expires_in": 300 }))
}
