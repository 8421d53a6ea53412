//! How containers are reached: from this machine, and from each other.

use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};

use super::{clean_up, printed, rbuild};
use crate::common::TestEnvironment;

/// A web server with one page, which waits for nobody.
const SERVER: &str = "mkdir /www; echo page >/www/index.html; exec httpd -f -p 8000 -h /www";

/// What a web server of this machine answers; asked until it is there.
pub(super) fn get(port: &str) -> String {
    loop {
        let Ok(mut stream) = TcpStream::connect(format!("127.0.0.1:{port}")) else { continue };
        let mut answer = String::new();
        let asked = stream.write_all(b"GET / HTTP/1.0\r\n\r\n");
        if asked.is_ok() && stream.read_to_string(&mut answer).is_ok() && !answer.is_empty() {
            return answer;
        }
    }
}

#[test]
fn ports_lead_to_a_container() {
    let Some(test) = TestEnvironment::with_base() else { return };
    let flags = ["--name", "web", "-p", "127.0.0.1::8000", "--expose", "9000-9001/udp"];
    printed(&test, &[&["run", "-d"], &flags[..], &["busybox", "sh", "-c", SERVER]].concat());
    let address = printed(&test, &["port", "web", "8000"]);
    let port = address.trim().strip_prefix("127.0.0.1:").unwrap();
    assert!(get(port).ends_with("page\n"));
    assert_eq!(printed(&test, &["port", "web"]), format!("8000/tcp -> {address}"));
    let list = printed(&test, &["ps", "--format", "{{.Ports}}"]);
    assert_eq!(list, format!("{}->8000/tcp, 9000/udp, 9001/udp\n", address.trim()));
    let format = "{{(index (index .NetworkSettings.Ports \"8000/tcp\") 0).HostPort}}";
    assert_eq!(printed(&test, &["inspect", "-f", format, "web"]).trim(), port);
    rbuild(&test, &["port", "web", "80"]).exits(1).says(&["No public port '80' published for web"]);
    // A port goes with its container.
    printed(&test, &["stop", "-t", "0", "web"]);
    TcpListener::bind(format!("127.0.0.1:{port}")).unwrap();
    assert_eq!(printed(&test, &["port", "web"]), "");
    clean_up(&test, &["web"]);
}

#[test]
fn a_port_in_use_is_an_error_and_leaves_nothing() {
    let Some(test) = TestEnvironment::with_base() else { return };
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = format!("127.0.0.1:{}:80", taken.local_addr().unwrap().port());
    rbuild(&test, &["run", "--rm", "-p", &port, "busybox", "true"])
        .exits(125)
        .says(&["failed to publish the port", &port]);
    assert_eq!(printed(&test, &["ps", "-aq"]), "");
    for (line, message) in [
        (["-p", "70000"], "invalid --publish `70000`"),
        (["--network", "nosuch"], "network nosuch not found"),
        (["--network", "container:nosuch"], "No such container: nosuch"),
    ] {
        let line = [&["create"], &line[..], &["busybox"]].concat();
        rbuild(&test, &line).exits(125).says(&[message]);
    }
}

#[test]
fn containers_know_each_other_and_the_machine() {
    let Some(test) = TestEnvironment::with_base() else { return };
    // Those of a user are on networks of their own each.
    let together = nix::unistd::geteuid().is_root();
    let flags = ["--name", "peer-web", "--network-alias", "peer-alias", "-P", "--expose", "8000"];
    printed(&test, &[&["run", "-d"], &flags[..], &["busybox", "sh", "-c", SERVER]].concat());
    let port = printed(&test, &["port", "peer-web", "8000/tcp"]);
    let port = port.lines().next().unwrap().rsplit_once(':').unwrap().1.to_owned();
    assert!(get(&port).contains("page"));
    let inside = |flags: &[&str], script: &str| {
        let line = [&["run", "--rm"], flags, &["busybox", "sh", "-c", script]].concat();
        rbuild(&test, &line).succeeds().stdout
    };
    if together {
        for name in ["peer-web", "peer-alias"] {
            assert_eq!(inside(&[], &format!("wget -qO- http://{name}:8000/")), "page\n");
        }
        let machine = ["--add-host", "box:host-gateway"];
        assert_eq!(inside(&machine, &format!("wget -qO- http://box:{port}/")), "page\n");
        let joined = inside(&["--network", "container:peer-web"], "wget -qO- http://127.0.0.1:8000/");
        assert_eq!(joined, "page\n");
    }
    let hosts = inside(&["--hostname", "me"], "hostname; ping -c 1 me >/dev/null && echo known");
    assert_eq!(hosts, "me\nknown\n");
    printed(&test, &["stop", "-t", "0", "peer-web"]);
    rbuild(&test, &["run", "--rm", "--network", "container:peer-web", "busybox", "true"])
        .exits(125)
        .says(&["cannot join network namespace of a non running container"]);
    clean_up(&test, &["peer-web"]);
}

#[test]
fn networks_are_made_and_removed() {
    let Some(test) = TestEnvironment::with_base() else { return };
    let name = format!("test-{}", std::process::id());
    let id = printed(&test, &["network", "create", "--label", "kind=test", &name]);
    rbuild(&test, &["network", "create", &name])
        .exits(1)
        .says(&[&format!("network with name {name} already exists")]);
    rbuild(&test, &["network", "create", "host"]).exits(1).says(&["is a pre-defined network"]);
    rbuild(&test, &["network", "rm", "bridge"]).exits(1).says(&["is a pre-defined network"]);
    let names = printed(&test, &["network", "ls", "--format", "{{.Name}}"]);
    assert_eq!(names, format!("bridge\n{name}\n"));
    let format = "{{.Id}} {{.Labels.kind}} {{.Internal}}";
    assert_eq!(
        printed(&test, &["network", "inspect", "-f", format, &name]),
        format!("{} test false\n", id.trim())
    );
    printed(&test, &["run", "-d", "--name", "on", "--network", &name, "busybox", "sleep", "1000"]);
    let address = "{{range .NetworkSettings.Networks}}{{.IPAddress}}{{end}}";
    let address = printed(&test, &["inspect", "-f", address, "on"]);
    let seen = printed(&test, &["exec", "on", "ip", "-4", "addr", "show", "eth0"]);
    assert!(seen.contains(address.trim()), "{seen} {address}");
    let members = "{{range .Containers}}{{.Name}} {{.IPv4Address}}{{end}}";
    assert_eq!(printed(&test, &["network", "inspect", "-f", members, &name]), format!("on {address}"));
    if nix::unistd::geteuid().is_root() {
        rbuild(&test, &["network", "rm", &name]).exits(1).says(&["is in use"]);
    }
    rbuild(&test, &["network", "connect", "bridge", "on"]).exits(1).says(&["is already running"]);
    printed(&test, &["stop", "-t", "0", "on"]);
    printed(&test, &["network", "connect", "bridge", "on"]);
    rbuild(&test, &["network", "connect", "bridge", "on"]).exits(1).says(&["is on network bridge"]);
    printed(&test, &["start", "on"]);
    let interfaces = printed(&test, &["exec", "on", "ls", "/sys/class/net"]);
    assert!(interfaces.contains("eth0") && interfaces.contains("eth1"), "{interfaces}");
    printed(&test, &["stop", "-t", "0", "on"]);
    printed(&test, &["network", "disconnect", &name, "on"]);
    assert_eq!(printed(&test, &["network", "prune", "-f"]), format!("Deleted Networks:\n{name}\n\n"));
    rbuild(&test, &["network", "inspect", &name]).exits(1).says(&["not found"]);
    clean_up(&test, &["on"]);
}
