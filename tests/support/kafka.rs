//! Apache Kafka, the real one: one node in KRaft mode on free ports of the loopback interface.
//!
//! Its jars come by Maven (`kafka/pom.xml`) into a cache below the target directory, once.
//! `PAWL_TEST_KAFKA=host:port` names a broker that runs already. With neither Java and Maven nor
//! that, the broker tests are skipped aloud; with `CI=true` they fail.

use std::collections::BTreeMap;
use std::fs::File;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Output, Stdio};
use std::sync::{Mutex, OnceLock};
use std::time::{Duration, Instant};

use super::{clients, java, process};

const VERSION: &str = "4.3.1";
/// The newest that may be restarted under load: in 4.3 the coordinator of a broker that is just starting
/// takes partitions whose leader is not back yet for deleted, and leaves out their transaction markers
/// (KAFKA-20734). Transactions are then committed in part, or hang.
const RESTARTABLE_VERSION: &str = "4.2.0";
/// A broker on a busy machine takes about 10 s.
const START_DEADLINE: Duration = Duration::from_secs(120);
/// 16 bytes in base64url: what Kafka's `StorageTool` takes as a cluster id.
const CLUSTER_ID: &str = "cGF3bC10ZXN0cy0wMDAwMQ";

/// The broker that all tests of this process share, started by the first that asks.
/// `None`: there is none to be had, and the test returns.
pub fn broker() -> Option<&'static Broker> {
    static SHARED: OnceLock<Option<Broker>> = OnceLock::new();
    let shared = SHARED.get_or_init(|| match std::env::var("PAWL_TEST_KAFKA") {
        Ok(bootstrap) if !bootstrap.is_empty() => Some(Broker::named(bootstrap)),
        _ => Broker::own(),
    });
    shared.as_ref()
}

/// One Kafka broker.
pub struct Broker {
    bootstrap: String,
    links: Vec<Link>,
    /// Ports of the listeners that `Extra` names.
    ports: BTreeMap<&'static str, u16>,
    node: Option<Node>,
}

/// What a broker has beside its plain listener.
#[derive(Default)]
pub struct Extra {
    /// Names and protocols of further listeners, which are called by the name localhost.
    pub listeners: Vec<(&'static str, &'static str)>,
    /// Further lines of its properties, which win over those that it has by itself.
    pub properties: String,
    /// Further arguments of Kafka's `StorageTool`.
    pub format: Vec<String>,
    /// Further arguments of its Java.
    pub java: Vec<String>,
    /// Where further classes lie.
    pub classes: Option<PathBuf>,
}

/// A listener of its own for clients that reach the broker through something in between, which it
/// tells them as its address: else they would go around it after the first contact.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Link {
    /// Where the broker listens.
    pub port: u16,
    /// What it tells clients.
    pub advertised: u16,
}

/// A broker that this process started.
struct Node {
    dir: PathBuf,
    libs: PathBuf,
    extra: Extra,
    child: Mutex<Option<Child>>,
}

impl Broker {
    fn named(bootstrap: String) -> Broker {
        Broker { bootstrap, links: Vec::new(), ports: BTreeMap::new(), node: None }
    }

    /// Starts a broker for one test alone, which may stop and start it. Ended when dropped.
    pub fn own() -> Option<Broker> {
        Broker::start_new(VERSION, 0, Extra::default)
    }

    /// The same, with what each attempt to start it is given anew.
    pub fn with(extra: impl Fn() -> Extra) -> Option<Broker> {
        Broker::start_new(VERSION, 0, extra)
    }

    /// `host:port` of a further listener.
    pub fn listener(&self, name: &str) -> String {
        format!("localhost:{}", self.ports[name])
    }

    /// The same, of a version that may be restarted under load, with so many further listeners, each for
    /// something that stands in between.
    pub fn restartable_with_links(links: usize) -> Option<Broker> {
        Broker::start_new(RESTARTABLE_VERSION, links, Extra::default)
    }

    fn start_new(version: &str, links: usize, extra: impl Fn() -> Extra) -> Option<Broker> {
        let libs = libs(version)?;
        // A port that was free may be taken before Kafka binds it: then once more with others.
        let attempts = 3;
        for attempt in 1..=attempts {
            let broker = Broker::format(&libs, links, extra());
            match broker.try_start() {
                Ok(()) => return Some(broker),
                Err(why) if attempt == attempts || !why.contains("Address already in use") => {
                    panic!("{why}")
                }
                Err(_) => {}
            }
        }
        unreachable!("the last attempt returns or panics")
    }

