//! How containers are reached: from this machine, and from each other.

use std::fs;
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
    // So does the namespace of a user's own.
    let leases = fs::read_dir(test.store().join("run/networks")).into_iter().flatten().flatten();
    let mut names = leases.map(|entry| entry.file_name().into_string().unwrap());
    assert_eq!(names.find(|name| name.starts_with("own-")), None);
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
    let subnet = "{{(index .IPAM.Config 0).Subnet}}";
    for other in [name.as_str(), "bridge"] {
        let subnet = printed(&test, &["network", "inspect", "-f", subnet, other]);
        let (first, bits) = subnet.trim().rsplit_once('/').unwrap();
        for bits in [bits, "28", "8"] {
            rbuild(&test, &["network", "create", "--subnet", &format!("{first}/{bits}"), "second"])
                .exits(1)
                .says(&["Pool overlaps with other one on this address space", "of network"]);
        }
    }
    let names = printed(&test, &["network", "ls", "--format", "{{.Name}}"]);
    assert_eq!(names, format!("bridge\nhost\nnone\n{name}\n"));
    let drivers = printed(&test, &["network", "ls", "--format", "{{.Driver}}"]);
    assert_eq!(drivers, "bridge\nhost\nnull\nbridge\n");
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
    printed(&test, &["stop", "-t", "0", "on"]);
    printed(&test, &["network", "connect", "bridge", "on"]);
    printed(&test, &["start", "on"]);
    let interfaces = printed(&test, &["exec", "on", "ls", "/sys/class/net"]);
    assert!(interfaces.contains("eth0") && interfaces.contains("eth1"), "{interfaces}");
    printed(&test, &["stop", "-t", "0", "on"]);
    printed(&test, &["network", "disconnect", &name, "on"]);
    assert_eq!(printed(&test, &["network", "prune", "-f"]), format!("Deleted Networks:\n{name}\n\n"));
    rbuild(&test, &["network", "inspect", &name]).exits(1).says(&["not found"]);
    clean_up(&test, &["on"]);
}

/// What a script prints in a container that runs.
fn inside(test: &TestEnvironment, container: &str, script: &str) -> String {
    printed(test, &["exec", container, "sh", "-c", script])
}

/// A network of the test's own with addresses of its own, which others on the machine may not have.
fn network(test: &TestEnvironment, name: &str) -> (String, String) {
    let name = format!("{name}-{}", std::process::id());
    let printed = |arguments: &[&str]| printed(test, arguments);
    printed(&["network", "create", &name]);
    let subnet = printed(&["network", "inspect", "-f", "{{(index .IPAM.Config 0).Subnet}}", &name]);
    let prefix = subnet.rsplitn(3, '.').last().unwrap().to_owned();
    (name, prefix)
}

