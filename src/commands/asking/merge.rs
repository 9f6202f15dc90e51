//! What the partitions have answered, put together for the person who asked. Pure.

use std::fmt::Write as _;

use indicatif::ProgressBar;
use pawl_actors::command::{Progress, Replayed, Reply};

use super::Answers;
use crate::exit::Exit;
use crate::shown::printable;

/// What a script is told: done where somebody did it and nobody had to refuse.
pub fn exit(answers: &Answers) -> Exit {
    let refused = answers.partitions.values().any(|reply| reply.progress == Progress::Refused);
    let done = answers.partitions.values().any(|reply| reply.progress == Progress::Done);
    let well = total(answers).is_none_or(|replayed| replayed.troubles.is_empty() && replayed.failed == 0);
    if done && well && !refused && answers.silent.is_empty() { Exit::Done } else { Exit::Findings }
}

/// For the person who asked.
pub fn told(answers: &Answers, handler: &str) -> String {
    let mut text = String::new();
    let mut line = |line: &str| writeln!(text, "{line}").expect("a String takes any text");
    if let Some(replayed) = total(answers) {
        let Replayed { applied, duplicates, failed, passed_over, .. } = &replayed;
        line(&format!(
            "letters: {applied} took effect, {duplicates} were duplicates, {failed} failed again and stay, {passed_over} \
             were not meant or dealt with before"
        ));
    }
    let mut nothing = Vec::new();
    for (partition, Reply { progress, message, replay, .. }) in &answers.partitions {
        let troubles = replay.iter().flat_map(|replay| &replay.troubles);
        match progress {
            Progress::Nothing => nothing.push(message),
            Progress::Refused => line(&format!("partition {partition}: refused: {}", printable(message))),
            Progress::Done if replay.is_none() => {
                line(&format!("partition {partition}: {}", printable(message)))
            }
            Progress::Done | Progress::Running => {}
        }
        troubles.for_each(|trouble| line(&format!("partition {partition}: {}", printable(trouble))));
    }
    if nothing.len() == answers.partitions.len()
        && let Some(first) = nothing.first()
    {
        line(&printable(first));
    }
    let silent = &answers.silent;
    if !silent.is_empty() {
        let list: Vec<String> = silent.iter().map(ToString::to_string).collect();
        line(&format!(
            "no last answer yet from partitions {}: the instances of {handler} that hold them are away or busy. The command \
             {} stays in the topic, and is carried out once",
            list.join(", "),
            answers.id
        ));
    }
    text
}

/// What a replay did in all partitions together.
fn total(answers: &Answers) -> Option<Replayed> {
    let mut parts = answers.partitions.values().filter_map(|reply| reply.replay.as_ref());
    let first = parts.next()?.clone();
    Some(parts.fold(first, |mut sum, part| {
        sum.applied += part.applied;
        sum.duplicates += part.duplicates;
        sum.failed += part.failed;
        sum.passed_over += part.passed_over;
        sum.gaps += part.gaps;
        sum.read += part.read;
        sum.end += part.end;
        sum.troubles.extend(part.troubles.iter().cloned());
        sum
    }))
}

/// Moves a bar as far as the partitions have come.
pub fn show(bar: &ProgressBar, answers: &Answers) {
    if let Some(Replayed { applied, failed, read, end, .. }) = total(answers) {
        bar.set_length(end.max(1).unsigned_abs());
        bar.set_position(read.clamp(0, end).unsigned_abs());
        bar.set_message(format!("{applied} replayed, {failed} failed"));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reply(progress: Progress, message: &str, replay: Option<Replayed>) -> Reply {
        Reply { version: 1, id: "c".into(), progress, message: message.into(), replay }
    }

    fn answers(replies: Vec<Reply>, silent: Vec<i32>) -> Answers {
        let partitions = (0..).zip(replies).collect();
        Answers { id: "c".into(), partitions, silent }
    }

    #[test]
    fn one_partition_that_knows_the_key_is_enough() {
        let found = answers(
            vec![reply(Progress::Nothing, "nothing", None), reply(Progress::Done, "key \"K\" goes on", None)],
            vec![],
        );
        assert_eq!(told(&found, "billing"), "partition 1: key \"K\" goes on\n");
        assert_eq!(exit(&found), Exit::Done);
        let unknown = answers(vec![reply(Progress::Nothing, "nothing is known of the key", None)], vec![]);
        assert_eq!(told(&unknown, "billing"), "nothing is known of the key\n");
        assert_eq!(exit(&unknown), Exit::Findings);
    }

    #[test]
    fn a_replay_is_summed_up_and_what_went_wrong_is_named() {
        let part = |applied, troubles: &[&str]| Replayed {
            applied,
            troubles: troubles.iter().map(|trouble| (*trouble).to_owned()).collect(),
            ..Replayed::default()
        };
        let done = |part| reply(Progress::Done, "x", Some(part));
        let well = answers(vec![done(part(2, &[])), done(part(3, &[]))], vec![]);
        assert!(
            told(&well, "billing").starts_with("letters: 5 took effect, 0 were"),
            "{}",
            told(&well, "billing")
        );
        assert_eq!(exit(&well), Exit::Done);
        let ill = answers(vec![done(part(2, &[])), done(part(0, &["key \"A\": 422"]))], vec![]);
        assert!(told(&ill, "billing").ends_with("partition 1: key \"A\": 422\n"));
        assert_eq!(exit(&ill), Exit::Findings);
    }

    #[test]
    fn whoever_did_not_answer_is_named() {
        let silent = answers(vec![reply(Progress::Done, "x", None)], vec![4, 7]);
        assert!(told(&silent, "billing").contains("partitions 4, 7: the instances of billing"));
        assert_eq!(exit(&silent), Exit::Findings);
    }
}
