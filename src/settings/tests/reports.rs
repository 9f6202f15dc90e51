//! How problems with a file are told: places, excerpts, suggestions, all at once.

use std::fs;

use super::*;

#[test]
fn an_unknown_key_is_told_with_its_place_and_the_likely_intention() {
    let check = |text: &str, expected: &str| assert_eq!(problems(text, &[]), [expected]);
    check(
        "[kafka]\nbootstrap_servers = [\"localhost:9092\"]\n\n[handler.billing]\nforward = { topic = \"o\" }\n\ntpic = \"orders\"\n",
        "unknown key \"tpic\" in [handler.billing] (pawl.toml:7:1); did you mean \"topic\"?",
    );
    check(
        &in_handler("retry = { atempts = 3 }"),
        "unknown key \"atempts\" in [handler.billing.retry] (pawl.toml:7:11); did you mean \"attempts\"?",
    );
    check(
        &format!("{GOOD}\n[kafak]\n"),
        "unknown key \"kafak\" at the top of the file (pawl.toml:9:2); did you mean \"kafka\"?",
    );
    check(
        &format!("{GOOD}\n[shutdown]\nxyzzy = 1\n"),
        "unknown key \"xyzzy\" in [shutdown] (pawl.toml:10:1); known here: \"deadline\"",
    );
}

#[test]
fn a_report_shows_every_line_with_a_caret() {
    let text = GOOD.replace("topic", "tpic").replace("[kafka]", "[kafka]\nsession_timeout = \"1s\"");
    let report = parse(&text, &[("PAWL__LOG__FORMAT", "xml")]).expect_err("wrong").to_string();
    let expected = r#"3 problems in the settings of pawl.toml

1. kafka.session_timeout = "1s" (pawl.toml:3:19): too small, 6s to 30m is allowed; raise it to at least 6s
     |
   3 | session_timeout = "1s"
     |                   ^^^^

2. unknown key "tpic" in [handler.billing] (pawl.toml:7:1); did you mean "topic"?
     |
   7 | tpic = "orders"
     | ^^^^

3. log.format = "xml" (PAWL__LOG__FORMAT): allowed: "text", "json"; write one of them"#;
    assert_eq!(report, expected);
}

#[test]
fn a_syntax_error_is_told_with_its_place() {
    let check = |text: &str, place: &str| {
        let report = parse(text, &[]).expect_err(text).to_string();
        assert!(report.contains(place), "{report}");
        assert!(report.contains("this is not TOML"), "{report}");
        assert!(report.contains('^'), "{report}");
        assert!(report.starts_with("1 problem in"), "what follows from it is not told: {report}");
    };
    check("[kafka]\nclient_id = pawl\n", "(pawl.toml:2:13)");
    check("[kafka]\nbootstrap_servers = [\"a:1\"\nclient_id = \"x\n[log]\n", "(pawl.toml:3:1)");
    check("[kafka\n", "(pawl.toml:1:7)");
    check("[kafka]\nclient_id = \"a\"\nclient_id = \"b\"\n", "(pawl.toml:3:1)");
    check("a = \"é\" b\n", "(pawl.toml:1:9)");
}

#[test]
fn all_problems_are_listed_at_once_and_each_only_once() {
    let text = r#"
instanse = "a"
[kafka]
bootstrap_servers = ["localhost"]
session_timeout = "1s"
[handler.billing]
tpic = "orders"
http = { url = "ftp://a", timeout = 5 }
retry = { attempts = "x", jitter = 7 }
"#;
    let found = problems(text, &[("PAWL__LOG__FILTR", "info")]);
    let expected = [
        "instanse",
        "bootstrap_servers[0]",
        "session_timeout",
        "tpic",
        "url",
        "timeout",
        "attempts",
        "jitter",
        "FILTR",
    ];
    assert_eq!(found.len(), expected.len(), "{found:#?}");
    for (problem, word) in found.iter().zip(expected) {
        assert!(problem.contains(word), "{problem} is not about {word}");
    }
}

#[test]
fn a_file_that_cannot_be_read_is_told() {
    let dir = tempfile::tempdir().expect("a directory");
    let error = Settings::load(&dir.path().join("none.toml")).expect_err("missing").to_string();
    assert!(error.contains("none.toml: No such file"), "{error}");
    assert!(error.contains("--config"), "{error}");
    let binary = dir.path().join("binary.toml");
    fs::write(&binary, [0xff]).expect("written");
    let error = Settings::load(&binary).expect_err("not text").to_string();
    assert!(error.contains("one TOML file in UTF-8"), "{error}");
    let large = dir.path().join("large.toml");
    fs::write(&large, "#".repeat(1 + (1 << 20))).expect("written");
    let error = Settings::load(&large).expect_err("too large").to_string();
    assert!(error.contains("it is larger than 1 MiB"), "{error}");
}
