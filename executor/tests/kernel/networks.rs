//! Networks of containers, in a world of the test's own: a "machine" (this process's network namespace) with one interface, behind which
//! there is another namespace with servers. The real machine's interfaces and packet filter are never touched.

use std::fs::File;
use std::io::{self, BufRead as _, BufReader, Read as _, Write as _};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::mpsc::channel;
use std::time::Duration;

use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, setns, unshare};
use rbuild_executor::Error;
use rbuild_executor::network::{
    Connection, EndpointConfig, Link, NetworkConfig, NetworkSupport, Networks, PublishedPort, Subnet,
};
use rbuild_executor::rootless::{self, Privilege};

use super::fixture::{Fixture, Tally, succeeded};
use super::rootless::{is_root, run_as_user_with_ranges};

const MACHINE: &str = "192.0.2.7";
const OUTSIDE: &str = "192.0.2.1";
const METADATA: &str = "169.254.169.254";
/// A server of the world, which answers with the address it was called from.
const SERVER: u16 = 8000;
/// What nothing answers fails after.
const PATIENCE: Duration = Duration::from_secs(3);

/// The namespace with the servers, where this process may go there.
type World = Option<OwnedFd>;

/// In this process, and as root in another one that is an ordinary user in the same world.
pub(crate) fn all(tally: &mut Tally) {
    let root = is_root();
    if let Err(error) = rootless::enter(rootless::Isolation::Auto) {
        return tally.skip("networks", &error.to_string());
    }
    match make_world() {
        Ok(world) => cases(&Some(world), tally),
        Err(error) => return tally.skip("networks", &format!("no world can be made: {error}")),
    }
    if root {
        run_as_user_with_ranges("--networks", tally);
    }
}

/// As a user in the world of the process that started this one.
pub(crate) fn as_user(tally: &mut Tally) {
    match rootless::enter(rootless::Isolation::Auto) {
        Ok(_) => cases(&None, tally),
        Err(error) => tally.skip("networks", &error.to_string()),
    }
}

fn cases(world: &World, tally: &mut Tally) {
    let directory = tempfile::tempdir().unwrap();
    let networks = Networks::new(directory.path().to_owned());
    match (networks.support(), world) {
        (NetworkSupport::Lacking(lack), _) => return tally.skip("networks", &lack.to_string()),
        (NetworkSupport::Host, Some(_)) | (NetworkSupport::Relayed, None) => {}
        other => panic!("{other:?}"),
    }
    let path = directory.path();
    tally.case("networks::the_outside_and_the_machine", || the_outside_and_the_machine(&networks));
    tally.case("networks::fifty_at_once", || fifty_at_once(&networks, path));
    tally.case("networks::steps_are_apart_and_containers_together", || apart_and_together(&networks));
    tally.case("networks::names", || names(&networks));
    tally.case("networks::named_networks", || named_networks(&networks));
    tally.case("networks::wanted_addresses", || wanted_addresses(&networks));
    tally.case("networks::published_ports", || published_ports(&networks, world));
    tally.case("networks::what_a_container_sees", || what_a_container_sees(&networks));
    if world.is_some() {
        tally.case("networks::the_machine_hears_no_router_on_a_bridge", || {
            let accepted = std::fs::read_to_string("/proc/sys/net/ipv6/conf/rbuild0/accept_ra").unwrap();
            assert_eq!(accepted, "0\n");
        });
    }
    if world.is_some() {
        tally.case("networks::a_bridge_keeps_its_address", || a_bridge_keeps_its_address(&networks));
        tally.case("networks::a_firewall_of_others", || a_firewall_of_others(&networks));
    }
    drop(networks);
    if world.is_some() {
        tally.case("networks::a_bridge_that_somebody_removed", || a_bridge_that_somebody_removed(path));
    }
    tally.case("networks::nothing_is_left", || assert_eq!(leases(path), [] as [PathBuf; 0]));
    if world.is_some() {
        tally.case("networks::a_killed_process_holds_nothing", || a_killed_process(path));
    }
}

