//! As whom Pawl comes, and where secrets may stand.

use std::path::Path;

use super::*;

const PASSWORD: [(&str, &str); 1] = [("PAWL__KAFKA__SASL__PASSWORD", "s3cret")];

fn secured(lines: &str) -> String {
    in_kafka(lines)
}

#[test]
fn every_security_is_read_with_its_table() {
    let scram = secured("security = \"scram\"\nsasl = { username = \"pawl\", password_file = \"/run/p\" }");
    let kafka = good(&scram, &[]).kafka;
    assert_eq!((kafka.security, kafka.sasl.mechanism), (Security::Scram, ScramMechanism::ScramSha512));
    assert_eq!(kafka.sasl.password_file.as_deref(), Some(Path::new("/run/p")));
    let oauth = secured(
        "security = \"oauth\"\noauth = { token_endpoint = \"https://id.example.com/token\", client_id = \"pawl\", \
         client_secret_file = \"/run/s\", scope = \"kafka\", extensions = { logicalCluster = \"lkc-1\" } }",
    );
    assert_eq!(good(&oauth, &[]).kafka.oauth.extensions["logicalCluster"], "lkc-1");
    let tls = secured("security = \"tls\"\ntls = { certificate_file = \"c\", key_file = \"k\" }");
    assert!(good(&tls, &[]).kafka.tls.verify_host);
    let iam =
        secured("security = \"msk-iam\"\nmsk_iam = { role_arn = \"arn:aws:iam::123456789012:role/pawl\" }");
    if cfg!(feature = "aws") {
        assert_eq!(good(&iam, &[]).kafka.msk_iam.role_session_name, "pawl");
    } else {
        refused(&iam, "built without AWS support");
    }
}

#[test]
fn a_secret_in_the_file_is_refused_and_not_shown() {
    for (line, variable) in [
        ("sasl = { username = \"pawl\", password = \"s3cret\" }", "PAWL__KAFKA__SASL__PASSWORD"),
        ("oauth = { client_id = \"pawl\", client_secret = \"s3cret\" }", "PAWL__KAFKA__OAUTH__CLIENT_SECRET"),
        ("tls = { key_password = \"s3cret\" }", "PAWL__KAFKA__TLS__KEY_PASSWORD"),
    ] {
        let error = parse(&secured(line), &[]).expect_err("a secret in the file").to_string();
        assert!(error.contains(&format!("set {variable}, or {variable}__FILE")), "{error}");
        assert!(!error.contains("s3cret"), "{error}");
    }
}

#[test]
fn a_secret_of_the_environment_is_taken_and_hidden_wherever_settings_are_shown() {
    let text = secured("security = \"plain\"\nsasl = { username = \"pawl\" }");
    let settings = good(&text, &PASSWORD);
    assert_eq!(settings.kafka.sasl.password.as_ref().map(Secret::reveal), Some("s3cret"));
    let shown = format!("{settings:?}{}", serde_json::to_string(&settings).expect("JSON"));
    assert!(!shown.contains("s3cret"), "{shown}");
}

#[test]
fn what_a_security_needs_is_demanded() {
    let check = |lines: &str, expected: &str| refused(&secured(lines), expected);
    check("security = \"scram\"\nsasl = { password_file = \"p\" }", "kafka.sasl.username is missing");
    check("security = \"scram\"\nsasl = { username = \"pawl\" }", "kafka.sasl.password_file is missing");
    check("security = \"tls\"\ntls = { certificate_file = \"c\" }", "kafka.tls.key_file is missing");
    check("security = \"tls\"\ntls = { key_file = \"k\" }", "kafka.tls.certificate_file is missing");
    check("security = \"tls\"\ntls = { enabled = false }", "is always encrypted");
    let at = |endpoint: &str| {
        format!(
            "security = \"oauth\"\noauth = {{ client_id = \"pawl\", client_secret_file = \"s\", token_endpoint = \"{endpoint}\" }}"
        )
    };
    check(&at("http://id.example.com/token"), "sent over an open connection");
    assert!(parse(&secured(&at("http://127.0.0.1:8080/token")), &[]).is_ok(), "within this machine");
    let both = secured("security = \"scram\"\nsasl = { username = \"pawl\", password_file = \"p\" }");
    let found = problems(&both, &PASSWORD);
    assert!(found.len() == 1 && found[0].contains("are both set"), "{found:?}");
}

#[test]
fn a_table_that_is_not_used_is_told() {
    let lines = "security = \"tls\"\nsasl = { username = \"pawl\" }";
    refused(&secured(lines), "kafka.sasl is not used with security = \"tls\"");
    refused(&secured("tls = { ca_file = \"ca\" }"), "kafka.tls is not used with security = \"plaintext\"");
}

#[test]
#[cfg(feature = "aws")]
fn names_of_aws_are_checked_by_their_form() {
    let check = |line: &str, expected: &str| {
        refused(&secured(&format!("security = \"msk-iam\"\nmsk_iam = {{ {line} }}")), expected);
    };
    check("region = \"Frankfurt\"", "not the name of a region");
    check("role_arn = \"pawl\"", "not the ARN of a role");
    check("role_session_name = \"a b\"", "not a legal name of a session");
}
