//! A broker that is secured in every way that Pawl speaks, with ACLs, and the certificates for it.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

use rcgen::{
    BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair, KeyUsagePurpose, date_time_ymd,
};

use super::identity::SigningKey;
use super::kafka::{self, Extra};
use super::{Broker, java, process};

/// Whoever may do everything: the name for SCRAM and PLAIN, the subject of certificates and tokens.
pub const USER: &str = "pawl";
/// The password of everybody.
pub const PASSWORD: &str = "not-a-secret";
/// The access key that may do everything, and its secret.
pub const ACCESS_KEY: (&str, &str) = ("AKIDPAWL", "iam-secret");
/// So many further names are known for SCRAM: limited-0, limited-1, ...
pub const LIMITED: usize = 32;

/// See the module's documentation.
pub struct Secured {
    pub broker: Broker,
    pub authority: Authority,
    pub signing: Arc<SigningKey>,
    /// Where the broker notes each token of an AWS identity that it took.
    accepted: PathBuf,
}

/// The secured broker that all tests of this process share. `None`: there is none to be had.
pub fn secured() -> Option<&'static Secured> {
    static SHARED: OnceLock<Option<Secured>> = OnceLock::new();
    SHARED.get_or_init(Secured::start).as_ref()
}

impl Secured {
    fn start() -> Option<Secured> {
        let libs = kafka::jars()?;
        let dir = process::scratch("secured");
        let authority = Authority::new(&dir);
        authority.issue("broker", "broker", false);
        authority.issue("expired", "broker", true);
        let signing = Arc::new(SigningKey::generate());
        let jwks = dir.join("jwks.json");
        std::fs::write(&jwks, signing.jwks()).expect("the scratch directory can be written");
        let classes = dir.join("classes");
        let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/secured/MskIamValidator.java");
        java::compile(&libs, &source, &classes);
        let accepted = dir.join("accepted");
        let broker = Broker::with(|| extra(&dir, &classes, &accepted))?;
        Some(Secured { broker, authority, signing, accepted })
    }

    /// How often the broker took a token of an AWS identity with this access key.
    pub fn accepted(&self, key: &str) -> usize {
        let noted = std::fs::read_to_string(&self.accepted).unwrap_or_default();
        noted.lines().filter(|line| *line == key).count()
    }

    /// Creates ACLs, each: permission, principal, operation, type of resource, type of pattern, name.
    pub fn allow(&self, acls: &[String]) {
        let libs = kafka::jars().expect("a broker runs");
        let mut command = java::command(&libs, "-Xmx128m");
        command.arg("-XX:TieredStopAtLevel=1");
        command.arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/secured/Acls.java"));
        command.arg(self.broker.bootstrap());
        let output = java::run(command, acls.join("\n").as_bytes());
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    }
}

fn extra(dir: &Path, classes: &Path, accepted: &Path) -> Extra {
    let listeners = vec![
        ("SCRAM", "SASL_SSL"),
        ("PLAIN", "SASL_SSL"),
        ("TLS", "SSL"),
        ("MTLS", "SSL"),
        ("EXPIRED", "SSL"),
        ("OAUTH", "SASL_SSL"),
        ("IAM", "SASL_SSL"),
    ];
    let mut format = Vec::new();
    let names = (0..LIMITED).map(|number| format!("limited-{number}")).chain([USER.to_owned()]);
    for name in names {
        for mechanism in ["SCRAM-SHA-256", "SCRAM-SHA-512"] {
            format.push("--add-scram".into());
            format.push(format!("{mechanism}=[name={name},password={PASSWORD}]"));
        }
    }
    let jwks = format!("file://{}", dir.join("jwks.json").display());
    let java = vec![
        format!("-Dorg.apache.kafka.sasl.oauthbearer.allowed.urls={jwks}"),
        format!("-Dpawl.test.keys={}:{}", ACCESS_KEY.0, ACCESS_KEY.1),
        format!("-Dpawl.test.accepted={}", accepted.display()),
    ];
    Extra { listeners, properties: properties(dir, &jwks), format, java, classes: Some(classes.to_owned()) }
}