fn the_outside_and_the_machine(networks: &Networks) {
    let _own = TcpListener::bind("127.0.0.1:8001").unwrap();
    let _open = TcpListener::bind("0.0.0.0:8002").unwrap();
    let connection = networks.connect().unwrap();
    let machine = connection.host_address().unwrap();
    let reached = |address: &str, port| inside(&connection, || reaches(address.parse().unwrap(), port));
    assert!(reached(OUTSIDE, SERVER));
    assert!(reached(&machine.to_string(), 8002));
    assert!(!reached(&machine.to_string(), 8001));
    assert!(!reached("127.0.0.1", 8001));
    assert!(!reached(METADATA, SERVER));
    assert!(reaches(METADATA.parse().unwrap(), SERVER));
    // The answer of the world's server is who called it: the machine, whoever is behind.
    assert!(inside(&connection, || ask(OUTSIDE)).starts_with(MACHINE));
}

fn fifty_at_once(networks: &Networks, directory: &Path) {
    let connections: Vec<Connection> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..50).map(|_| scope.spawn(|| networks.connect().unwrap())).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    let mut addresses: Vec<IpAddr> = connections.iter().map(|connection| connection.addresses()[0]).collect();
    addresses.sort_unstable();
    addresses.dedup();
    assert_eq!(addresses.len(), 50);
    drop(connections);
    // One is made ahead.
    assert!(leases(directory).len() <= 1);
}

fn apart_and_together(networks: &Networks) {
    let met = |one: &Connection, other: &Connection| {
        let _listener = inside(other, || TcpListener::bind("0.0.0.0:9000").unwrap());
        inside(one, || reaches(other.addresses()[0], 9000))
    };
    let steps = [networks.connect().unwrap(), networks.connect().unwrap()];
    assert!(!met(&steps[0], &steps[1]));
    let network = NetworkConfig::default_network();
    let containers = [joined(networks, &network), joined(networks, &network)];
    assert!(met(&containers[0], &containers[1]));
}

/// Two who know each other by name, and a third on another network who knows neither.
fn names(networks: &Networks) {
    let other = NetworkConfig { bridge: "rb-other".to_owned(), ..NetworkConfig::default_network() };
    let join = |network: &NetworkConfig, name: &str| {
        let names = vec![name.to_owned()];
        let mut connection = networks.open().unwrap();
        connection.join(network, &EndpointConfig { names, ..EndpointConfig::default() }).unwrap();
        let links = vec![Link { alias: "store".to_owned(), name: "db".to_owned() }];
        connection.resolve_names(&[OUTSIDE.parse().unwrap()], links).unwrap();
        connection
    };
    let default = NetworkConfig::default_network();
    let [web, db, stranger] = [join(&default, "web"), join(&default, "db"), join(&other, "stranger")];
    let query = |name: &str| {
        let header = [7, 7, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0, u8::try_from(name.len()).unwrap()];
        [&header[..], name.as_bytes(), &[0, 0, 1, 0, 1]].concat()
    };
    let asked =
        |connection: &Connection, name: &str| inside(connection, || exchange("127.0.0.11:53", &query(name)));
    let IpAddr::V4(address) = db.addresses()[0] else { panic!() };
    assert!(asked(&web, "db").ends_with(&address.octets()));
    assert!(asked(&web, "DB").ends_with(&address.octets()));
    assert!(asked(&web, "store").ends_with(&address.octets()));
    // The world's server says who called it, and so that it was asked.
    assert!(asked(&stranger, "db").starts_with(MACHINE.as_bytes()));
    drop(db);
    assert!(asked(&web, "db").starts_with(MACHINE.as_bytes()));
    drop(stranger);
    networks.remove(&other).unwrap();
}

