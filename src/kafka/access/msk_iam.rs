//! Tokens for Amazon MSK with IAM access control: a presigned request of the action
//! `kafka-cluster:Connect`, encoded, as MSK's client libraries make it. The broker checks the signature.

use std::time::{Duration, SystemTime};

use aws_config::sts::AssumeRoleProvider;
use aws_config::{BehaviorVersion, Region};
use aws_credential_types::Credentials;
use aws_credential_types::provider::{ProvideCredentials, SharedCredentialsProvider};
use aws_sigv4::http_request::{SignableBody, SignableRequest, SignatureLocation, SigningSettings, sign};
use aws_sigv4::sign::v4;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use hyper::http;

use super::aws_http::AwsHttp;
use super::state::Token;
use crate::connections::causes;
use crate::settings::{Kafka, MskIam};

/// How long a token is valid; the longest that MSK takes.
const LIFE: Duration = Duration::from_secs(900);
/// The name under which MSK is signed for.
const SERVICE: &str = "kafka-cluster";

pub(super) struct MskIamTokens {
    iam: MskIam,
    /// The region that the settings name, or the first broker's name.
    region: Option<Region>,
    /// Made when it is first needed, by the thread that uses it.
    identity: Option<Identity>,
}

struct Identity {
    region: Region,
    credentials: SharedCredentialsProvider,
}

impl MskIamTokens {
    pub(super) fn new(kafka: &Kafka) -> MskIamTokens {
        let named = kafka.msk_iam.region.clone();
        let region = named.or_else(|| kafka.bootstrap_servers.iter().find_map(|server| region_of(server)));
        MskIamTokens { iam: kafka.msk_iam.clone(), region: region.map(Region::new), identity: None }
    }

    pub(super) fn timeout(&self) -> Duration {
        self.iam.timeout
    }

    /// Fetches credentials and signs a token with them.
    pub(super) async fn sign(&mut self) -> Result<Token, String> {
        let identity = match &self.identity {
            Some(identity) => identity,
            None => self.identity.insert(find(&self.iam, self.region.clone()).await?),
        };
        let credentials = identity.credentials.provide_credentials().await.map_err(|error| {
            format!(
                "no AWS credentials: {}; on ECS give the task a role, on EKS the pod's service account, else see \
                 the AWS documentation of the credential provider chain",
                causes(&error)
            )
        })?;
        token(credentials, &identity.region, SystemTime::now())
    }
}

async fn find(iam: &MskIam, region: Option<Region>) -> Result<Identity, String> {
    let mut loader = aws_config::defaults(BehaviorVersion::latest()).http_client(AwsHttp);
    if let Some(region) = region {
        loader = loader.region(region);
    }
    let config = loader.load().await;
    let region = config.region().cloned().ok_or(
        "the cluster's region is not known: set kafka.msk_iam.region, or AWS_REGION in the environment",
    )?;
    let found = config.credentials_provider().ok_or("the AWS credential chain is empty")?;
    let credentials = match &iam.role_arn {
        None => found,
        Some(role) => {
            let assumed = AssumeRoleProvider::builder(role)
                .session_name(&iam.role_session_name)
                .configure(&config)
                .build()
                .await;
            SharedCredentialsProvider::new(assumed)
        }
    };
    Ok(Identity { region, credentials })
}

/// The region in a broker's name, as in b-1.orders.x1y2.c3.kafka.eu-central-1.amazonaws.com,
/// boot-x1y2.c1.kafka-serverless.eu-central-1.amazonaws.com and, by PrivateLink,
/// b-1.orders.x1y2.c3.kafka.eu-central-1.vpce.amazonaws.com. A cluster's own name may be any of these words.
fn region_of(server: &str) -> Option<String> {
    let (host, _) = server.rsplit_once(':')?;
    let labels: Vec<&str> = host.split('.').collect();
    let end = labels.iter().rposition(|label| *label == "amazonaws")?;
    let before = labels[..end].strip_suffix(&["vpce"]).unwrap_or(&labels[..end]);
    match before {
        [.., "kafka" | "kafka-serverless", region] => Some((*region).to_owned()),
        _ => None,
    }
}

