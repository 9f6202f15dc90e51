//! Whether what kafka.security needs is there, and nothing beside it.

use super::super::key_path::KeyPath;
use super::super::problem::{Complaint, Problem};
use super::super::{Kafka, MskIam, Oauth, Sasl, Security};
use super::{check, missing, url};

/// The longest of names, addresses and scopes, in characters.
const MAX_CHARS: usize = 4_096;

pub(super) fn problems(base: &KeyPath, kafka: &Kafka) -> Vec<Problem> {
    let mut found = unused(base, kafka);
    found.extend(tls(base, kafka));
    if kafka.security.has_password() {
        found.extend(sasl(&base.name("sasl"), &kafka.sasl));
    }
    if kafka.security == Security::Oauth {
        found.extend(oauth(&base.name("oauth"), &kafka.oauth));
    }
    if kafka.security == Security::MskIam {
        found.extend(msk_iam(&base.name("msk_iam"), &kafka.msk_iam));
        if !cfg!(feature = "aws") {
            let reason = "this pawl was built without AWS support";
            let remedy = "use one that was built with the feature \"aws\", as the image is";
            let complaint = Complaint::new(reason, remedy);
            found.push(Problem::with_value(&base.name("security"), "\"msk-iam\"", complaint));
        }
    }
    found
}

/// Tables that are filled in, but not used: most likely security is another than was meant.
fn unused(base: &KeyPath, kafka: &Kafka) -> Vec<Problem> {
    let security = kafka.security;
    let tables = [
        ("sasl", security.has_password() || kafka.sasl == Sasl::default(), "\"scram\" or \"plain\""),
        ("oauth", security == Security::Oauth || kafka.oauth == Oauth::default(), "\"oauth\""),
        ("msk_iam", security == Security::MskIam || kafka.msk_iam == MskIam::default(), "\"msk-iam\""),
        (
            "tls",
            security != Security::Plaintext || kafka.tls == Default::default(),
            "\"tls\", or another that is encrypted",
        ),
    ];
    let unused = tables.into_iter().filter(|(_, fits, _)| !fits);
    unused
        .map(|(table, _, wanted)| {
            let key = base.name(table);
            let subject = format!("{key} is not used with security = \"{}\"", security.name());
            Problem::new(&key, subject, format!("set kafka.security = {wanted}, or remove the table"))
        })
        .collect()
}

fn tls(base: &KeyPath, kafka: &Kafka) -> Vec<Problem> {
    let (tls, security, at) = (&kafka.tls, kafka.security, base.name("tls"));
    let mut found = Vec::new();
    if !tls.enabled && matches!(security, Security::Tls | Security::MskIam) {
        let complaint = Complaint::new(
            format!("security = \"{}\" is always encrypted", security.name()),
            "remove it, or set kafka.security to what is meant",
        );
        found.push(Problem::with_value(&at.name("enabled"), "false", complaint));
    }
    match (&tls.certificate_file, &tls.key_file) {
        (Some(_), None) => {
            found.push(missing(&at.name("key_file"), "name the private key of certificate_file"));
        }
        (None, Some(_)) => {
            found.push(missing(&at.name("certificate_file"), "name the certificate of key_file"));
        }
        (None, None) if tls.key_password.is_some() => {
            found.push(missing(&at.name("key_file"), "name the key that key_password is for"));
        }
        _ => {}
    }
    found
}

fn sasl(at: &KeyPath, sasl: &Sasl) -> Vec<Problem> {
    let mut found: Vec<Problem> = named(&at.name("username"), &sasl.username, "name the principal").collect();
    let given = (sasl.password.is_some(), sasl.password_file.is_some());
    found.extend(one_secret(&at.name("password_file"), given, "PAWL__KAFKA__SASL__PASSWORD"));
    found
}