    /// `host:port` for `bootstrap.servers`.
    pub fn bootstrap(&self) -> &str {
        &self.bootstrap
    }

    /// The further listeners.
    pub fn links(&self) -> &[Link] {
        &self.links
    }

    /// Runs one of Kafka's own command-line tools, such as
    /// `org.apache.kafka.tools.ConsoleProducer`, and waits for its end. `None`, said aloud, where
    /// Java or Maven is missing.
    pub fn java_tool(&self, class: &str, args: &[&str], stdin: &[u8]) -> Option<Output> {
        let mut command = java::command(&libs(VERSION)?, "-Xmx256m");
        command.arg(class).args(args);
        Some(java::run(command, stdin))
    }

    /// The process id of a broker that this process started and that runs now.
    pub fn pid(&self) -> Option<u32> {
        self.node.as_ref()?.child.lock().expect("no holder panics").as_ref().map(Child::id)
    }

    /// Where a broker that this process started keeps its log and its data.
    pub fn dir(&self) -> &Path {
        &self.node().dir
    }

    /// Ends the broker as an operator does (SIGTERM) and waits for its end.
    pub fn stop(&self) {
        if let Some(mut child) = self.take_child() {
            process::signal(&child, libc::SIGTERM);
            process::wait("the broker", &mut child, START_DEADLINE);
        }
    }

    /// Ends the broker as a crash does (SIGKILL).
    pub fn kill(&self) {
        if let Some(mut child) = self.take_child() {
            process::kill(&mut child);
        }
    }

    /// Starts a stopped broker again: same port, same data.
    pub fn start(&self) {
        self.try_start().unwrap_or_else(|why| panic!("{why}"));
    }

    /// Stops and starts the broker.
    pub fn restart(&self) {
        self.stop();
        self.start();
    }

    fn node(&self) -> &Node {
        self.node.as_ref().expect("only a broker from Broker::own() is stopped and started")
    }

    fn take_child(&self) -> Option<Child> {
        self.node().child.lock().expect("no holder panics").take()
    }

    fn format(libs: &Path, links: usize, extra: Extra) -> Broker {
        let dir = process::scratch("kafka");
        let first_further = 2 + 2 * links;
        let ports = free_ports(first_further + extra.listeners.len());
        let (port, controller) = (ports[0], ports[1]);
        let links: Vec<Link> = ports[2..first_further]
            .chunks(2)
            .map(|pair| Link { port: pair[0], advertised: pair[1] })
            .collect();
        let properties = dir.join("server.properties");
        let further = ports[first_further..].iter().zip(&extra.listeners);
        let further: Vec<Further> =
            further.map(|(port, (name, protocol))| (*name, *protocol, *port)).collect();
        let text = server_properties(&dir, (port, controller), &links, &further) + &extra.properties;
        std::fs::write(&properties, text).expect("the scratch directory can be written");
        let output = java::command(libs, "-Xmx128m")
            .args(["kafka.tools.StorageTool", "format", "-t", CLUSTER_ID, "-c"])
            .arg(&properties)
            .args(&extra.format)
            .output()
            .expect("java can be started");
        assert!(output.status.success(), "Kafka's StorageTool: {}", String::from_utf8_lossy(&output.stderr));
        let ports = further.iter().map(|(name, _, port)| (*name, *port)).collect();
        let node = Node { dir, libs: libs.to_owned(), extra, child: Mutex::new(None) };
        Broker { bootstrap: format!("127.0.0.1:{port}"), links, ports, node: Some(node) }
    }

    fn try_start(&self) -> Result<(), String> {
        let node = self.node();
        let log_path = node.dir.join("broker.log");
        let log = File::options().create(true).append(true).open(&log_path).expect("the log can be written");
        let mut command = java::command_with(&node.libs, node.extra.classes.as_deref(), "-Xmx512m");
        command.args(&node.extra.java);
        // Transactions whose markers it leaves out are told at this level only.
        command.arg("-Dorg.slf4j.simpleLogger.log.kafka.coordinator.transaction=info");
        command.arg("kafka.Kafka").arg(node.dir.join("server.properties")).stdin(Stdio::null());
        command.stdout(log.try_clone().expect("a file handle can be cloned")).stderr(log);
        let child = process::spawn(command).expect("java can be started");
        *node.child.lock().expect("no holder panics") = Some(child);
        self.wait_ready(START_DEADLINE)
            .map_err(|why| format!("Kafka {why}; the end of its log:\n{}", process::tail(&log_path, 40)))
    }