fn token(credentials: Credentials, region: &Region, now: SystemTime) -> Result<Token, String> {
    let failed = |error: &dyn std::error::Error| format!("the token could not be signed: {}", causes(error));
    let ends = now + LIFE;
    let expires = credentials.expiry().map_or(ends, |expiry| expiry.min(ends));
    let principal = format!("access key {}", credentials.access_key_id());
    let identity = credentials.into();
    let mut settings = SigningSettings::default();
    settings.signature_location = SignatureLocation::QueryParams;
    settings.expires_in = Some(LIFE);
    let params = v4::SigningParams::builder()
        .identity(&identity)
        .region(region.as_ref())
        .name(SERVICE)
        .time(now)
        .settings(settings)
        .build()
        .map_err(|error| failed(&error))?
        .into();
    let url = format!("https://kafka.{region}.amazonaws.com/?Action=kafka-cluster%3AConnect");
    let signable = SignableRequest::new("GET", &url, std::iter::empty(), SignableBody::Bytes(&[]))
        .map_err(|error| failed(&error))?;
    let (instructions, _) = sign(signable, &params).map_err(|error| failed(&error))?.into_parts();
    let mut request = http::Request::get(&url).body(()).map_err(|error| failed(&error))?;
    instructions.apply_to_request_http1x(&mut request);
    // Not part of what is signed; MSK logs it.
    let signed = format!("{}&User-Agent=pawl%2F{}", request.uri(), env!("CARGO_PKG_VERSION"));
    Ok(Token { value: URL_SAFE_NO_PAD.encode(signed), expires, principal, extensions: Vec::new() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_region_is_in_the_name_of_a_broker() {
        for (server, region) in [
            ("b-1.orders.x1y2.c3.kafka.eu-central-1.amazonaws.com:9098", Some("eu-central-1")),
            ("boot-x1.c1.kafka-serverless.us-east-1.amazonaws.com:9098", Some("us-east-1")),
            ("b-1.orders.x1y2.c3.kafka.cn-north-1.amazonaws.com.cn:9098", Some("cn-north-1")),
            ("b-1.kafka.x1y2.c3.kafka.eu-central-1.amazonaws.com:9098", Some("eu-central-1")),
            ("b-1.amazonaws.x1y2.c3.kafka.eu-central-1.amazonaws.com:9098", Some("eu-central-1")),
            ("b-1.orders.x1y2.c3.kafka.eu-central-1.vpce.amazonaws.com:14001", Some("eu-central-1")),
            ("orders.eu-central-1.elb.amazonaws.com:9098", None),
            ("kafka.internal.example.com:9098", None),
            ("kafka:9092", None),
        ] {
            assert_eq!(region_of(server).as_deref(), region, "{server}");
        }
    }

    #[test]
    fn a_token_is_a_presigned_request_and_ends_no_later_than_its_credentials() {
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(1_700_000_000);
        let region = Region::new("eu-central-1");
        let lasting = Credentials::new("AKID", "secret", Some("session".into()), None, "test");
        let signed = token(lasting, &region, now).expect("signed");
        assert_eq!((signed.principal.as_str(), signed.expires), ("access key AKID", now + LIFE));
        let url = String::from_utf8(URL_SAFE_NO_PAD.decode(&signed.value).expect("base64")).expect("UTF-8");
        for part in [
            "https://kafka.eu-central-1.amazonaws.com/?Action=kafka-cluster%3AConnect&",
            "X-Amz-Algorithm=AWS4-HMAC-SHA256",
            "X-Amz-Credential=AKID%2F20231114%2Feu-central-1%2Fkafka-cluster%2Faws4_request",
            "X-Amz-Expires=900",
            "X-Amz-Security-Token=session",
            "X-Amz-SignedHeaders=host",
            "X-Amz-Signature=",
            "&User-Agent=pawl%2F",
        ] {
            assert!(url.contains(part), "{part} is not in {url}");
        }
        let soon = now + Duration::from_secs(60);
        let ending = Credentials::new("AKID", "secret", None, Some(soon), "test");
        assert_eq!(token(ending, &region, now).expect("signed").expires, soon);
    }
}
