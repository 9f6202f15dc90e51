//! Retry policies: the base, those of codes, and what does not fit together.

use std::time::Duration;

use pawl_actors::outcome::{Failure, FailureClass, code};
use pawl_actors::supervisor::{RetryPolicy, RetryRule, Waits};

use super::*;

/// The settings with these lines in the table of retries.
fn in_retry(lines: &str) -> String {
    format!("{GOOD}\n[handler.billing.retry]\n{lines}\n")
}

/// The settings with these lines in the table of retries for a code.
fn on(code: &str, lines: &str) -> String {
    format!("{GOOD}\n[handler.billing.retry.on.\"{code}\"]\n{lines}\n")
}

fn seconds(n: u64) -> Duration {
    Duration::from_secs(n)
}

/// The rule that a failure meets.
fn rule(text: &str, failure: &Failure) -> RetryRule {
    let settings = good(text, &[]);
    let handler = &settings.handler["billing"];
    handler.retry.policies(handler.http.is_some()).rule(failure).clone()
}

#[test]
fn a_base_policy_may_list_its_delays_have_no_end_or_a_limit_of_time() {
    let text = in_retry("attempts = \"unlimited\"\ndelays = [\"1s\", \"5s\", \"30s\"]\nmax_elapsed = \"1h\"");
    let expected = RetryPolicy {
        attempts: Attempts::Unlimited,
        waits: Waits::Listed([1, 5, 30].map(seconds).to_vec()),
        max: seconds(60),
        jitter: 0.2,
        max_elapsed: Some(seconds(3600)),
    };
    let failure = Failure::transient(code::UNAVAILABLE, "503");
    assert_eq!(rule(&text, &failure), RetryRule { policy: expected, class: None });
}

#[test]
fn a_policy_for_a_code_takes_from_the_base_what_it_does_not_say() {
    let text = in_retry(
        r#"
        attempts = 5
        delays = ["1s"]
        max = "2m"
        max_elapsed = "1h"
        on.503 = { attempts = "unlimited", max = "30s" }
        on.5xx = { initial = "3s" }
        on.504 = { attempts = "unlimited", max_elapsed = "2h" }
        on."pawl.TimedOut" = { delays = ["2s", "90s"], jitter = 0 }
        on.not-there-yet = { class = "transient", max_elapsed = "1m", attempts = 3 }
        on."https://acme.example/declined" = { class = "permanent" }
        "#,
    );
    let base = RetryPolicy {
        attempts: Attempts::Limited(5),
        waits: Waits::Listed(vec![seconds(1)]),
        max: seconds(120),
        jitter: 0.2,
        max_elapsed: Some(seconds(3600)),
    };
    let check = |failure: Failure, policy: RetryPolicy, class: Option<FailureClass>| {
        assert_eq!(rule(&text, &failure), RetryRule { policy, class }, "{failure:?}");
    };
    let unavailable = |status| Failure::transient(code::UNAVAILABLE, "").with_status(status);
    check(unavailable(429), base.clone(), None);
    let endless = RetryPolicy { attempts: Attempts::Unlimited, max_elapsed: None, ..base.clone() };
    check(unavailable(503), RetryPolicy { max: seconds(30), ..endless.clone() }, None);
    check(unavailable(504), RetryPolicy { max_elapsed: Some(seconds(7200)), ..endless }, None);
    let growing = Waits::Growing { initial: seconds(3), multiplier: 2.0 };
    check(unavailable(502), RetryPolicy { waits: growing, ..base.clone() }, None);
    let listed =
        RetryPolicy { waits: Waits::Listed([2, 90].map(seconds).to_vec()), jitter: 0.0, ..base.clone() };
    check(Failure::transient(code::TIMED_OUT, ""), listed, None);
    let soon = RetryPolicy { attempts: Attempts::Limited(3), max_elapsed: Some(seconds(60)), ..base.clone() };
    let missing = Failure::permanent(code::REJECTED, "").with_status(404).with_own_code("not-there-yet");
    check(missing, soon, Some(FailureClass::Transient));
    let declined = unavailable(503).with_own_code("https://acme.example/declined");
    check(declined, base, Some(FailureClass::Permanent));
}

