//! The proxies of Docker's `config.json`, which builds get as if they were given with `--build-arg`.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use serde::Deserialize;

/// The part of `config.json` that matters here.
#[derive(Deserialize, Default)]
#[serde(default)]
struct ConfigFile {
    proxies: BTreeMap<String, Proxies>,
}

#[derive(Deserialize, Default)]
#[serde(default, rename_all = "camelCase")]
struct Proxies {
    http_proxy: String,
    https_proxy: String,
    no_proxy: String,
    ftp_proxy: String,
    all_proxy: String,
}

/// Adds the proxies of a `config.json`, in both spellings, where no argument of that name is there. A file that cannot be
/// read counts as absent, as it does for credentials.
pub(super) fn add(build_args: &mut BTreeMap<String, String>, config: &Path) {
    let read = || serde_json::from_slice::<ConfigFile>(&fs::read(config).ok()?).ok();
    // Others than the default are for daemons elsewhere.
    let Some(proxies) = read().and_then(|mut file| file.proxies.remove("default")) else { return };
    let values = [
        ("HTTP_PROXY", proxies.http_proxy),
        ("HTTPS_PROXY", proxies.https_proxy),
        ("NO_PROXY", proxies.no_proxy),
        ("FTP_PROXY", proxies.ftp_proxy),
        ("ALL_PROXY", proxies.all_proxy),
    ];
    for (name, value) in values.into_iter().filter(|(_, value)| !value.is_empty()) {
        for name in [name.to_owned(), name.to_ascii_lowercase()] {
            build_args.entry(name).or_insert_with(|| value.clone());
        }
    }
}