    /// Ready is a broker that answers metadata and stores a record.
    fn wait_ready(&self, deadline: Duration) -> Result<(), String> {
        let start = Instant::now();
        while start.elapsed() < deadline {
            let mut child = self.node().child.lock().expect("no holder panics");
            let child = child.as_mut().expect("just started");
            if let Some(status) = child.try_wait().expect("a child can be waited for") {
                return Err(format!("ended at once ({status})"));
            }
            if clients::round_trip(&self.bootstrap).is_ok() {
                return Ok(());
            }
        }
        Err(format!("was not ready within {deadline:?}"))
    }
}

impl Drop for Broker {
    fn drop(&mut self) {
        if let Some(node) = &self.node {
            if let Some(mut child) = node.child.lock().expect("no holder panics").take() {
                process::kill(&mut child);
            }
            if std::thread::panicking() {
                eprintln!("the broker's log ends:\n{}", process::tail(&node.dir.join("broker.log"), 20));
            }
            // What cannot be removed now is swept by the next run.
            let _ = std::fs::remove_dir_all(&node.dir);
        }
    }
}

/// Kafka's jars. `None`, said aloud, where Java or Maven is missing.
pub fn jars() -> Option<PathBuf> {
    libs(VERSION)
}

fn libs(version: &str) -> Option<PathBuf> {
    java::jars("support/kafka/pom.xml", "kafka", version)
}

/// Ports that nobody holds now; all are held until all are known, so they differ.
pub fn free_ports(count: usize) -> Vec<u16> {
    let bind = |_| TcpListener::bind("127.0.0.1:0").expect("the loopback interface has free ports");
    let held: Vec<TcpListener> = (0..count).map(bind).collect();
    held.iter().map(|one| one.local_addr().expect("a bound socket has an address").port()).collect()
}

/// Name, protocol and port of a listener.
type Further = (&'static str, &'static str, u16);

fn server_properties(
    dir: &Path,
    (port, controller): (u16, u16),
    links: &[Link],
    further: &[Further],
) -> String {
    let listed = |entry: &dyn Fn(usize, &Link) -> String| -> String {
        links.iter().enumerate().map(|(n, link)| entry(n, link)).collect()
    };
    let listening = listed(&|n, link| format!(",LINK{n}://127.0.0.1:{}", link.port));
    let advertised = listed(&|n, link| format!(",LINK{n}://127.0.0.1:{}", link.advertised));
    let protocols = listed(&|n, _| format!(",LINK{n}:PLAINTEXT"));
    let further_at: String =
        further.iter().map(|(name, _, port)| format!(",{name}://localhost:{port}")).collect();
    let further_by: String =
        further.iter().map(|(name, protocol, _)| format!(",{name}:{protocol}")).collect();
    format!(
        "process.roles=broker,controller
node.id=1
controller.quorum.voters=1@127.0.0.1:{controller}
controller.listener.names=CONTROLLER
listeners=PLAINTEXT://127.0.0.1:{port},CONTROLLER://127.0.0.1:{controller}{listening}{further_at}
advertised.listeners=PLAINTEXT://127.0.0.1:{port}{advertised}{further_at}
listener.security.protocol.map=CONTROLLER:PLAINTEXT,PLAINTEXT:PLAINTEXT{protocols}{further_by}
inter.broker.listener.name=PLAINTEXT
log.dirs={dir}/data
auto.create.topics.enable=false
offsets.topic.replication.factor=1
offsets.topic.num.partitions=4
transaction.state.log.replication.factor=1
transaction.state.log.min.isr=1
transaction.state.log.num.partitions=4
transaction.abort.timed.out.transaction.cleanup.interval.ms=1000
share.coordinator.state.topic.replication.factor=1
share.coordinator.state.topic.min.isr=1
group.min.session.timeout.ms=1000
group.initial.rebalance.delay.ms=0
log.cleaner.dedupe.buffer.size=16777216
authorizer.class.name=org.apache.kafka.metadata.authorizer.StandardAuthorizer
allow.everyone.if.no.acl.found=true
",
        dir = dir.display()
    )
}