fn oauth(at: &KeyPath, oauth: &Oauth) -> Vec<Problem> {
    let endpoint = at.name("token_endpoint");
    let mut found: Vec<Problem> = url(&endpoint, &oauth.token_endpoint).into_iter().collect();
    if found.is_empty() && !is_private(&oauth.token_endpoint) {
        let complaint = Complaint::new(
            "the client's secret would be sent over an open connection",
            "write it with https://; http:// is for this machine alone",
        );
        found.push(Problem::with_value(&endpoint, &format!("{:?}", oauth.token_endpoint), complaint));
    }
    found.extend(named(&at.name("client_id"), &oauth.client_id, "name the client as the provider knows it"));
    let given = (oauth.client_secret.is_some(), oauth.client_secret_file.is_some());
    found.extend(one_secret(&at.name("client_secret_file"), given, "PAWL__KAFKA__OAUTH__CLIENT_SECRET"));
    for (name, value) in &oauth.extensions {
        let letters = !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_alphabetic());
        let reserved = name.eq_ignore_ascii_case("auth");
        let printable = value.bytes().all(|byte| (b' '..=b'~').contains(&byte));
        let legal = if letters && !reserved && printable {
            Ok(())
        } else {
            let reason = "a name of letters alone, not \"auth\", and a value of printable ASCII are allowed (RFC 7628)";
            Err(Complaint::new(reason, "correct or remove it"))
        };
        found.extend(check(&at.name("extensions").name(name), value, legal));
    }
    found
}

/// Whether a secret may be sent there: encrypted, or within this machine.
fn is_private(endpoint: &str) -> bool {
    let Ok(uri) = endpoint.parse::<hyper::Uri>() else { return false };
    let local = |host: &str| matches!(host, "localhost" | "127.0.0.1" | "[::1]");
    uri.scheme_str() == Some("https") || uri.host().is_some_and(local)
}

fn msk_iam(at: &KeyPath, iam: &MskIam) -> Vec<Problem> {
    let region = iam.region.as_deref().map(|region| {
        let legal = (2..=40).contains(&region.len())
            && region.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-');
        let complaint = || Complaint::new("not the name of a region", "write it as in \"eu-central-1\"");
        check(&at.name("region"), region, if legal { Ok(()) } else { Err(complaint()) })
    });
    let role = iam.role_arn.as_deref().map(|role| {
        let parts: Vec<&str> = role.splitn(6, ':').collect();
        let legal = matches!(parts[..], ["arn", _, "iam", "", _, resource] if resource.starts_with("role/"));
        let remedy = "write it as in \"arn:aws:iam::123456789012:role/pawl\"";
        let complaint = || Complaint::new("not the ARN of a role", remedy);
        check(&at.name("role_arn"), role, if legal { Ok(()) } else { Err(complaint()) })
    });
    // STS: [\w+=,.@-]{2,64}.
    let session = &iam.role_session_name;
    let legal = |byte: u8| byte.is_ascii_alphanumeric() || b"_+=,.@-".contains(&byte);
    let session = if (2..=64).contains(&session.len()) && session.bytes().all(legal) {
        None
    } else {
        let remedy = "use 2 to 64 characters of a-z, A-Z, 0-9 and _+=,.@-";
        let complaint = Complaint::new("not a legal name of a session", remedy);
        check(&at.name("role_session_name"), session, Err(complaint))
    };
    region.into_iter().chain(role).flatten().chain(session).collect()
}

fn named(key: &KeyPath, name: &str, remedy: &str) -> impl Iterator<Item = Problem> {
    let problem = match name.len() {
        0 => Some(missing(key, remedy)),
        1..=MAX_CHARS => None,
        _ => check(key, "…", Err(Complaint::new(format!("longer than {MAX_CHARS} bytes"), "shorten it"))),
    };
    problem.into_iter()
}

/// A secret is given by the environment or by a file, and once.
fn one_secret(file: &KeyPath, (variable, file_given): (bool, bool), name: &str) -> Option<Problem> {
    match (variable, file_given) {
        (true, false) | (false, true) => None,
        (false, false) => Some(missing(file, &format!("name a file that holds it, or set {name}"))),
        (true, true) => {
            let subject = format!("{file} and {name} are both set");
            Some(Problem::new(file, subject, "keep one of them"))
        }
    }
}
