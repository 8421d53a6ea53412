//! Rules of others that stand in the way of a network: a firewall that drops what the machine forwards.
//!
//! Each table of the packet filter has a say of its own, and one that drops has the last word, so no rule of ours can let through what
//! another's chain ends. Whose it is has to be told, with the command that opens it: to change it is not for us.

use std::io;

use serde::Deserialize;

use super::firewall;

/// The table of firewalld, which refuses with a rule and not with its policy.
const FIREWALLD: &str = "firewalld";
/// Docker's chain for rules of the machine's owner, which its own come after.
const DOCKER_USER: &str = "DOCKER-USER";

/// A chain that drops what a network forwards.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Obstacle {
    /// The family of its table, and the table.
    pub table: String,
    /// Its name.
    pub chain: String,
    /// The commands that let the network through, until the firewall is set up anew.
    pub remedy: String,
}

#[derive(Debug, Deserialize)]
struct Listing {
    nftables: Vec<Object>,
}

#[derive(Debug, Deserialize)]
struct Object {
    chain: Option<Chain>,
}

/// A chain of the packet filter; a base chain where it has a hook.
#[derive(Debug, Deserialize)]
struct Chain {
    family: String,
    table: String,
    name: String,
    hook: Option<String>,
    policy: Option<String>,
}

/// What stands in the way of a bridge, in the namespace of the calling thread.
///
/// # Errors
///
/// `nft` cannot be asked.
pub(super) fn find(bridge: &str) -> io::Result<Option<Obstacle>> {
    let listing = firewall::ask(&["-j", "list", "chains"])?;
    for closed in closed_chains(&listing, bridge)? {
        let Chain { family, table, .. } = &closed;
        // Rules that name the bridge have been made to let it through.
        let text = firewall::ask(&["list", "table", family, table])?;
        if !text.contains(&format!("\"{bridge}\"")) {
            return Ok(Some(obstacle(&closed, bridge, text.contains(DOCKER_USER))));
        }
    }
    Ok(None)
}

/// The base chains of others that drop what is forwarded and not let through.
fn closed_chains(listing: &str, bridge: &str) -> io::Result<Vec<Chain>> {
    let listing: Listing = serde_json::from_str(listing).map_err(io::Error::from)?;
    let is_closed = |chain: &Chain| {
        let drops = chain.policy.as_deref() == Some("drop") || chain.table == FIREWALLD;
        // What is of IPv6 or of bridged packets alone leaves the way out as it is.
        let concerns = matches!(chain.family.as_str(), "ip" | "inet");
        drops && concerns && chain.hook.as_deref() == Some("forward") && chain.table != bridge
    };
    Ok(listing.nftables.into_iter().filter_map(|object| object.chain).filter(is_closed).collect())
}

fn obstacle(Chain { family, table, name, .. }: &Chain, bridge: &str, has_docker: bool) -> Obstacle {
    let iptables = |chain: &str| {
        ["-i", "-o"].map(|side| format!("iptables -I {chain} {side} {bridge} -j ACCEPT")).join("; ")
    };
    let remedy = match (table.as_str(), family.as_str()) {
        (FIREWALLD, _) => format!("firewall-cmd --zone=trusted --add-interface={bridge}"),
        ("filter", "ip") if has_docker => iptables(DOCKER_USER),
        ("filter", "ip") => iptables(name),
        _ => ["iifname", "oifname"]
            .map(|side| format!("nft insert rule {family} {table} {name} {side} {bridge} accept"))
            .join("; "),
    };
    Obstacle { table: format!("{family} {table}"), chain: name.clone(), remedy }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chain(family: &str, table: &str, hook: &str, policy: &str) -> serde_json::Value {
        let (name, hook) = ("FORWARD", (!hook.is_empty()).then_some(hook));
        serde_json::json!({"chain": {
            "family": family, "table": table, "name": name, "handle": 1, "type": "filter", "hook": hook, "prio": 0, "policy": policy,
        }})
    }

    #[test]
    fn chains_that_drop_what_is_forwarded_are_found() {
        let cases = [
            (chain("ip", "filter", "forward", "drop"), true),
            (chain("inet", "firewalld", "forward", "accept"), true),
            (chain("ip", "filter", "forward", "accept"), false),
            (chain("ip", "filter", "input", "drop"), false),
            (chain("ip", "filter", "", ""), false),
            (chain("ip6", "filter", "forward", "drop"), false),
            (chain("inet", "rbuild0", "forward", "drop"), false),
        ];
        for (chain, expected) in cases {
            let listing =
                serde_json::json!({"nftables": [{"metainfo": {"version": "1"}}, &chain]}).to_string();
            assert_eq!(!closed_chains(&listing, "rbuild0").unwrap().is_empty(), expected, "{chain}");
        }
        assert!(closed_chains("", "rbuild0").is_err());
    }

    #[test]
    fn each_firewall_is_opened_in_its_own_way() {
        let remedy = |family: &str, table: &str, has_docker| {
            let (family, table, name) = (family.to_owned(), table.to_owned(), "FORWARD".to_owned());
            obstacle(&Chain { family, table, name, hook: None, policy: None }, "rbuild0", has_docker).remedy
        };
        assert_eq!(
            remedy("ip", "filter", true),
            "iptables -I DOCKER-USER -i rbuild0 -j ACCEPT; iptables -I DOCKER-USER -o rbuild0 -j ACCEPT"
        );
        assert!(remedy("ip", "filter", false).starts_with("iptables -I FORWARD -i rbuild0"));
        assert!(remedy("inet", "firewalld", false).starts_with("firewall-cmd --zone=trusted"));
        assert_eq!(
            remedy("inet", "mine", false),
            "nft insert rule inet mine FORWARD iifname rbuild0 accept; nft insert rule inet mine FORWARD oifname rbuild0 accept"
        );
    }
}
