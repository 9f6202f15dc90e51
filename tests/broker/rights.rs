//! Exactly the rights that `pawl iam-policy` prints: with all of them Pawl works, and `pawl check` names any that
//! is missing.

use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::security::{flow, secret, settings, tls, topics};
use crate::support::secured::{LIMITED, PASSWORD, Secured};
use crate::support::{Pawl, command, process, secured};

/// One line of `pawl iam-policy --form acl`, as the ACL of another principal.
struct Acl {
    operation: String,
    kind: &'static str,
    pattern: &'static str,
    name: String,
}

impl Acl {
    fn parse(line: &str) -> Acl {
        let words: Vec<&str> = line.split(' ').collect();
        let after =
            |option: &str| words.iter().position(|word| *word == option).map(|at| words[at + 1].to_owned());
        let named = [("--topic", "topic"), ("--group", "group"), ("--transactional-id", "transactional_id")];
        let (name, kind) =
            named.into_iter().find_map(|(option, kind)| Some((after(option)?, kind))).expect("a resource");
        let pattern = if after("--resource-pattern-type").is_some() { "prefixed" } else { "literal" };
        Acl { operation: after("--operation").expect("an operation"), kind, pattern, name }
    }

    fn of(&self, principal: usize) -> String {
        let operation = match self.operation.as_str() {
            "DescribeConfigs" => "describe_configs",
            other => other,
        };
        format!("allow User:limited-{principal} {operation} {} {} {}", self.kind, self.pattern, self.name)
    }
}

fn settings_of(secured: &Secured, name: usize, password: &Path, (input, output): (&str, &str)) -> String {
    let security = format!(
        "security = \"scram\"\n{}\n[kafka.sasl]\nusername = \"limited-{name}\"\npassword_file = \"{}\"",
        tls(secured, ""),
        password.display()
    );
    settings(&secured.broker.listener("SCRAM"), &security, input, output)
}

fn file(text: &str) -> PathBuf {
    let file = process::scratch("rights").join("pawl.toml");
    std::fs::write(&file, text).expect("the scratch directory can be written");
    file
}

fn findings(config: &Path) -> (i32, Vec<Value>) {
    let finished = command(&["check", "--json", "--config", config.to_str().expect("UTF-8")], b"");
    let findings = finished.json()["findings"].as_array().expect("a list").clone();
    (finished.code, findings)
}

#[test]
fn pawl_works_with_exactly_the_rights_that_it_prints_and_check_names_each_that_is_missing() {
    let Some(secured) = secured() else { return };
    let (input, output) = topics(secured);
    let password = secret(PASSWORD);
    // The first question about a group waits for the broker to make the topic of its coordinators.
    let patient = |text: String| text.replace("[kafka]\n", "[kafka]\nrequest_timeout = \"45s\"\n");
    let config = |name| file(&patient(settings_of(secured, name, &password, (&input, &output))));
    let whole = config(0);
    let whole_file = whole.to_str().expect("UTF-8");
    let printed = command(&["iam-policy", "--form", "acl", "--config", whole_file], b"");
    assert_eq!(printed.code, 0, "{printed:?}");
    let acls: Vec<Acl> = printed.stdout.lines().map(Acl::parse).collect();
    assert!((12..LIMITED - 1).contains(&acls.len()), "{}", printed.stdout);

    // Nobody has any right before: limited-0 gets all, limited-N all but the Nth. A topic that is not there yet
    // is told apart from one that is hidden.
    let all = acls.iter().map(|acl| acl.of(0));
    let all_but = (1..=acls.len()).flat_map(|name| {
        acls.iter().enumerate().filter(move |(n, _)| n + 1 != name).map(move |(_, acl)| acl.of(name))
    });
    secured.allow(&all.chain(all_but).collect::<Vec<_>>());

    let (code, found) = findings(&whole);
    assert_eq!(code, 0, "{found:#?}");
    let mut pawl = Pawl::new(&settings_of(secured, 0, &password, (&input, &output)));
    pawl.start();
    flow(secured, &pawl, (&input, &output), 0..40);
    assert_eq!(pawl.terminate(), 0, "{}", pawl.log());
    assert!(!pawl.log().contains("uthorization"), "nothing was refused:\n{}", pawl.log());
    let (code, found) = findings(&whole);
    assert!(code == 0 && found.is_empty(), "{found:#?}");

    for (n, acl) in acls.iter().enumerate() {
        let (_, found) = findings(&config(n + 1));
        let names = |finding: &Value| {
            let text = finding["finding"].as_str().expect("a text");
            text.contains(&format!("User:limited-{} ", n + 1))
                && text.contains(&acl.operation)
                && text.contains(&format!("\"{}", acl.name))
        };
        assert!(found.iter().any(names), "without {} of {}: {found:#?}", acl.operation, acl.name);
    }

    // Without a look before, a run ends and says it too. The changelog may still be read.
    for (kind, operation) in [("group", "Read"), ("transactional_id", "Write"), ("topic", "Write")] {
        let is_it = |acl: &&Acl| {
            (acl.kind, acl.operation.as_str()) == (kind, operation)
                && (kind != "topic" || acl.name.ends_with("-changelog"))
        };
        let acl = acls.iter().find(is_it).expect("it is among those that are printed");
        let n = 1 + acls.iter().position(|one| std::ptr::eq(one, acl)).expect("it is one of them");
        let mut pawl = Pawl::new(&settings_of(secured, n, &password, (&input, &output)));
        pawl.start();
        assert_ne!(pawl.wait(), 0, "{}", pawl.log());
        let log = pawl.log();
        let kind = kind.replace('_', " ");
        let wanted = format!("has no right {operation} to the {kind} \"{}", acl.name);
        let last = log.lines().last().unwrap_or_default();
        assert!(
            last.contains(&format!("User:limited-{n} ")) && last.contains(&wanted),
            "not {wanted:?}:\n{log}"
        );
    }

    // An operator with the same rights looks at letters and keys, and asks for something.
    let letters = format!("{input}-dlt");
    pawl.start().wait_ready();
    for words in [&["dlt", "list", &letters][..], &["keys", "list"], &["keys", "pause", "order-1"]] {
        let finished = command(&[words, &["--config", whole_file]].concat(), b"");
        assert_eq!(finished.code, 0, "{words:?}: {finished:?}");
    }
    assert_eq!(pawl.terminate(), 0, "{}", pawl.log());
}

#[test]
fn a_missing_right_ends_a_run_with_the_principal_the_resource_and_the_right() {
    let Some(secured) = secured() else { return };
    let (input, output) = topics(secured);
    // Nobody ever gives it a right.
    let text = settings_of(secured, LIMITED - 2, &secret(PASSWORD), (&input, &output));
    let mut pawl = Pawl::new(&text);
    pawl.start().assert_refused(&["User:limited-30", &format!("\"{input}\""), "Describe", "pawl iam-policy"]);
}