#[test]
fn a_container_that_runs_joins_and_leaves_networks() {
    let Some(test) = TestEnvironment::with_base() else { return };
    let (name, prefix) = network(&test, "joined");
    let flags = ["--name", "web", "-p", "127.0.0.1::8000"];
    printed(&test, &[&["run", "-d"], &flags[..], &["busybox", "sh", "-c", SERVER]].concat());
    let page = |port: &str| assert!(get(port).ends_with("page\n"));
    let port = printed(&test, &["port", "web", "8000"]);
    let port = port.trim().strip_prefix("127.0.0.1:").unwrap();
    page(port);

    let address = format!("{prefix}.7.7");
    printed(&test, &["network", "connect", "--ip", &address, "--alias", "www", &name, "web"]);
    let seen = inside(&test, "web", "ip -4 addr show eth1; cat /etc/hosts; nslookup www");
    assert!(seen.contains(&format!("inet {address}/")), "{seen}");
    assert!(
        seen.contains(&format!("{address}\t")) && seen.contains(&format!("Address: {address}")),
        "{seen}"
    );
    let format = format!("{{{{(index .NetworkSettings.Networks \"{name}\").IPAddress}}}}");
    assert_eq!(printed(&test, &["inspect", "-f", &format, "web"]).trim(), address);
    rbuild(&test, &["network", "connect", &name, "web"])
        .exits(1)
        .says(&[&format!("endpoint with name web already exists in network {name}")]);
    page(port);

    // The port goes on with the network that is left, and so does the way out.
    printed(&test, &["network", "disconnect", "bridge", "web"]);
    page(port);
    let seen = inside(&test, "web", "ls /sys/class/net; ip route; grep -c . /etc/hosts");
    assert!(seen.starts_with("eth1\nlo\ndefault via"), "{seen}");
    printed(&test, &["network", "disconnect", "-f", &name, "web"]);
    assert_eq!(inside(&test, "web", "ls /sys/class/net"), "lo\n");
    assert!(!inside(&test, "web", "cat /etc/hosts").contains(&address));
    rbuild(&test, &["network", "disconnect", &name, "web"])
        .exits(1)
        .says(&["is not connected to the network"]);
    assert_eq!(printed(&test, &["inspect", "-f", "{{len .NetworkSettings.Networks}}", "web"]), "0\n");

    // One that is on none can be started, and joins again.
    printed(&test, &["restart", "-t", "0", "web"]);
    printed(&test, &["network", "connect", "bridge", "web"]);
    assert_eq!(inside(&test, "web", "ls /sys/class/net"), "eth0\nlo\n");
    let port = printed(&test, &["port", "web", "8000"]);
    page(port.trim().strip_prefix("127.0.0.1:").unwrap());
    clean_up(&test, &["web"]);
    printed(&test, &["network", "rm", &name]);
}

/// A container that runs until somebody ends it.
fn sleeper<'a>(flags: &[&'a str]) -> Vec<&'a str> {
    [&["run", "-d"], flags, &["busybox", "sleep", "1000"]].concat()
}

#[test]
fn addresses_and_names_are_asked_for() {
    let Some(test) = TestEnvironment::with_base() else { return };
    let (name, prefix) = network(&test, "asked");
    let address = format!("{prefix}.0.9");
    let own = ["--network", &name, "--ip", &address];
    let mac = ["--mac-address", "02:42:00:00:00:09", "--network-alias", "db"];
    printed(&test, &sleeper(&[&["--name", "one"], &own[..], &mac].concat()));
    let seen = inside(&test, "one", "ip addr show eth0");
    assert!(seen.contains(&format!("inet {address}/")) && seen.contains("02:42:00:00:00:09"), "{seen}");
    if nix::unistd::geteuid().is_root() {
        rbuild(&test, &sleeper(&own)).exits(125).says(&["Address already in use"]);
        let linked = ["--name", "two", "--network", &name, "--link", "one:store"];
        printed(&test, &sleeper(&linked));
        assert!(inside(&test, "two", "nslookup store; nslookup db").matches(&address).count() > 1);
    }
    let refused: [(&[&str], &str); 6] = [
        (&["--ip", "10.1.2.3"], "user specified IP address is supported on user defined networks only"),
        (&["--network", &name, "--ip", "203.0.113.9"], "no configured subnet or ip-range contain"),
        (&["--network", "host", "--ip", &address], "supported on user defined networks only"),
        (&["--mac-address", "zz"], "zz is not a valid mac address"),
        (&["--link", "nosuch:x"], "could not get container for nosuch: No such container: nosuch"),
        (&["--network", "host", "--link", "one:x"], "host type networking can't be used with links"),
    ];
    for (flags, message) in refused {
        rbuild(&test, &sleeper(flags)).exits(125).says(&[message]);
    }
    for (network, message) in [
        ("host", "cannot connect container to host network"),
        ("none", "with one of the networks in private (none) mode"),
        ("nosuch", "network nosuch not found"),
    ] {
        rbuild(&test, &["network", "connect", network, "one"]).exits(1).says(&[message]);
    }
    printed(&test, &["stop", "-t", "0", "one"]);
    printed(&test, &["create", "--name", "three", "--link", "one", "busybox"]);
    rbuild(&test, &["start", "three"])
        .exits(1)
        .says(&["Cannot link to a non running container: /one AS /three/one"]);
    let all = printed(&test, &["ps", "-aq"]);
    clean_up(&test, &all.lines().collect::<Vec<_>>());
    printed(&test, &["network", "rm", &name]);
}