#[test]
fn a_number_is_a_status_only_where_the_handler_is_http() {
    let http = on("503", "attempts = 2");
    let program = http.replace("http = { url = \"http://localhost:8080/events\" }", "program = {}");
    let status = Failure::transient(code::UNAVAILABLE, "").with_status(503);
    let own = Failure::transient(code::UNAVAILABLE, "").with_own_code("503");
    let attempts = |text: &str, failure: &Failure| rule(text, failure).policy.attempts;
    let (two, base) = (Attempts::Limited(2), Attempts::Limited(8));
    assert_eq!((attempts(&http, &status), attempts(&http, &own)), (two, base));
    assert_eq!((attempts(&program, &status), attempts(&program, &own)), (base, two));
}

#[test]
fn policies_are_set_by_variables_like_everything_else() {
    let text = on("pawl.TimedOut", "attempts = 2");
    let name = |rest: &str| format!("PAWL__HANDLER__BILLING__RETRY__{rest}");
    let set = [
        (name("ATTEMPTS"), "unlimited"),
        (name("DELAYS"), "1s, 5s"),
        (name("MAX_ELAPSED"), "1h"),
        (name("ON__PAWL_TIMEDOUT__ATTEMPTS"), "4"),
        (name("ON__PAWL_TIMEDOUT__CLASS"), "transient"),
    ];
    let variables: Vec<(&str, &str)> = set.iter().map(|(name, value)| (name.as_str(), *value)).collect();
    let expected = Retry {
        attempts: Attempts::Unlimited,
        delays: Some(vec![seconds(1), seconds(5)]),
        max_elapsed: Some(seconds(3600)),
        on: [(
            "pawl.TimedOut".to_owned(),
            RetryOn {
                attempts: Some(Attempts::Limited(4)),
                class: Some(RetryClass::Transient),
                ..RetryOn::default()
            },
        )]
        .into(),
        ..Retry::default()
    };
    let settings = good(&text, &variables);
    assert_eq!(settings.handler["billing"].retry, expected);
    let json = serde_json::to_value(&settings).expect("serialised");
    let written = &json["handler"]["billing"]["retry"];
    assert_eq!(written["attempts"], "unlimited");
    assert_eq!(written["delays"], serde_json::json!(["1s", "5s"]));
    assert_eq!(serde_json::from_value::<Retry>(written.clone()).expect("read back"), expected);
    let found = problems(GOOD, &[("PAWL__HANDLER__BILLING__RETRY__DELAYS", "1s,2m")]);
    assert!(found[0].contains("retry.delays[1] = \"2m\""), "{found:?}");
}

#[test]
fn a_wrong_value_in_a_policy_is_told_with_its_place() {
    let retry = "handler.billing.retry";
    refused(&in_retry("attempts = \"unlimitted\""), "write a whole number of 1 to 1000, or \"unlimited\"");
    refused(&in_retry("attempts = 1001"), "too large, 1 to 1000 is allowed; lower it to at most 1000");
    refused(&in_retry("delays = \"1s\""), "this is a string; write a list");
    refused(
        &in_retry("delays = [\"1s\", 5]"),
        "retry.delays[1] = 5 (pawl.toml:10:17): a duration needs a unit",
    );
    refused(
        &in_retry("delays = [\"0s\"]"),
        "retry.delays[0] = \"0s\" (pawl.toml:10:11): too small, 1ms to 1day",
    );
    refused(&in_retry("delays = []"), &format!("{retry}.delays has 0 elements (pawl.toml:10:10)"));
    let many = format!("delays = [{}]", "\"1s\", ".repeat(101));
    refused(&in_retry(&many), "delays has 101 elements (pawl.toml:10:10); write 1 to 100");
    refused(&in_retry("max_elapsed = \"0s\""), "too small, 1ms to 1year is allowed");
    refused(
        &on("503", "attempts = 0"),
        "handler.billing.retry.on.503.attempts = 0 (pawl.toml:10:12): too small",
    );
    refused(
        &on("a.b", "jitter = 2"),
        "retry.on.\"a.b\".jitter = 2 (pawl.toml:10:10): too large, 0 to 1 is allowed",
    );
    refused(&on("503", "class = \"fatal\""), "allowed: \"transient\", \"permanent\"; write one of them");
    refused(&on("503", "atempts = 3"), "did you mean \"attempts\"?");
}