/// As Docker and others leave it: what is forwarded is dropped, whatever our table says.
fn a_firewall_of_others(networks: &Networks) {
    assert_eq!(networks.obstacle(), None);
    nft("table ip filter { chain FORWARD { type filter hook forward priority 0; policy drop; }; }");
    let connection = networks.connect().unwrap();
    let outside = || inside(&connection, || reaches(OUTSIDE.parse().unwrap(), SERVER));
    assert!(!outside());
    let obstacle = networks.obstacle().unwrap();
    assert_eq!((obstacle.table.as_str(), obstacle.chain.as_str()), ("ip filter", "FORWARD"));
    assert!(obstacle.remedy.starts_with("iptables -I FORWARD -i rbuild0 -j ACCEPT; "), "{}", obstacle.remedy);
    for side in ["iifname", "oifname"] {
        nft(&format!("insert rule ip filter FORWARD {side} rbuild0 accept"));
    }
    assert!(outside());
    assert_eq!(networks.obstacle(), None);
    nft("delete table ip filter");
}

/// Others on a network come and go, and nobody notices: the address of the way out stays.
fn a_bridge_keeps_its_address(networks: &Networks) {
    let address = || std::fs::read_to_string("/sys/class/net/rb-kept/address").unwrap();
    let named = NetworkConfig { bridge: "rb-kept".to_owned(), ..NetworkConfig::default() };
    let network = networks.create(&named).unwrap();
    let before = address();
    // The lowest of so many is another one than the first's, as likely as anything.
    for _ in 0..8 {
        let _connection = joined(networks, &network);
        assert_eq!(address(), before);
    }
    assert_eq!(address(), before);
    networks.remove(&network).unwrap();
}

#[expect(clippy::disallowed_methods, reason = "the system's own program, as others call it")]
fn nft(rules: &str) {
    assert!(Command::new("nft").arg(rules).status().unwrap().success());
}

fn named_networks(networks: &Networks) {
    let named = |name: &str, internal| NetworkConfig {
        name: name.to_owned(),
        bridge: format!("rb-{name}"),
        internal,
        ..NetworkConfig::default()
    };
    let open = networks.create(&named("open", false)).unwrap();
    let closed = networks.create(&named("closed", true)).unwrap();
    assert_ne!(open.subnets, closed.subnets);
    let second = networks.create(&named("second", false)).unwrap();
    let mut connection = joined(networks, &closed);
    let outside = || reaches(OUTSIDE.parse().unwrap(), SERVER);
    assert!(!inside(&connection, outside));
    connection.join(&open, &EndpointConfig::default()).unwrap();
    assert!(inside(&connection, outside));
    assert!(connection.addresses().iter().any(|address| open.subnets[0].contains(*address)));
    assert!(networks.remove(&open).unwrap_err().to_string().contains("in use"));
    // The way out is the other open network's then, and nobody's when that is left too.
    connection.join(&second, &EndpointConfig::default()).unwrap();
    connection.leave(&open).unwrap();
    assert!(inside(&connection, outside));
    connection.leave(&second).unwrap();
    assert!(!inside(&connection, outside));
    drop(connection);
    networks.remove(&second).unwrap();
    networks.remove(&open).unwrap();
    networks.remove(&closed).unwrap();
    assert_eq!(networks.create(&named("open", false)).unwrap().subnets[0], open.subnets[0]);
    networks.remove(&open).unwrap();
}

fn wanted_addresses(networks: &Networks) {
    let subnet = Subnet::containing("10.123.0.0".parse().unwrap(), 24);
    let named = NetworkConfig {
        name: "wanted".to_owned(),
        bridge: "rb-wanted".to_owned(),
        subnets: vec![subnet],
        ..NetworkConfig::default()
    };
    let network = networks.create(&named).unwrap();
    let join = |last: u32, mac: Option<&str>| {
        let IpAddr::V4(address) = subnet.address(last) else { panic!() };
        let mac = mac.map(|mac| mac.parse().unwrap());
        let mut connection = networks.open().unwrap();
        let endpoint = EndpointConfig { address: Some(address), mac, ..EndpointConfig::default() };
        connection.join(&network, &endpoint).map(|addresses| (connection, addresses))
    };
    let (connection, addresses) = join(9, Some("02:42:00:00:00:09")).unwrap();
    assert_eq!(addresses[0], subnet.address(9));
    let shown = inside(&connection, || run("ip", &["link", "show", "eth0"]).unwrap());
    assert!(shown.contains("02:42:00:00:00:09"), "{shown}");
    for last in [0, 1, 9, 255, 300] {
        let error = join(last, None).unwrap_err().to_string();
        assert!(error.ends_with("Address already in use"), "{last}: {error}");
    }
    drop(connection);
    drop(join(9, None).unwrap());
    networks.remove(&network).unwrap();
}

