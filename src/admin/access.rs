//! Who may do what: roles, what a request needs, and why it is denied. Pure.

use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;

use axum::http::{Method, StatusCode};

/// What somebody may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Role {
    /// Look at everything, keys and states among it.
    Read,
    /// Change things too.
    Operator,
}

impl Role {
    /// The name in logs.
    pub fn name(self) -> &'static str {
        match self {
            Role::Read => "read",
            Role::Operator => "operator",
        }
    }
}

/// By what somebody is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Means {
    /// A bearer token.
    Token,
    /// A client certificate.
    Certificate,
    /// By being on this machine, where nobody is asked.
    Machine,
}

/// Somebody whose role is known.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Visitor {
    /// What they may do.
    pub role: Role,
    /// By what they are known.
    pub means: Means,
    /// The token's name, or the certificate's common name.
    pub name: Arc<str>,
    /// Where the connection comes from.
    pub peer: SocketAddr,
}

/// For the log and for commands: one line, whatever a certificate says.
impl fmt::Display for Visitor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = self.name.escape_debug();
        match self.means {
            Means::Token => write!(f, "{name} (token) from {}", self.peer),
            Means::Certificate => write!(f, "{name} (certificate) from {}", self.peer),
            Means::Machine => write!(f, "somebody on this machine"),
        }
    }
}

/// What a request needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Need {
    /// Probes have no token, and are told yes or no.
    Nothing,
    /// A role.
    Role(Role),
}

/// What a request for a path needs, whether there is such a path or not: strangers are not told.
pub fn need(method: &Method, path: &str) -> Need {
    match path {
        "/live" | "/ready" => Need::Nothing,
        _ if method.is_safe() => Need::Role(Role::Read),
        _ => Need::Role(Role::Operator),
    }
}

/// How people can be known at this endpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rules {
    /// There are tokens.
    pub tokens: bool,
    /// Client certificates are checked.
    pub certificates: bool,
    /// Somebody has the operator role.
    pub operators: bool,
}

impl Rules {
    /// Whether anybody is asked who they are.
    pub fn is_guarded(self) -> bool {
        self.tokens || self.certificates
    }
}

/// Why a request is denied.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Denied {
    /// Nobody is known to ask.
    Unknown(Rules),
    /// What stands in the header `Authorization` is no token of this process.
    WrongToken,
    /// The role read is not enough.
    NotOperator,
    /// There is no operator at all.
    NoOperators,
    /// The name that was asked for can be anybody's.
    ForeignHost,
    /// There is no host, or more than one.
    NoHost,
    /// A page in a browser asks.
    Page,
    /// Too many requests of this address.
    TooMany,
}

impl Denied {
    /// The HTTP status.
    pub fn status(self) -> StatusCode {
        match self {
            Denied::Unknown(rules) if rules.tokens => StatusCode::UNAUTHORIZED,
            Denied::WrongToken => StatusCode::UNAUTHORIZED,
            Denied::NoHost => StatusCode::BAD_REQUEST,
            Denied::TooMany => StatusCode::TOO_MANY_REQUESTS,
            Denied::Unknown(_)
            | Denied::NotOperator
            | Denied::NoOperators
            | Denied::ForeignHost
            | Denied::Page => StatusCode::FORBIDDEN,
        }
    }

    /// The header `WWW-Authenticate` (RFC 6750).
    pub fn challenge(self) -> Option<&'static str> {
        match self {
            Denied::Unknown(rules) if rules.tokens => Some("Bearer realm=\"pawl\""),
            Denied::WrongToken => Some("Bearer realm=\"pawl\", error=\"invalid_token\""),
            Denied::NotOperator => Some("Bearer realm=\"pawl\", error=\"insufficient_scope\""),
            _ => None,
        }
    }

    /// The label in the metric.
    pub fn reason(self) -> &'static str {
        match self {
            Denied::Unknown(_) => "unknown",
            Denied::WrongToken => "wrong-token",
            Denied::NotOperator => "not-operator",
            Denied::NoOperators => "no-operators",
            Denied::ForeignHost => "foreign-host",
            Denied::NoHost => "no-host",
            Denied::Page => "page",
            Denied::TooMany => "too-many",
        }
    }

    /// What is wrong and what to do, for whoever asked.
    pub fn text(self) -> &'static str {
        match self {
            Denied::Unknown(Rules { tokens: true, certificates: true, .. }) => {
                "send a token in the header \"Authorization: Bearer TOKEN\", or show a client certificate"
            }
            Denied::Unknown(Rules { tokens: true, .. }) => {
                "send a token in the header \"Authorization: Bearer TOKEN\" (pawl: --token-file FILE or PAWL_ADMIN_TOKEN)"
            }
            Denied::Unknown(Rules { certificates: true, .. }) => {
                "show a client certificate (pawl: --certificate-file and --key-file)"
            }
            Denied::Unknown(_) => {
                "others than this machine are told nothing without a token: set admin.read_token_file"
            }
            Denied::WrongToken => {
                "the header Authorization is not \"Bearer TOKEN\" with a token of this process; admin.read_token_file \
                 and admin.operator_token_file hold them"
            }
            Denied::NotOperator => {
                "this changes something and takes the operator role: use a token of admin.operator_token_file, or a \
                 certificate that admin.tls.operators names"
            }
            Denied::NoOperators => {
                "this changes something, and nobody has the operator role here: set admin.operator_token_file, or use \
                 the command line, which asks through Kafka"
            }
            Denied::ForeignHost => {
                "without a token this endpoint is asked by an address or as localhost only, lest a web page reads it \
                 under a name of its own: use http://127.0.0.1:PORT, or set admin.read_token_file"
            }
            Denied::NoHost => "send one header Host",
            Denied::Page => "commands are not taken from web pages: leave the header Origin out",
            Denied::TooMany => "too many requests of this address: wait (admin.requests_per_second)",
        }
    }
}

