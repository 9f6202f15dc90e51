//! Toxiproxy, the real one: a proxy for each link between a client and the broker, which can be cut
//! and slowed.
//!
//! Built by Go into a cache below the target directory, once. Without Go whoever asks gets `None`,
//! said aloud; with `CI=true` that is a failure.

use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use serde_json::{Value, json};

use super::http::request;
use super::kafka::{Link, free_ports};
use super::wait::until;
use super::{fetched, process};

const SOURCE: &str = "github.com/Shopify/toxiproxy/v2/cmd/server@v2.12.0";
const START_DEADLINE: Duration = Duration::from_secs(30);

/// A running Toxiproxy with one proxy for each link.
pub struct Proxies {
    port: u16,
    links: Vec<Link>,
    child: Child,
}

/// What a link is like.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Quality {
    /// As it is.
    Good,
    /// Connections are refused, and those that are open are closed.
    Cut,
    /// Connections stay open, and nothing passes.
    Silent,
    /// Everything takes so much longer, each way.
    Late {
        /// Milliseconds.
        millis: u32,
    },
    /// No more than so much passes, each way.
    Narrow {
        /// KiB a second.
        kib_per_second: u32,
    },
}

impl Proxies {
    /// Starts Toxiproxy for these links, all of them good.
    pub fn start(links: &[Link]) -> Option<Proxies> {
        let program = program()?;
        let port = free_ports(1)[0];
        let mut command = Command::new(program);
        command.args(["-host", "127.0.0.1", "-port", &port.to_string()]);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        let child = process::spawn(command).expect("Toxiproxy can be started");
        let proxies = Proxies { port, links: links.to_vec(), child };
        until("Toxiproxy", START_DEADLINE, || proxies.ask("GET", "/version", &Value::Null).ok());
        for (n, link) in links.iter().enumerate() {
            let listen = format!("127.0.0.1:{}", link.advertised);
            let upstream = format!("127.0.0.1:{}", link.port);
            let proxy = json!({ "name": name(n), "listen": listen, "upstream": upstream, "enabled": true });
            proxies.must("POST", "/proxies", &proxy);
        }
        Some(proxies)
    }

    /// What a client names as its broker to go over the link.
    pub fn bootstrap(&self, link: usize) -> String {
        format!("127.0.0.1:{}", self.links[link].advertised)
    }

    /// Changes a link.
    pub fn set(&self, link: usize, quality: Quality) {
        let name = name(link);
        for toxic in self.toxics(&name) {
            self.must("DELETE", &format!("/proxies/{name}/toxics/{toxic}"), &Value::Null);
        }
        self.must("POST", &format!("/proxies/{name}"), &json!({ "enabled": quality != Quality::Cut }));
        let (kind, attributes) = match quality {
            Quality::Good | Quality::Cut => return,
            Quality::Silent => ("timeout", json!({ "timeout": 0 })),
            Quality::Late { millis } => ("latency", json!({ "latency": millis, "jitter": millis / 4 })),
            Quality::Narrow { kib_per_second } => ("bandwidth", json!({ "rate": kib_per_second })),
        };
        for stream in ["upstream", "downstream"] {
            let toxic = json!({ "type": kind, "stream": stream, "toxicity": 1.0, "attributes": attributes });
            self.must("POST", &format!("/proxies/{name}/toxics"), &toxic);
        }
    }

    fn toxics(&self, proxy: &str) -> Vec<String> {
        let answer = self.must("GET", &format!("/proxies/{proxy}/toxics"), &Value::Null);
        let toxics = answer.as_array().cloned().unwrap_or_default();
        toxics.iter().filter_map(|toxic| toxic["name"].as_str().map(str::to_owned)).collect()
    }

    fn must(&self, method: &str, path: &str, body: &Value) -> Value {
        self.ask(method, path, body).unwrap_or_else(|why| panic!("Toxiproxy: {method} {path}: {why}"))
    }

    fn ask(&self, method: &str, path: &str, body: &Value) -> Result<Value, String> {
        let body = if body.is_null() { String::new() } else { body.to_string() };
        let (status, text) =
            request(self.port, method, path, &body).map_err(|error: std::io::Error| error.to_string())?;
        match status {
            200..300 => Ok(serde_json::from_str(&text).unwrap_or(Value::Null)),
            _ => Err(format!("{status} {text}")),
        }
    }
}

impl Drop for Proxies {
    fn drop(&mut self) {
        process::kill(&mut self.child);
    }
}

fn name(link: usize) -> String {
    format!("link-{link}")
}

/// Toxiproxy's server, built by the first process that needs it.
fn program() -> Option<PathBuf> {
    if !fetched::runs("go", "version") {
        fetched::skip_aloud(
            "TESTS WITH BROKEN LINKS ARE SKIPPED: Go was not found, and Toxiproxy is built by it.",
        );
        return None;
    }
    let bin = fetched::once("toxiproxy-2.12.0", "bin", |part| {
        let output = Command::new("go").args(["install", SOURCE]).env("GOBIN", part).output();
        let output = output.expect("go can be started");
        assert!(output.status.success(), "building Toxiproxy: {}", String::from_utf8_lossy(&output.stderr));
    });
    Some(bin.join("server"))
}
