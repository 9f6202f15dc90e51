//! `[admin]`: who may ask, and what must not be in the file.

use super::*;

const TOKEN: &str = "0123456789abcdef-secret";

fn with(table: &str) -> String {
    format!("{GOOD}\n[admin]\n{table}\n")
}

#[test]
fn a_secret_in_the_file_is_an_error_that_says_where_it_belongs() {
    for name in ["read_token", "operator_token"] {
        let error = parse(&with(&format!("{name} = \"{TOKEN}\"")), &[]).expect_err("refused").to_string();
        assert!(
            error.contains(&format!("admin.{name} stands in the settings file (pawl.toml:10:")),
            "{error}"
        );
        let variable = format!("PAWL__ADMIN__{}", name.to_uppercase());
        assert!(error.contains("does not belong in this file") && error.contains(&variable), "{error}");
        assert!(!error.contains(TOKEN), "{error}");
    }
}

#[test]
fn a_secret_is_taken_from_a_variable_and_never_shown() {
    let settings = good(GOOD, &[("PAWL__ADMIN__READ_TOKEN", TOKEN)]);
    assert_eq!(settings.admin.read_token.as_ref().map(Secret::reveal), Some(TOKEN));
    let shown = format!("{settings:?}{}", serde_json::to_string(&settings).expect("plain data"));
    assert!(shown.contains("(hidden)") && !shown.contains(TOKEN), "{shown}");
    for wrong in ["short", "0123456789abcdef with a space", "na me:0123456789abcdef"] {
        let told = problems(GOOD, &[("PAWL__ADMIN__OPERATOR_TOKEN", wrong)]);
        assert!(
            told[0].contains("(PAWL__ADMIN__OPERATOR_TOKEN)") && told[0].contains("openssl rand"),
            "{told:?}"
        );
        assert!(!told[0].contains(wrong), "{told:?}");
    }
}

#[test]
fn an_endpoint_that_others_reach_takes_a_token_or_client_certificates() {
    let exposed =
        |table: &str, variables: &[(&str, &str)]| good(&with(table), variables).admin.check_exposure();
    for listen in ["127.0.0.1:9464", "[::1]:9464", "[::ffff:127.0.0.1]:9464", "off"] {
        assert_eq!(exposed(&format!("listen = \"{listen}\""), &[]), Ok(()), "{listen}");
    }
    for listen in ["0.0.0.0:9464", "[::]:9464", "10.0.0.7:9464"] {
        let listen = format!("listen = \"{listen}\"");
        let error = exposed(&listen, &[]).expect_err("anybody could ask").to_string();
        assert!(error.contains("admin.listen") && error.contains("PAWL__ADMIN__READ_TOKEN"), "{error}");
        assert_eq!(exposed(&listen, &[("PAWL__ADMIN__READ_TOKEN", TOKEN)]), Ok(()));
        assert_eq!(exposed(&format!("{listen}\noperator_token_file = \"t\""), &[]), Ok(()));
        let tls = "tls = { certificate_file = \"c\", key_file = \"k\"";
        assert!(exposed(&format!("{listen}\n{tls} }}"), &[]).is_err(), "TLS alone asks nobody who they are");
        assert_eq!(exposed(&format!("{listen}\n{tls}, client_ca_file = \"ca\" }}"), &[]), Ok(()));
    }
}

#[test]
fn what_does_not_fit_together_is_told() {
    refused(&with("tls = { key_file = \"k\" }"), "admin.tls.certificate_file is missing");
    refused(
        &with("tls = { certificate_file = \"c\", key_file = \"k\", operators = [\"alice\"] }"),
        "admin.tls.operators names certificates that nobody checks",
    );
    refused(
        &with(
            "tls = { certificate_file = \"c\", key_file = \"k\", client_ca_file = \"a\", operators = [\"\"] }",
        ),
        "write 1 to 64 printable characters",
    );
    refused(&with("read_token_file = \"\""), "admin.read_token_file");
    let both = problems(&with("read_token_file = \"t\""), &[("PAWL__ADMIN__READ_TOKEN", TOKEN)]);
    assert!(both[0].contains("are both set") && both[0].contains("keep one of them"), "{both:?}");
}