#[test]
fn what_does_not_fit_together_in_a_policy_is_told() {
    let longer = "is longer than the longest, retry.max = \"1m\"; lower it to at most 1m, or raise retry.max";
    refused(
        &in_retry("delays = [\"1s\", \"5m\"]"),
        &format!("delays[1] = \"5m\" (pawl.toml:10:17): this wait {longer}"),
    );
    refused(
        &on("503", "initial = \"2m\""),
        &format!("on.503.initial = \"2m\" (pawl.toml:10:11): the first wait {longer}"),
    );
    refused(
        &on("503", "max = \"100ms\""),
        "the first wait is longer than the longest, retry.max = \"100ms\"",
    );
    good(&on("503", "initial = \"2m\"\nmax = \"2m\""), &[]);
    refused(
        &in_retry("delays = [\"1s\"]\nmultiplier = 3"),
        "handler.billing.retry has delays and multiplier (pawl.toml:10:10): delays stand in its place; remove one",
    );
    refused(&on("503", "delays = [\"1s\"]\ninitial = \"1s\""), "retry.on.503 has delays and initial");
    refused(
        &on("503", "class = \"permanent\"\nattempts = 3"),
        "handler.billing.retry.on.503 is permanent and says how to try again (pawl.toml:9:27): what is permanent",
    );
    for code in ["404", "3xx", "pawl.Rejected"] {
        refused(&on(code, "attempts = 3"), "is permanent, and not tried again; add class = \"transient\"");
        good(&on(code, "attempts = 3\nclass = \"transient\""), &[]);
    }
    good(&on("4xx", "attempts = 3"), &[]);
    let initial = "initial = \"2m\"\n[handler.billing.retry.on.503]\nattempts = 3";
    refused(&in_retry(initial), "handler.billing.retry.initial = \"2m\"");
}

#[test]
fn a_code_that_is_none_is_told_with_the_likely_intention() {
    let no_code = |code: &str, expected: &str| refused(&on(code, "class = \"transient\""), expected);
    no_code(
        "pawl.TimeOut",
        "\"pawl.TimeOut\" is no code that handler.billing.retry.on could be for (pawl.toml:9:27): codes of attempts: \
         \"pawl.Rejected\", \"pawl.Unavailable\", \"pawl.TimedOut\", \"pawl.Unreachable\", \"pawl.Panicked\"; \
         did you mean \"pawl.TimedOut\"?",
    );
    no_code("Pawl.timedout", "did you mean \"pawl.TimedOut\"?");
    no_code("pawl.Gone", "write one of them");
    no_code("pawl.Undecodable", "what ends with this code is not the end of an attempt; remove it");
    no_code("pawl.Exhausted", "not the end of an attempt");
    no_code("200", "no failure has this status; remove it: 2xx is a success");
    no_code("2xx", "no failure has this status");
    no_code("6xx", "there is no such class of statuses; write \"3xx\", \"4xx\" or \"5xx\"");
    no_code("5XX", "written with two small x; write \"5xx\"");
    no_code("", "no error code looks like this; write 1 to 256 bytes");
    no_code(" busy", "no error code looks like this");
    for own in ["busy", "4711", "42", "5x", "acme:errors/1", "https://acme.example/locked"] {
        good(&on(own, "class = \"transient\""), &[]);
    }
}

#[test]
fn the_example_of_the_documentation_can_be_read() {
    let page = include_str!("../../../docs/failures.md");
    let mut blocks = page.split("```toml\n").skip(1).filter_map(|rest| rest.split("```").next());
    let example = blocks.find(|block| block.contains("retry.on]")).expect("the example");
    let settings = good(&format!("{GOOD}\n{example}"), &[]);
    assert_eq!(settings.handler["billing"].retry.on.len(), 5);
}