fn published_ports(networks: &Networks, world: &World) {
    let mut connection = joined(networks, &NetworkConfig::default_network());
    serve(inside(&connection, || sockets(80)));
    let ports: Vec<PublishedPort> = ["80", "127.0.0.1:0:80", "80/udp"]
        .iter()
        .flat_map(|text| PublishedPort::parse(text).unwrap())
        .collect();
    let published = connection.publish(&ports).unwrap().to_vec();
    let [open, own, datagrams] = [0, 1, 2].map(|index: usize| published[index].host_port);
    for port in [open, own] {
        assert!(!ask(&format!("127.0.0.1:{port}")).is_empty());
    }
    assert!(!ask(&format!("{MACHINE}:{open}")).is_empty());
    assert!(!ask_by_datagram(&format!("127.0.0.1:{datagrams}")).is_empty());
    if let Some(world) = world {
        // The kernel's translation leaves the sender's address as it is.
        assert!(elsewhere(world, || ask(&format!("{MACHINE}:{open}"))).starts_with(OUTSIDE));
        assert!(elsewhere(world, || ask_by_datagram(&format!("{MACHINE}:{datagrams}"))).starts_with(OUTSIDE));
        assert!(!elsewhere(world, || reaches(MACHINE.parse().unwrap(), own)));
    }
    let mut other = joined(networks, &NetworkConfig::default_network());
    let taken = PublishedPort { host_port: open, ..ports[0] };
    let error = other.publish(&[taken]).unwrap_err();
    assert!(
        matches!(&error, Error::PublishPort { port, source }
        if *port == format!("{open}:80/tcp") && source.kind() == io::ErrorKind::AddrInUse),
        "{error:?}"
    );
    drop(connection);
    assert_eq!(other.publish(&[taken]).unwrap(), [taken]);
}

fn what_a_container_sees(networks: &Networks) {
    let privilege = Privilege::Root { in_user_namespace: !is_root() };
    let fixture = Fixture::new(privilege).unwrap();
    let mut container = fixture
        .shell("ls /sys/class/net; ip -4 -o addr show eth0 | tr -s ' ' | cut -d' ' -f4; cat /etc/hosts");
    let connection = networks.connect().unwrap();
    let (address, machine) = (connection.addresses()[0], connection.host_address().unwrap());
    container.network = connection.into();
    let seen = succeeded(fixture.run(container));
    assert!(seen.starts_with(&format!("eth0\nlo\n{address}/")), "{seen}");
    assert!(seen.contains(&format!("{machine}\thost.docker.internal\n")), "{seen}");
}

/// The bridge gets other addresses when it is made again, and its table with it.
fn a_bridge_that_somebody_removed(directory: &Path) {
    ip("link delete rbuild0").unwrap();
    ip("addr add 10.90.7.1/24 dev e0").unwrap();
    let networks = Networks::new(directory.to_owned());
    let connection = networks.connect().unwrap();
    assert!(connection.addresses()[0].to_string().starts_with("10.91."), "{connection:?}");
    assert!(inside(&connection, || ask(OUTSIDE)).starts_with(MACHINE));
}

