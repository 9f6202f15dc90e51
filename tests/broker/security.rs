//! Connections that are encrypted, and Pawl as somebody: TLS, client certificates, SCRAM, PLAIN.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use crate::support::secured::{Authority, PASSWORD, Secured, USER};
use crate::support::{self, Finished, Out, Pawl, Reply, Service, command, process, secured, until};

const DEADLINE: Duration = Duration::from_secs(60);

/// Settings of one handler that forwards `input` to `output`, at a listener of the secured broker. `security`
/// begins in the table [kafka] and goes on with tables of its own.
pub fn settings(at: &str, security: &str, input: &str, output: &str) -> String {
    format!(
        "[kafka]\nbootstrap_servers = [\"{at}\"]\nsession_timeout = \"6s\"\nreload_interval = \"1s\"\n{security}\n\
         [store]\ncheckpoint_interval = \"200ms\"\n\
         [handler.billing]\ntopic = \"{input}\"\ngroup = \"{input}-billing\"\nforward = {{ topic = \"{output}\" }}\n"
    )
}

/// The table [kafka.tls] with the tests' authority, and more of it.
pub fn tls(secured: &Secured, more: &str) -> String {
    format!("[kafka.tls]\nca_file = \"{}\"\n{more}", secured.authority.certificate().display())
}

/// [kafka.tls] and [kafka.sasl] for this name and password.
fn sasl(secured: &Secured, security: &str, name: &str, password: &Path, more: &str) -> String {
    format!(
        "security = \"{security}\"\n{}\n[kafka.sasl]\nusername = \"{name}\"\npassword_file = \"{}\"\n{more}",
        tls(secured, ""),
        password.display()
    )
}

/// A file with a secret, for this test.
pub fn secret(text: &str) -> PathBuf {
    let file = process::scratch("secret").join("secret");
    std::fs::write(&file, format!("{text}\n")).expect("the scratch directory can be written");
    file
}

/// A pair of topics of the secured broker.
pub fn topics(secured: &Secured) -> (String, String) {
    (support::topic(&secured.broker, "orders", 2), support::topic(&secured.broker, "billed", 2))
}

/// Writes records numbered by `range` and waits until all of them came out.
pub fn flow(secured: &Secured, pawl: &Pawl, (input, output): (&str, &str), range: std::ops::Range<usize>) {
    let all = range.end;
    let record = |n: usize| Out::new(format!("order-{}", n % 7), n.to_string());
    support::produce(&secured.broker, input, range.map(record));
    let seen = support::read_until(&secured.broker, output, DEADLINE, |seen| seen.len() >= all);
    assert_eq!(seen.len(), all, "each once:\n{}", pawl.log());
}

fn orders_flow_by(listener: &str, security: &str) {
    let Some(secured) = secured() else { return };
    let (input, output) = topics(secured);
    let at = secured.broker.listener(listener);
    let mut pawl = Pawl::new(&settings(&at, security, &input, &output));
    pawl.start();
    flow(secured, &pawl, (&input, &output), 0..40);
    assert_eq!(pawl.terminate(), 0, "{}", pawl.log());
}

/// `pawl check` at a listener, by these settings.
fn check(secured: &Secured, listener: &str, security: &str) -> Finished {
    let file = process::scratch("check").join("pawl.toml");
    let text = settings(&secured.broker.listener(listener), security, "orders", "billed");
    std::fs::write(&file, text.replace("[kafka]\n", "[kafka]\nrequest_timeout = \"3s\"\n")).expect("written");
    command(&["check", "--config", file.to_str().expect("UTF-8")], b"")
}

fn assert_names(finished: &Finished, parts: &[&str]) {
    assert_ne!(finished.code, 0, "{finished:?}");
    let text = format!("{}{}", finished.stdout, finished.stderr);
    for part in parts {
        assert!(text.contains(part), "{part:?} is not in {text}");
    }
}

#[test]
fn orders_flow_by_scram_with_both_hashes() {
    let Some(secured) = secured() else { return };
    let password = secret(PASSWORD);
    orders_flow_by("SCRAM", &sasl(secured, "scram", USER, &password, ""));
    orders_flow_by("SCRAM", &sasl(secured, "scram", USER, &password, "mechanism = \"scram-sha-256\""));
}

#[test]
fn orders_flow_by_plain_over_tls() {
    let Some(secured) = secured() else { return };
    orders_flow_by("PLAIN", &sasl(secured, "plain", USER, &secret(PASSWORD), ""));
}

#[test]
fn orders_flow_by_tls_without_and_with_a_client_certificate() {
    let Some(secured) = secured() else { return };
    orders_flow_by("TLS", &format!("security = \"tls\"\n{}", tls(secured, "")));
    let (certificate, key) = secured.authority.issue("client", USER, false);
    orders_flow_by("MTLS", &mutual(secured, &certificate, &key));
}

