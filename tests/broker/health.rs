//! What a container's health check sees. No broker is needed: a process that waits for one is alive and
//! not ready.

use std::net::TcpListener;
use std::time::Duration;

use crate::support::{self, Finished, Pawl, command};

const DEADLINE: Duration = Duration::from_secs(60);

/// `pawl health` with this instance's settings and these further arguments.
fn health(pawl: &Pawl, more: &[&str]) -> Finished {
    let file = pawl.dir().join("pawl.toml");
    command(&[&["health", "--config", file.to_str().expect("a path in UTF-8")], more].concat(), b"")
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
