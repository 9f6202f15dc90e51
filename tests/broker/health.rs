//! What a container's health check sees. No broker is needed: a process that waits for one is alive and
//! not ready.

use std::net::TcpListener;
use std::time::Duration;

use crate::support::authority::Authority;
use crate::support::{self, Finished, Pawl, command, command_with};

const DEADLINE: Duration = Duration::from_secs(60);

/// `pawl health` with this instance's settings and these further arguments.
fn health(pawl: &Pawl, more: &[&str]) -> Finished {
    health_with(&[], pawl, more)
}

/// The same with these environment variables.
fn health_with(variables: &[(&str, &str)], pawl: &Pawl, more: &[&str]) -> Finished {
    let file = pawl.dir().join("pawl.toml");
    let config = ["health", "--config", file.to_str().expect("a path in UTF-8")];
    command_with(variables, &[&config, more].concat(), b"")
}

/// Settings that name a broker that is not there.
fn without_a_broker(more: &str) -> String {
    format!(
        "[kafka]\nbootstrap_servers = [\"127.0.0.1:1\"]\n\
         [handler.billing]\ntopic = \"orders\"\nhttp = {{ url = \"http://127.0.0.1:1/events\" }}\n{more}"
    )
}

#[test]
fn a_process_that_waits_for_its_broker_is_alive_and_not_ready_and_one_that_is_gone_is_neither() {
    let mut pawl = Pawl::new(&without_a_broker(""));
    pawl.start();
    support::until("a sign of life", DEADLINE, || (health(&pawl, &[]).code == 0).then_some(()));
    assert_eq!(health(&pawl, &[]).stdout, "live\n");
    let ready = health(&pawl, &["--ready"]);
    assert_eq!((ready.code, &ready.stdout[..]), (1, ""), "{ready:?}");
    assert!(ready.stderr.contains("503") && ready.stderr.contains("billing: "), "{ready:?}");
    pawl.kill();
    let gone = health(&pawl, &[]);
    assert!(gone.code == 1 && gone.stderr.contains("no instance answers at 127.0.0.1:"), "{gone:?}");
}

#[test]
fn neither_a_certificate_that_is_being_exchanged_nor_a_token_that_is_none_makes_a_process_a_dead_one() {
    let (authority, mut pawl) = (Authority::new(), Pawl::new(""));
    let (server, next) = (authority.issue("pawl", &[]), authority.issue("pawl", &[]));
    let put = |name: &str, text: &str| {
        std::fs::write(pawl.dir().join(name), text).expect("a writable directory");
    };
    put("certificate.pem", &server.certificate);
    put("key.pem", &server.key);
    put("read-token", "read-0123456789abcdef\n");
    let files = |name: &str| pawl.dir().join(name);
    pawl.set(&without_a_broker(&format!(
        "[admin.tls]\ncertificate_file = {:?}\nkey_file = {:?}\n\n[admin]\nread_token_file = {:?}\n",
        files("certificate.pem"),
        files("key.pem"),
        files("read-token")
    )));
    pawl.start();
    support::until("a sign of life", DEADLINE, || (health(&pawl, &[]).code == 0).then_some(()));
    let ready = health(&pawl, &["--ready"]);
    assert!(
        ready.code == 1 && ready.stderr.contains("billing: "),
        "with the token of the settings: {ready:?}"
    );
    let wrong = [("PAWL_ADMIN_TOKEN", "short")];
    let live = health_with(&wrong, &pawl, &[]);
    assert!(live.code == 0 && live.stdout == "live\n", "{live:?}");
    let ready = health_with(&wrong, &pawl, &["--ready"]);
    assert!(ready.code == 1 && ready.stderr.contains("503"), "{ready:?}");
    // The endpoint keeps the old one until the key is there too.
    std::fs::write(pawl.dir().join("certificate.pem"), &next.certificate).expect("a writable directory");
    support::until("a look at the file", DEADLINE, || pawl.log().contains("stay as they were").then_some(()));
    let live = health(&pawl, &[]);
    assert!(live.code == 0 && live.stdout == "live\n", "{live:?}");
    let ready = health(&pawl, &["--ready"]);
    assert!(ready.code == 1 && ready.stderr.contains("503"), "{ready:?}");
    assert!(!ready.stderr.contains("billing: "), "no token is sent to a stranger: {ready:?}");
}

#[test]
fn an_endpoint_that_does_not_answer_in_time_is_not_alive() {
    let silent = TcpListener::bind("127.0.0.1:0").expect("the loopback interface has free ports");
    let address = silent.local_addr().expect("a bound socket has an address").to_string();
    let asked = command(&["health", "--admin", &address, "--timeout", "200ms"], b"");
    assert!(asked.code == 1 && asked.stderr.contains("no answer within 200ms"), "{asked:?}");
}

#[test]
fn an_endpoint_that_is_off_is_told_with_the_remedy() {
    let pawl = Pawl::new(&without_a_broker(""));
    let file = pawl.dir().join("pawl.toml");
    std::fs::write(&file, without_a_broker("[admin]\nlisten = \"off\"\n")).expect("a writable directory");
    let asked = health(&pawl, &[]);
    assert!(asked.code == 2 && asked.stderr.contains("admin.listen is \"off\""), "{asked:?}");
}