/// Whether somebody with this role, or nobody known, may do what is asked.
///
/// # Errors
/// Why not.
pub fn admit(need: Need, role: Option<Role>, rules: Rules) -> Result<(), Denied> {
    match (need, role) {
        (Need::Nothing, _) => Ok(()),
        (Need::Role(needed), Some(role)) if role >= needed => Ok(()),
        (Need::Role(_), Some(_)) if rules.operators => Err(Denied::NotOperator),
        (Need::Role(_), Some(_)) => Err(Denied::NoOperators),
        (Need::Role(_), None) => Err(Denied::Unknown(rules)),
    }
}

/// Whether a request that names this host can only have been meant for this machine: a web page can have its own
/// name resolved to 127.0.0.1, and cannot have an address or `localhost` resolved.
pub fn is_this_machine(authority: &str) -> bool {
    let host = match authority.rsplit_once(':') {
        Some((host, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => host,
        _ => authority,
    };
    let address = host.strip_prefix('[').and_then(|host| host.strip_suffix(']'));
    let is_v6 = address.is_some_and(|host| host.parse::<std::net::Ipv6Addr>().is_ok());
    let name = host.to_ascii_lowercase();
    is_v6 || host.parse::<std::net::Ipv4Addr>().is_ok() || name == "localhost" || name.ends_with(".localhost")
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOBODY: Rules = Rules { tokens: false, certificates: false, operators: false };
    const READERS: Rules = Rules { tokens: true, ..NOBODY };
    const BOTH: Rules = Rules { operators: true, ..READERS };

    #[test]
    fn what_each_role_may_do_on_each_route() {
        let (none, read, operator) = (None, Some(Role::Read), Some(Role::Operator));
        // Method, path, and the status for nobody known, a reader and an operator.
        let table = [
            ("GET", "/live", [200, 200, 200]),
            ("GET", "/ready", [200, 200, 200]),
            ("GET", "/metrics", [401, 200, 200]),
            ("GET", "/supervision", [401, 200, 200]),
            ("GET", "/handlers/billing/keys", [401, 200, 200]),
            ("GET", "/handlers/billing/keys/K", [401, 200, 200]),
            ("GET", "/handlers/billing/unkeyed", [401, 200, 200]),
            ("HEAD", "/metrics", [401, 200, 200]),
            ("GET", "/no/such/path", [401, 200, 200]),
            ("GET", "/live/", [401, 200, 200]),
            ("GET", "/handlers/../live", [401, 200, 200]),
            ("POST", "/handlers/billing/commands", [401, 403, 200]),
            ("PUT", "/metrics", [401, 403, 200]),
            ("DELETE", "/no/such/path", [401, 403, 200]),
            ("BREW", "/metrics", [401, 403, 200]),
        ];
        for (method, path, expected) in table {
            let method = Method::from_bytes(method.as_bytes()).expect("a method");
            let status = |role| {
                admit(need(&method, path), role, BOTH).map_or_else(Denied::status, |()| StatusCode::OK)
            };
            let found = [none, read, operator].map(|role| status(role).as_u16());
            assert_eq!(found, expected, "{method} {path}");
        }
    }

    #[test]
    fn a_denial_says_what_to_do_here() {
        let change = need(&Method::POST, "/handlers/billing/commands");
        let denied = |role, rules| admit(change, role, rules).expect_err("denied");
        assert_eq!(denied(Some(Role::Read), BOTH), Denied::NotOperator);
        assert_eq!(denied(Some(Role::Read), READERS), Denied::NoOperators);
        assert!(denied(Some(Role::Read), READERS).text().contains("operator_token_file"));
        let certificates = Rules { certificates: true, ..NOBODY };
        // There is no scheme that could be named to a client that has no certificate.
        assert_eq!(
            (denied(None, certificates).status().as_u16(), denied(None, certificates).challenge()),
            (403, None)
        );
        assert!(denied(None, certificates).text().contains("certificate"));
        assert_eq!(denied(None, BOTH).challenge(), Some("Bearer realm=\"pawl\""));
    }

    #[test]
    fn only_names_that_nobody_else_can_have_are_this_machines() {
        for name in [
            "127.0.0.1",
            "127.0.0.1:9464",
            "localhost:9464",
            "LOCALHOST",
            "a.localhost:1",
            "[::1]:9464",
            "10.0.0.7",
        ] {
            assert!(is_this_machine(name), "{name}");
        }
        for name in [
            "",
            "evil.example",
            "evil.example:9464",
            "127.0.0.1.evil.example",
            "localhost.evil.example",
            "::1",
            "evil.example:127.0.0.1",
            "localhost@evil.example",
            "notlocalhost",
        ] {
            assert!(!is_this_machine(name), "{name}");
        }
    }

    #[test]
    fn a_visitors_name_cannot_begin_a_line_of_its_own() {
        let peer = "10.0.0.7:5".parse().expect("an address");
        let visitor =
            Visitor { role: Role::Read, means: Means::Certificate, name: "a\nINFO forged".into(), peer };
        assert_eq!(visitor.to_string(), "a\\nINFO forged (certificate) from 10.0.0.7:5");
    }
}
