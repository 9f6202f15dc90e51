//! What is wrong with `[telemetry]`.

use super::{check, parsed_url};
use crate::settings::Telemetry;
use crate::settings::key_path::KeyPath;
use crate::settings::problem::{Complaint, Problem};
use crate::settings::secret;

/// The most attributes of the resource that the user may add; each request carries them.
const MAX_ATTRIBUTES: usize = 64;
/// The longest namespace that CloudWatch takes, in characters.
const MAX_NAMESPACE_CHARS: usize = 256;

pub(super) fn problems(telemetry: &Telemetry) -> Vec<Problem> {
    let base = KeyPath::of(&["telemetry"]);
    let mut found = Vec::new();
    if let Some(endpoint) = &telemetry.otlp.endpoint {
        let remedy = "write it as in \"http://collector:4318\"; gRPC (port 4317) is not spoken";
        let result = match parsed_url(endpoint) {
            Err(reason) => Err(Complaint::new(reason, remedy)),
            Ok(()) if endpoint.contains('?') => Err(Complaint::new("a base URL has no query", remedy)),
            Ok(()) if secret::names_a_user(endpoint) => {
                Err(Complaint::new("a secret does not belong here", "put it into a file: headers_file"))
            }
            Ok(()) => Ok(()),
        };
        found.extend(check(&base.name("otlp").name("endpoint"), secret::shown_url(endpoint), result));
    }
    if telemetry.resource.len() > MAX_ATTRIBUTES {
        let key = base.name("resource");
        let subject = format!("{key} has {} attributes", telemetry.resource.len());
        found.push(Problem::new(&key, subject, format!("leave {MAX_ATTRIBUTES} of them at most")));
    }
    if let Some(namespace) = &telemetry.emf.namespace {
        let legal = |char: char| char.is_ascii_alphanumeric() || ".-_/#:".contains(char);
        let sound = (1..=MAX_NAMESPACE_CHARS).contains(&namespace.len())
            && namespace.chars().all(legal)
            && !namespace.starts_with("AWS/");
        let remedy = "use 1 to 256 characters of a-z, A-Z, 0-9 and \".-_/#:\", not beginning with AWS/";
        let result = if sound { Ok(()) } else { Err(Complaint::new("CloudWatch does not take it", remedy)) };
        found.extend(check(&base.name("emf").name("namespace"), namespace, result));
    }
    found
}