fn properties(dir: &Path, jwks: &str) -> String {
    let scram = "org.apache.kafka.common.security.scram.ScramLoginModule required;";
    let plain = "org.apache.kafka.common.security.plain.PlainLoginModule required";
    let oauth = "org.apache.kafka.common.security.oauthbearer.OAuthBearerLoginModule required;";
    let mut text = format!(
        "allow.everyone.if.no.acl.found=false
super.users=User:ANONYMOUS;User:{USER};User:{key}
ssl.keystore.type=PEM
ssl.keystore.location={broker}
ssl.truststore.type=PEM
ssl.truststore.location={authority}
listener.name.expired.ssl.keystore.type=PEM
listener.name.expired.ssl.keystore.location={expired}
listener.name.mtls.ssl.client.auth=required
listener.name.mtls.ssl.principal.mapping.rules=RULE:^CN=([^,]+).*$/$1/,DEFAULT
listener.name.scram.sasl.enabled.mechanisms=SCRAM-SHA-256,SCRAM-SHA-512
listener.name.scram.scram-sha-256.sasl.jaas.config={scram}
listener.name.scram.scram-sha-512.sasl.jaas.config={scram}
listener.name.plain.sasl.enabled.mechanisms=PLAIN
listener.name.plain.plain.sasl.jaas.config={plain} user_{USER}=\"{PASSWORD}\";
",
        key = ACCESS_KEY.0,
        broker = dir.join("broker.pem").display(),
        expired = dir.join("expired.pem").display(),
        authority = dir.join("authority.crt").display(),
    );
    for (listener, handler) in [
        ("oauth", "org.apache.kafka.common.security.oauthbearer.OAuthBearerValidatorCallbackHandler"),
        ("iam", "MskIamValidator"),
    ] {
        write!(
            text,
            "listener.name.{listener}.sasl.enabled.mechanisms=OAUTHBEARER
listener.name.{listener}.oauthbearer.sasl.jaas.config={oauth}
listener.name.{listener}.oauthbearer.sasl.server.callback.handler.class={handler}
listener.name.{listener}.oauthbearer.connections.max.reauth.ms=4000
"
        )
        .expect("a String takes any text");
    }
    text + &format!(
        "listener.name.oauth.oauthbearer.sasl.oauthbearer.jwks.endpoint.url={jwks}
listener.name.oauth.oauthbearer.sasl.oauthbearer.expected.audience=kafka
listener.name.oauth.oauthbearer.sasl.oauthbearer.expected.issuer=https://pawl.test
"
    )
}

/// A certificate authority, and where what it issues lies.
pub struct Authority {
    dir: PathBuf,
    issuer: Issuer<'static, KeyPair>,
}

impl Authority {
    /// A new authority; its own certificate lies in the directory as authority.crt.
    pub fn new(dir: &Path) -> Authority {
        let key = KeyPair::generate().expect("a key");
        let mut params = named("the tests' authority");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let certificate = params.self_signed(&key).expect("a certificate");
        write(&dir.join("authority.crt"), &certificate.pem());
        Authority { dir: dir.to_owned(), issuer: Issuer::new(params, key) }
    }

    /// Its certificate.
    pub fn certificate(&self) -> PathBuf {
        self.dir.join("authority.crt")
    }

    /// Issues a certificate for this subject on this machine: FILE.crt, FILE.key and both in FILE.pem.
    pub fn issue(&self, file: &str, subject: &str, expired: bool) -> (PathBuf, PathBuf) {
        let key = KeyPair::generate().expect("a key");
        let mut params = named(subject);
        if expired {
            params.not_before = date_time_ymd(2020, 1, 1);
            params.not_after = date_time_ymd(2021, 1, 1);
        }
        let certificate = params.signed_by(&key, &self.issuer).expect("a certificate");
        let at = |ending: &str| self.dir.join(format!("{file}.{ending}"));
        write(&at("crt"), &certificate.pem());
        write(&at("key"), &key.serialize_pem());
        write(&at("pem"), &format!("{}{}", key.serialize_pem(), certificate.pem()));
        (at("crt"), at("key"))
    }
}

fn named(subject: &str) -> CertificateParams {
    let names = ["localhost".to_owned(), "127.0.0.1".to_owned()];
    let mut params = CertificateParams::new(names).expect("legal names");
    params.distinguished_name.remove(DnType::CommonName);
    params.distinguished_name.push(DnType::CommonName, subject);
    params
}

fn write(file: &Path, text: &str) {
    std::fs::write(file, text).expect("the scratch directory can be written");
}
