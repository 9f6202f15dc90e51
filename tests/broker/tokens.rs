//! Tokens that end: of an identity provider, and of an AWS identity, at a broker that has every connection
//! authenticated anew every four seconds.

use std::sync::Arc;
use std::time::Duration;

use crate::security::{flow, secret, settings, tls, topics};
use crate::support::identity::{container_credentials, provider, sts};
use crate::support::secured::{ACCESS_KEY, Secured, USER};
use crate::support::{Out, Seen};
use crate::support::{Pawl, command, orders, process, produce, read_until, secured, until};

const DEADLINE: Duration = Duration::from_secs(90);
/// How long a token of these tests lives.
const LIFE: Duration = Duration::from_secs(20);
const CONTAINER_TOKEN: &str = "container-token";
const WEB_IDENTITY: &str = "web-identity";

fn oauth(secured: &Secured, endpoint: &str, secret: &std::path::Path) -> String {
    format!(
        "security = \"oauth\"\n{}\n[kafka.oauth]\ntoken_endpoint = \"{endpoint}/token\"\nclient_id = \"{USER}\"\n\
         client_secret_file = \"{}\"",
        tls(secured, ""),
        secret.display()
    )
}

fn iam(secured: &Secured) -> String {
    format!("security = \"msk-iam\"\n{}\n[kafka.msk_iam]\nregion = \"eu-central-1\"", tls(secured, ""))
}

/// The variables of an ECS task, and nothing that would lead to another source.
fn task(endpoint: &str) -> Vec<(&'static str, String)> {
    let file = secret(CONTAINER_TOKEN);
    std::fs::write(&file, CONTAINER_TOKEN).expect("written");
    vec![
        ("AWS_CONTAINER_CREDENTIALS_FULL_URI", format!("{endpoint}/role")),
        ("AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE", file.display().to_string()),
        ("AWS_EC2_METADATA_DISABLED", "true".into()),
        ("AWS_CONFIG_FILE", "/nowhere".into()),
        ("AWS_SHARED_CREDENTIALS_FILE", "/nowhere".into()),
    ]
}