/// A process that holds a connection with ports is killed; the next that uses networks removes what it left.
#[expect(clippy::disallowed_methods, reason = "runs this program as the process that is killed")]
fn a_killed_process(directory: &Path) {
    let mut command = Command::new("/proc/self/exe");
    let mut victim = command.arg("--hold").arg(directory).stdout(Stdio::piped()).spawn().unwrap();
    let mut line = String::new();
    BufReader::new(victim.stdout.take().unwrap()).read_line(&mut line).unwrap();
    assert_eq!(line, "held\n");
    let held = leases(directory);
    assert_eq!((held.len(), tables()), (1, 2));
    let interface = interface(&held[0]);
    assert!(interface.exists(), "{}", interface.display());
    victim.kill().unwrap();
    victim.wait().unwrap();
    let networks = Networks::new(directory.to_owned());
    drop(joined(&networks, &NetworkConfig::default_network()));
    drop(networks);
    assert_eq!((leases(directory).len(), tables()), (0, 1));
    assert!(!interface.exists(), "{}", interface.display());
}

/// Plays the process that is killed.
pub(crate) fn hold() {
    let mut args = std::env::args().skip(1);
    if args.next().as_deref() != Some("--hold") {
        return;
    }
    let networks = Networks::new(args.next().unwrap().into());
    let mut connection = joined(&networks, &NetworkConfig::default_network());
    connection.publish(&PublishedPort::parse("80").unwrap()).unwrap();
    println!("held");
    loop {
        std::thread::park();
    }
}

/// What the kernel shows of the interface that belongs to a leased address.
fn interface(lease: &Path) -> PathBuf {
    let address: std::net::Ipv4Addr = lease.file_name().unwrap().to_str().unwrap().parse().unwrap();
    format!("/sys/class/net/rb{:08x}", address.to_bits()).into()
}

fn tables() -> usize {
    run("nft", &["list", "tables"]).unwrap().lines().filter(|line| line.contains("rbuild")).count()
}

/// A container's connection to a network.
fn joined(networks: &Networks, network: &NetworkConfig) -> Connection {
    let mut connection = networks.open().unwrap();
    connection.join(network, &EndpointConfig::default()).unwrap();
    connection
}

fn leases(directory: &Path) -> Vec<PathBuf> {
    let namespaces = std::fs::read_dir(directory).unwrap();
    let files = namespaces.flat_map(|namespace| std::fs::read_dir(namespace.unwrap().path()).unwrap());
    let paths = files.map(|file| file.unwrap().path());
    paths.filter(|path| path.file_name().unwrap().to_str().unwrap().contains('.')).collect()
}

/// Makes this process's machine and its world. Must be called before there are other threads.
fn make_world() -> io::Result<OwnedFd> {
    unshare(CloneFlags::CLONE_NEWNET | CloneFlags::CLONE_NEWNS)?;
    mount(None::<&str>, "/", None::<&str>, MsFlags::MS_REC | MsFlags::MS_PRIVATE, None::<&str>)?;
    // What the kernel shows of interfaces is the namespace's that it was mounted in.
    mount(Some("sysfs"), "/sys", Some("sysfs"), MsFlags::empty(), None::<&str>)?;
    open_tun();
    let (made, wait) = channel();
    let (go, connected) = channel::<()>();
    std::thread::spawn(move || {
        unshare(CloneFlags::CLONE_NEWNET).unwrap();
        made.send((nix::unistd::gettid(), File::open("/proc/thread-self/ns/net").unwrap())).unwrap();
        connected.recv().unwrap();
        for line in [
            "link set lo up",
            "link set e1 up",
            "addr add 192.0.2.1/24 dev e1",
            "addr add 169.254.169.254/32 dev lo",
        ] {
            ip(line).unwrap();
        }
        serve(sockets(SERVER));
        serve(sockets(53));
        made.send((nix::unistd::gettid(), File::open("/proc/thread-self/ns/net").unwrap())).unwrap();
        loop {
            std::thread::park();
        }
    });
    let (thread, _) = wait.recv().map_err(io::Error::other)?;
    ip(&format!("link add e0 type veth peer name e1 netns {thread}"))?;
    for line in [
        "link set lo up",
        "link set e0 up",
        "addr add 192.0.2.7/24 dev e0",
        "route add default via 192.0.2.1",
    ] {
        ip(line)?;
    }
    go.send(()).map_err(io::Error::other)?;
    let (_, world) = wait.recv().map_err(io::Error::other)?;
    Ok(world.into())
}