fn mutual(secured: &Secured, certificate: &Path, key: &Path) -> String {
    let (certificate, key) = (certificate.display(), key.display());
    let files = format!("certificate_file = \"{certificate}\"\nkey_file = \"{key}\"");
    format!("security = \"tls\"\n{}", tls(secured, &files))
}

#[test]
fn a_wrong_password_is_told_with_the_name_and_the_setting() {
    let Some(secured) = secured() else { return };
    let wrong = sasl(secured, "scram", USER, &secret("wrong"), "");
    let finished = check(secured, "SCRAM", &wrong);
    assert_names(&finished, &["User:pawl", "kafka.sasl.username", "SCRAM-SHA-512", "invalid credentials"]);

    let (input, output) = topics(secured);
    let text = settings(&secured.broker.listener("SCRAM"), &wrong, &input, &output);
    let mut pawl = Pawl::new(&text.replace("[kafka]\n", "[kafka]\nrequest_timeout = \"3s\"\n"));
    pawl.start().assert_refused(&["the brokers refuse User:pawl", "invalid credentials"]);
}

#[test]
fn an_expired_or_unknown_certificate_of_the_broker_is_told() {
    let Some(secured) = secured() else { return };
    let finished = check(secured, "EXPIRED", &format!("security = \"tls\"\n{}", tls(secured, "")));
    assert_names(&finished, &["certificate", "expired"]);
    let finished = check(secured, "TLS", "security = \"tls\"");
    assert_names(&finished, &["invalid peer certificate", "UnknownIssuer"]);
}

#[test]
fn a_client_certificate_of_another_authority_is_told() {
    let Some(secured) = secured() else { return };
    let (certificate, key) = Authority::new(&process::scratch("stranger")).issue("client", USER, false);
    let finished = check(secured, "MTLS", &mutual(secured, &certificate, &key));
    assert_names(&finished, &["CN=pawl", "does not take the client's certificate", "CertificateUnknown"]);
}

#[test]
fn an_open_client_at_an_encrypted_listener_is_told_what_it_is() {
    let Some(secured) = secured() else { return };
    let finished = check(secured, "TLS", "security = \"plaintext\"");
    assert_eq!(finished.code, 3, "{finished:?}");
    assert_names(&finished, &["does not answer as a Kafka listener for security = \"plaintext\""]);
}

#[test]
fn a_password_that_cannot_be_read_is_told_with_its_file() {
    let Some(secured) = secured() else { return };
    let finished = check(secured, "SCRAM", &sasl(secured, "scram", USER, Path::new("/nowhere/secret"), ""));
    assert_eq!(finished.code, 2, "{finished:?}");
    assert_names(&finished, &["/nowhere/secret", "kafka.sasl.password_file"]);
}

#[test]
fn new_certificates_are_used_by_a_process_that_runs() {
    let Some(secured) = secured() else { return };
    let (input, output) = topics(secured);
    let dir = process::scratch("rotated");
    let (first, second) = (support::unique("first"), support::unique("second"));
    let may = |who: &str, permission: &str| {
        ["topic", "group", "transactional_id"]
            .map(|kind| format!("{permission} User:{who} all {kind} literal *"))
    };
    secured.allow(&[may(&first, "allow"), may(&second, "allow")].concat());
    let issue = |subject: &str| secured.authority.issue(subject, subject, false);
    let place = |(certificate, key): &(PathBuf, PathBuf)| {
        std::fs::copy(certificate, dir.join("client.crt")).expect("copied");
        std::fs::copy(key, dir.join("client.key")).expect("copied");
    };
    place(&issue(&first));
    let security = mutual(secured, &dir.join("client.crt"), &dir.join("client.key"));
    let mut pawl = Pawl::new(&settings(&secured.broker.listener("MTLS"), &security, &input, &output));
    pawl.start();
    flow(secured, &pawl, (&input, &output), 0..20);

    let issued = issue(&second);
    place(&issued);
    until("the handler has connected anew", DEADLINE, || {
        pawl.log().contains("connects anew with the new certificates").then_some(())
    });
    flow(secured, &pawl, (&input, &output), 20..40);
    // From now on only whoever comes with the second certificate may do anything.
    secured.allow(&may(&first, "deny"));
    flow(secured, &pawl, (&input, &output), 40..60);

    // What brokers refuse, and what cannot be read: what runs goes on.
    let stranger = Authority::new(&process::scratch("stranger")).issue("client", USER, false);
    place(&stranger);
    let told = |text: &str| until(text, DEADLINE, || pawl.log().contains(text).then_some(()));
    told("the new certificates or keys for Kafka are not used, for brokers refuse them");
    let (_, ready) = pawl.get("/ready").expect("it answers");
    assert!(ready.contains("\"pending\":\"brokers refuse them"), "{ready}");
    assert_eq!(pawl.metric("pawl_kafka_credentials_pending"), Some(1.0));
    std::fs::write(dir.join("client.crt"), "no certificate").expect("written");
    told("the new certificates or keys for Kafka are not used, for they cannot be read");
    flow(secured, &pawl, (&input, &output), 60..80);
    place(&issued);
    told("are those in use again");
    assert_eq!(pawl.metric("pawl_kafka_credentials_pending"), Some(0.0));
    assert_eq!(pawl.terminate(), 0, "{}", pawl.log());
    assert_eq!(pawl.log().matches("connects anew").count(), 1, "{}", pawl.log());
}

