//! How connections to the brokers are encrypted, and as whom Pawl comes: `kafka.security` and the tables
//! that go with it.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Secret, duration, secret};

/// How connections to the brokers are secured.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Security {
    /// Neither encrypted nor authenticated.
    #[default]
    Plaintext,
    /// Encrypted; with a client certificate in kafka.tls also authenticated (mTLS).
    Tls,
    /// Name and password of kafka.sasl, by SASL/SCRAM (RFC 5802), which does not send the password.
    Scram,
    /// Name and password of kafka.sasl, by SASL/PLAIN (RFC 4616), which sends the password as it is.
    Plain,
    /// A token that an identity provider gives for the client's credentials in kafka.oauth
    /// (SASL/OAUTHBEARER, KIP-255 and RFC 6749, 4.4).
    Oauth,
    /// A signed token of an AWS identity, for Amazon MSK with IAM access control: on ECS the task's role, on
    /// EKS the pod's, else whatever the AWS credential chain finds.
    MskIam,
}

impl Security {
    /// The name in the settings.
    pub fn name(self) -> &'static str {
        match self {
            Security::Plaintext => "plaintext",
            Security::Tls => "tls",
            Security::Scram => "scram",
            Security::Plain => "plain",
            Security::Oauth => "oauth",
            Security::MskIam => "msk-iam",
        }
    }

    /// Whether a name and a password are shown to the broker.
    pub fn has_password(self) -> bool {
        matches!(self, Security::Scram | Security::Plain)
    }

    /// Whether tokens that end are shown to the broker.
    pub fn has_tokens(self) -> bool {
        matches!(self, Security::Oauth | Security::MskIam)
    }
}

/// Encryption of the connections to the brokers, for every `security` but plaintext. All files are PEM.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Tls {
    /// Whether connections are encrypted. Without it scram, plain and oauth go over open connections:
    /// for a network that is secured otherwise. tls and msk-iam are never without. Default: true.
    pub enabled: bool,
    /// The authorities that brokers' certificates are checked against. Default: the system's, where
    /// OpenSSL's usual places have them.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ca_file: Option<PathBuf>,
    /// The client's certificate, with the certificates between it and its authority; needs key_file.
    /// Default: none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub certificate_file: Option<PathBuf>,
    /// The private key of the client's certificate. Default: none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub key_file: Option<PathBuf>,
    /// The password of key_file, only in the environment: PAWL__KAFKA__TLS__KEY_PASSWORD, or a file that
    /// PAWL__KAFKA__TLS__KEY_PASSWORD__FILE names. Default: none.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "secret::schema")]
    pub key_password: Option<Secret>,
    /// Whether the certificate must be for the host name by which the broker was called. Default: true.
    pub verify_host: bool,
}

/// Name and password, for security = "scram" and "plain".
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Sasl {
    /// The name. Must be set for scram and plain.
    pub username: String,
    /// The file that holds the password; a line break at its end is not part of it. Read anew when it
    /// changes. Default: none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub password_file: Option<PathBuf>,
    /// The password, only in the environment: PAWL__KAFKA__SASL__PASSWORD. Default: none.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "secret::schema")]
    pub password: Option<Secret>,
    /// The hash of scram. Default: scram-sha-512.
    pub mechanism: ScramMechanism,
}

/// The hash of SCRAM.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
pub enum ScramMechanism {
    /// SHA-256 (RFC 7677).
    #[serde(rename = "scram-sha-256")]
    ScramSha256,
    /// SHA-512, the only one that Amazon MSK takes.
    #[default]
    #[serde(rename = "scram-sha-512")]
    ScramSha512,
}

/// Client credentials at an identity provider, for security = "oauth".
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Oauth {
    /// The provider's token endpoint, https:// or, on this machine alone, http://. Must be set.
    pub token_endpoint: String,
    /// The client's id. Must be set.
    pub client_id: String,
    /// The file that holds the client's secret; read for each token. Default: none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub client_secret_file: Option<PathBuf>,
    /// The client's secret, only in the environment: PAWL__KAFKA__OAUTH__CLIENT_SECRET. Default: none.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "secret::schema")]
    pub client_secret: Option<Secret>,
    /// The scopes that are asked for, separated by blanks. Default: none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub scope: Option<String>,
    /// The audience that is asked for, which some providers want. Default: none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub audience: Option<String>,
    /// SASL extensions (RFC 7628) that are sent to the broker with the token, names of letters alone.
    /// Default: none.
    pub extensions: BTreeMap<String, String>,
    /// How long one request for a token may take. Bounds: 1s to 1m. Default: 10s.
    #[serde(with = "duration")]
    #[schemars(schema_with = "duration::schema")]
    pub timeout: Duration,
}

/// The AWS identity, for security = "msk-iam".
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct MskIam {
    /// The region of the cluster. Default: the one in the first broker's name, else the one of the
    /// environment (AWS_REGION).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub region: Option<String>,
    /// A role to take on, as in arn:aws:iam::123456789012:role/pawl, such as one of the cluster's account.
    /// Default: none, the identity that the credential chain finds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub role_arn: Option<String>,
    /// The name of the session in which the role is taken on, seen in CloudTrail. 2 to 64 characters.
    /// Default: pawl.
    pub role_session_name: String,
    /// How long fetching credentials and signing a token may take. Bounds: 1s to 1m. Default: 10s.
    #[serde(with = "duration")]
    #[schemars(schema_with = "duration::schema")]
    pub timeout: Duration,
}

impl Default for Tls {
    fn default() -> Self {
        Tls {
            enabled: true,
            ca_file: None,
            certificate_file: None,
            key_file: None,
            key_password: None,
            verify_host: true,
        }
    }
}

impl Default for Oauth {
    fn default() -> Self {
        Oauth {
            token_endpoint: String::new(),
            client_id: String::new(),
            client_secret_file: None,
            client_secret: None,
            scope: None,
            audience: None,
            extensions: BTreeMap::new(),
            timeout: Duration::from_secs(10),
        }
    }
}

impl Default for MskIam {
    fn default() -> Self {
        MskIam {
            region: None,
            role_arn: None,
            role_session_name: "pawl".into(),
            timeout: Duration::from_secs(10),
        }
    }
}