fn with_env(pawl: &mut Pawl, variables: &[(&'static str, String)]) {
    let variables: Vec<(&'static str, &str)> =
        variables.iter().map(|(name, value)| (*name, value.as_str())).collect();
    pawl.set_env(&variables);
}

fn credentials(pawl: &Pawl) -> serde_json::Value {
    let (_, text) = pawl.get("/ready").expect("the process answers");
    serde_json::from_str::<serde_json::Value>(&text).expect("JSON")["credentials"][0].clone()
}

#[test]
fn orders_flow_by_the_tokens_of_an_identity_provider_which_may_be_away_for_a_while() {
    let Some(secured) = secured() else { return };
    let (input, output) = topics(secured);
    let provider = provider(secured.signing.clone(), (USER, "client-secret"), LIFE);
    let security = oauth(secured, &provider.url(), &secret("client-secret"));
    let mut pawl = Pawl::new(&settings(&secured.broker.listener("OAUTH"), &security, &input, &output));
    pawl.start();
    flow(secured, &pawl, (&input, &output), 0..20);
    survives(secured, &pawl, &provider, (&input, &output));
    assert_eq!(pawl.terminate(), 0, "{}", pawl.log());
}

/// The source of tokens goes away until a refresh has failed, and comes back: records flow all the time, and
/// the failure is shown.
fn survives(
    secured: &Secured,
    pawl: &Pawl,
    source: &crate::support::identity::Endpoint,
    (input, output): (&str, &str),
) {
    source.leave();
    let failed = until("a refresh has failed", DEADLINE, || {
        let shown = credentials(pawl);
        (shown["failures"].as_u64()? > 0).then_some(shown)
    });
    assert_eq!(failed["expired"], false, "the old token is good: {failed}");
    assert!(failed["failure"].is_string(), "{failed}");
    assert!(pawl.metric("pawl_kafka_token_refresh_failures_total").is_some_and(|count| count > 0.0));
    flow(secured, pawl, (input, output), 20..40);
    source.come_back();
    let before = credentials(pawl)["refreshes"].as_u64().expect("a number");
    until("tokens are fetched again", DEADLINE, || {
        let shown = credentials(pawl);
        (shown["refreshes"].as_u64()? > before && shown["failure"].is_null()).then_some(())
    });
    flow(secured, pawl, (input, output), 40..60);
}

#[test]
fn a_wrong_client_secret_is_told_with_the_client_and_the_setting() {
    let Some(secured) = secured() else { return };
    let provider = provider(Arc::clone(&secured.signing), (USER, "client-secret"), LIFE);
    let security = oauth(secured, &provider.url(), &secret("wrong"));
    let file = process::scratch("check").join("pawl.toml");
    let text = settings(&secured.broker.listener("OAUTH"), &security, "orders", "billed");
    std::fs::write(&file, text).expect("written");
    let finished = command(&["check", "--config", file.to_str().expect("UTF-8")], b"");
    let text = format!("{}{}", finished.stdout, finished.stderr);
    for part in ["invalid_client", "no such secret", "kafka.oauth.client_secret_file", "\"pawl\""] {
        assert!(finished.code != 0 && text.contains(part), "{part:?} is not in {text}");
    }
}

#[test]
fn the_sample_orders_flow_by_a_tasks_role_whose_endpoint_may_be_away_for_a_while() {
    let Some(secured) = secured() else { return };
    let (input, output) = topics(secured);
    let agent = container_credentials(CONTAINER_TOKEN, ACCESS_KEY, LIFE);
    let mut pawl = Pawl::new(&settings(&secured.broker.listener("IAM"), &iam(secured), &input, &output));
    with_env(&mut pawl, &task(&agent.url()));
    pawl.start();
    flow(secured, &pawl, (&input, &output), 0..20);
    let connected = secured.accepted(ACCESS_KEY.0);
    survives(secured, &pawl, &agent, (&input, &output));
    until("connections were authenticated anew", DEADLINE, || {
        (secured.accepted(ACCESS_KEY.0) >= connected + 10).then_some(())
    });

    let events = orders::events();
    let record = |event: &orders::Event| Out::new(event.order.as_str(), event.line.as_str());
    produce(&secured.broker, &input, events.iter().map(record));
    let all = 60 + events.len();
    let seen = read_until(&secured.broker, &output, DEADLINE, |seen| seen.len() >= all);
    let bodies = |seen: &[Seen]| -> Vec<String> { seen.iter().map(|one| one.text().to_owned()).collect() };
    for (order, ids) in orders::by_order(&events) {
        let lines: Vec<String> =
            events.iter().filter(|event| event.order == order).map(|event| event.line.clone()).collect();
        let of_order: Vec<Seen> =
            seen.iter().filter(|one| one.key.as_deref() == Some(order.as_bytes())).cloned().collect();
        assert_eq!(bodies(&of_order), lines, "{order}: {} events, each once and in order", ids.len());
    }
    assert_eq!(pawl.terminate(), 0, "{}", pawl.log());
}

#[test]
fn a_signature_of_another_secret_is_refused_and_the_access_key_is_told() {
    let Some(secured) = secured() else { return };
    let agent = container_credentials(CONTAINER_TOKEN, (ACCESS_KEY.0, "another-secret"), LIFE);
    let (input, output) = topics(secured);
    let text = settings(&secured.broker.listener("IAM"), &iam(secured), &input, &output);
    let mut pawl = Pawl::new(&text.replace("[kafka]\n", "[kafka]\nrequest_timeout = \"3s\"\n"));
    with_env(&mut pawl, &task(&agent.url()));
    pawl.start().assert_refused(&["the brokers refuse", "access key AKIDPAWL", "invalid_token"]);
}

#[test]
fn orders_flow_by_the_web_identity_of_a_service_account() {
    let Some(secured) = secured() else { return };
    let (input, output) = topics(secured);
    let sts = sts(WEB_IDENTITY, ACCESS_KEY, LIFE);
    let mut pawl = Pawl::new(&settings(&secured.broker.listener("IAM"), &iam(secured), &input, &output));
    let token = process::scratch("identity").join("token");
    std::fs::write(&token, WEB_IDENTITY).expect("written");
    with_env(
        &mut pawl,
        &[
            ("AWS_ROLE_ARN", "arn:aws:iam::123456789012:role/pawl".into()),
            ("AWS_WEB_IDENTITY_TOKEN_FILE", token.display().to_string()),
            ("AWS_ENDPOINT_URL_STS", sts.url()),
            ("AWS_EC2_METADATA_DISABLED", "true".into()),
        ],
    );
    pawl.start();
    flow(secured, &pawl, (&input, &output), 0..20);
    assert!(sts.answered() > 0, "nobody asked STS");
    assert_eq!(pawl.terminate(), 0, "{}", pawl.log());
}