/// A handler that posts to the service.
fn posting(name: &str, input: &str, service: &Service) -> String {
    format!(
        "[handler.{name}]\ntopic = \"{input}\"\ngroup = \"{input}-{name}\"\nhttp = {{ url = \"{}\", timeout = \"60s\" }}\n",
        service.url()
    )
}

#[test]
fn a_stop_is_heard_while_a_handler_drains_to_connect_anew() {
    let Some(secured) = secured() else { return };
    let (first, second) = topics(secured);
    let service = Service::start(|_| Reply::status(200).held());
    let dir = process::scratch("rotated");
    let place = |file: &str| {
        let (certificate, key) = secured.authority.issue(file, USER, false);
        std::fs::copy(certificate, dir.join("client.crt")).expect("copied");
        std::fs::copy(key, dir.join("client.key")).expect("copied");
    };
    place(&support::unique("first"));
    let security = mutual(secured, &dir.join("client.crt"), &dir.join("client.key"));
    let text = settings(&secured.broker.listener("MTLS"), &security, &first, &second);
    let (head, _) = text.split_once("[handler.billing]").expect("it is there");
    let handlers = posting("one", &first, &service) + &posting("two", &second, &service);
    let mut pawl = Pawl::new(&format!("{head}[shutdown]\ndeadline = \"8s\"\n{handlers}"));
    pawl.start().wait_ready();
    for topic in [&first, &second] {
        support::produce(&secured.broker, topic, [Out::new("hangs", "1")]);
    }
    service.wait("running calls", 2, DEADLINE, |call| call.ended.is_none());

    place(&support::unique("second"));
    until("a handler drains", DEADLINE, || pawl.log().contains("connects anew").then_some(()));
    let start = Instant::now();
    assert_eq!(pawl.terminate(), 0, "{}", pawl.log());
    // Each handler takes four fifths of it, and both drain at once.
    assert!(start.elapsed() < Duration::from_secs(9), "{:?}\n{}", start.elapsed(), pawl.log());
}

#[test]
fn a_new_password_is_used_by_a_process_that_runs() {
    let Some(secured) = secured() else { return };
    let (input, output) = topics(secured);
    let name = "limited-31";
    let all = ["topic", "group", "transactional_id"];
    secured.allow(&all.map(|kind| format!("allow User:{name} all {kind} literal *")));
    let file = secret(PASSWORD);
    let at = secured.broker.listener("SCRAM");
    let mut pawl = Pawl::new(&settings(&at, &sasl(secured, "scram", name, &file, ""), &input, &output));
    pawl.start();
    flow(secured, &pawl, (&input, &output), 0..20);

    let change = ["--bootstrap-server", secured.broker.bootstrap(), "--alter", "--entity-type", "users"];
    let to = ["--entity-name", name, "--add-config", "SCRAM-SHA-512=[password=another]"];
    let tool = secured.broker.java_tool("kafka.admin.ConfigCommand", &[&change[..], &to[..]].concat(), b"");
    let output_of = tool.expect("Java is there");
    assert!(output_of.status.success(), "{}", String::from_utf8_lossy(&output_of.stderr));
    std::fs::write(&file, "another").expect("written");
    until("the new password was read", DEADLINE, || {
        pawl.log().contains("the password for Kafka has changed").then_some(())
    });
    // Brokers have connections authenticated anew every few seconds.
    flow(secured, &pawl, (&input, &output), 20..60);
    let refused = pawl.log().matches("invalid credentials").count();
    pawl.kill();
    pawl.start();
    flow(secured, &pawl, (&input, &output), 60..80);
    assert_eq!(pawl.log().matches("invalid credentials").count(), refused, "{}", pawl.log());
    assert_eq!(pawl.terminate(), 0, "{}", pawl.log());
}