/// Opens the device that relays need to the users of this mount namespace. Where that cannot be they will say so.
fn open_tun() {
    let directory = std::env::temp_dir();
    let tun = directory.join(format!("rbuild-tun-{}", std::process::id()));
    let (kind, mode) = (nix::sys::stat::SFlag::S_IFCHR, nix::sys::stat::Mode::from_bits_truncate(0o666));
    nix::sys::stat::umask(nix::sys::stat::Mode::empty());
    if nix::sys::stat::mknod(&tun, kind, mode, nix::sys::stat::makedev(10, 200)).is_ok() {
        let _ = mount(Some(&tun), "/dev/net/tun", None::<&str>, MsFlags::MS_BIND, None::<&str>);
        std::fs::remove_file(&tun).unwrap();
    }
}

/// Sockets of both kinds on a port of the calling thread's namespace.
fn sockets(port: u16) -> (TcpListener, UdpSocket) {
    (TcpListener::bind(("0.0.0.0", port)).unwrap(), UdpSocket::bind(("0.0.0.0", port)).unwrap())
}

/// Answers each connection and each datagram with the address that it came from.
fn serve((listener, socket): (TcpListener, UdpSocket)) {
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let peer = stream.peer_addr().unwrap();
            drop(stream.write_all(peer.to_string().as_bytes()));
        }
    });
    std::thread::spawn(move || {
        while let Ok((_, from)) = socket.recv_from(&mut [0; 512]) {
            socket.send_to(from.to_string().as_bytes(), from).unwrap();
        }
    });
}

fn reaches(address: IpAddr, port: u16) -> bool {
    TcpStream::connect_timeout(&SocketAddr::new(address, port), PATIENCE).is_ok()
}

/// What the server at an address says.
fn ask(address: &str) -> String {
    let address = if address.contains(':') { address.to_owned() } else { format!("{address}:{SERVER}") };
    let mut text = String::new();
    TcpStream::connect(address).unwrap().read_to_string(&mut text).unwrap();
    text
}

fn ask_by_datagram(address: &str) -> String {
    String::from_utf8(exchange(address, b"?")).unwrap()
}

fn exchange(address: &str, datagram: &[u8]) -> Vec<u8> {
    let socket = UdpSocket::bind("0.0.0.0:0").unwrap();
    socket.connect(address).unwrap();
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    socket.send(datagram).unwrap();
    let mut buffer = [0; 512];
    let size = socket.recv(&mut buffer).unwrap();
    buffer[..size].to_vec()
}

fn inside<T: Send>(connection: &Connection, work: impl FnOnce() -> T + Send) -> T {
    elsewhere(&connection.namespace().unwrap(), work)
}

fn elsewhere<T: Send>(namespace: &impl AsFd, work: impl FnOnce() -> T + Send) -> T {
    let namespace = namespace.as_fd();
    std::thread::scope(|scope| {
        let there = scope.spawn(move || {
            setns(namespace, CloneFlags::CLONE_NEWNET).unwrap();
            work()
        });
        there.join().unwrap()
    })
}

fn ip(line: &str) -> io::Result<()> {
    run("ip", &line.split(' ').collect::<Vec<_>>()).map(drop)
}

#[expect(clippy::disallowed_methods, reason = "the world is made by the system's own programs")]
fn run(program: &str, arguments: &[&str]) -> io::Result<String> {
    let mut command = Command::new(program);
    command.env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin").args(arguments);
    let output = command.output()?;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    Err(io::Error::other(format!(
        "`{program} {arguments:?}`: {}",
        String::from_utf8_lossy(&output.stderr).trim()
    )))
}
