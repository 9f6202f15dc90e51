//! Which letters a filter of the command line is about.

use std::time::{SystemTime, UNIX_EPOCH};

use pawl_actors::command::{Filter, KeyName};
use pawl_actors::dead_letter::Told;
use pawl_actors::ledger::LaneKey;

use super::scan::Found;
use crate::cli::{LetterFilter, Moment};
use crate::commands::Failure;
use crate::exit::Exit;

/// The filter that a person means, with ages counted back from `now`.
///
/// # Errors
/// No time lies between its two.
pub fn filter(args: &LetterFilter, group: Option<&String>, now: SystemTime) -> Result<Filter, Failure> {
    let key = match (&args.key, &args.key_hex, args.no_key) {
        (Some(text), ..) => Some(KeyName(LaneKey::Key(text.clone().into()))),
        (_, Some(bytes), _) => Some(KeyName(LaneKey::Key(bytes.clone()))),
        (.., true) => Some(KeyName(LaneKey::Unusable)),
        (None, None, false) => None,
    };
    let (since, until) =
        (args.since.map(|since| millis(since, now)), args.until.map(|until| millis(until, now)));
    if since.zip(until).is_some_and(|(since, until)| since >= until) {
        let message = "--since is not before --until, so no letter is meant; swap them";
        return Err(Failure::new(Exit::Usage, message));
    }
    let (cause, disposition) = (args.cause.clone(), args.disposition.clone());
    Ok(Filter { key, cause, disposition, since, until, group: group.cloned() })
}

/// Whether the filter is about a letter. Its key is the record's: what a handler makes of it, only that
/// handler's settings tell.
pub fn is_about(filter: &Filter, found: &Found) -> bool {
    let (letter, told) = (&found.record, Told::read(&found.record));
    filter.key.as_ref().is_none_or(|only| only.0 == LaneKey::from(letter.key.clone()))
        && filter.group.as_ref().is_none_or(|only| told.group.as_ref() == Some(only))
        && filter.fits(letter, &told)
}

pub fn millis(moment: Moment, now: SystemTime) -> i64 {
    let now = now.duration_since(UNIX_EPOCH).unwrap_or_default();
    match moment {
        Moment::At(millis) => millis,
        Moment::Ago(age) => i64::try_from(now.saturating_sub(age).as_millis()).unwrap_or(i64::MAX),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use bytes::Bytes;
    use pawl_actors::dead_letter::{KEY_EXCEPTION, header};
    use pawl_actors::record::{Header, Millis, Offset, Record, TimestampType};

    use super::*;

    const WRITTEN: i64 = 1_700_000_000_000;

    fn letter() -> Found {
        let headers = vec![
            Header::new(header::ORIGINAL_CONSUMER_GROUP, "billing"),
            Header::new(header::EXCEPTION_FQCN, "pawl.Exhausted"),
            Header::new(header::EXCEPTION_CAUSE_FQCN, "pawl.Unavailable"),
            Header::new(header::OWN_CODE, "ledger-closed"),
            Header::new(header::EXCEPTION_MESSAGE, "service answered 503"),
            Header::new(header::DISPOSITION, "exhausted"),
        ];
        let record = Record {
            offset: Offset(7),
            timestamp: Millis(WRITTEN),
            timestamp_type: TimestampType::CreateTime,
            key: Some(Bytes::from_static(b"A1")),
            value: None,
            headers,
        };
        Found { partition: 0, record }
    }

    /// An hour after the letter.
    fn now() -> SystemTime {
        UNIX_EPOCH + Duration::from_millis(WRITTEN.unsigned_abs()) + Duration::from_secs(3600)
    }

    fn meant(args: LetterFilter, found: &Found) -> bool {
        is_about(&filter(&args, None, now()).expect("a filter"), found)
    }

    #[test]
    fn each_part_of_a_filter_chooses_and_what_is_left_out_does_not() {
        let minutes = |minutes: u64| Some(Moment::Ago(Duration::from_secs(60 * minutes)));
        let some = |text: &str| Some(text.to_owned());
        let all = LetterFilter::default;
        let cases = [
            (all(), true),
            (LetterFilter { key: some("A1"), ..all() }, true),
            (LetterFilter { key: some("A"), ..all() }, false),
            (LetterFilter { key_hex: Some(Bytes::from_static(&[0x41, 0x31])), ..all() }, true),
            (LetterFilter { no_key: true, ..all() }, false),
            (LetterFilter { cause: some("pawl.Exhausted"), ..all() }, true),
            (LetterFilter { cause: some("pawl.Unavailable"), ..all() }, true),
            (LetterFilter { cause: some("ledger-closed"), ..all() }, true),
            (LetterFilter { cause: some("pawl.Unavail"), ..all() }, false),
            (LetterFilter { cause: some("answered 50"), ..all() }, true),
            (LetterFilter { disposition: some("exhausted"), ..all() }, true),
            (LetterFilter { disposition: some("poison"), ..all() }, false),
            (LetterFilter { since: minutes(60), ..all() }, true),
            (LetterFilter { since: minutes(59), ..all() }, false),
            (LetterFilter { until: minutes(60), ..all() }, false),
            (LetterFilter { until: minutes(59), ..all() }, true),
            (LetterFilter { since: Some(Moment::At(WRITTEN + 1)), ..all() }, false),
            (LetterFilter { key: some("A1"), disposition: some("poison"), ..all() }, false),
        ];
        for (args, expected) in cases {
            assert_eq!(meant(args.clone(), &letter()), expected, "{args:?}");
        }
    }

    #[test]
    fn a_letter_without_key_is_meant_by_that_and_springs_key_exception_is_a_cause() {
        let mut bare = letter();
        bare.record.key = None;
        bare.record.headers = vec![Header::new(KEY_EXCEPTION[0], "KeyError")];
        assert!(meant(LetterFilter { no_key: true, ..LetterFilter::default() }, &bare));
        assert!(meant(LetterFilter { cause: Some("KeyError".into()), ..LetterFilter::default() }, &bare));
        assert!(!meant(LetterFilter { key: Some(String::new()), ..LetterFilter::default() }, &bare));
    }

    #[test]
    fn the_group_is_that_of_the_last_handler() {
        let by = |group: &str, found: &Found| {
            is_about(&filter(&LetterFilter::default(), Some(&group.into()), now()).expect("a filter"), found)
        };
        let mut second = letter();
        assert!(by("billing", &second));
        second.record.headers.push(Header::new(header::GROUP, "repair"));
        assert!(by("repair", &second) && !by("billing", &second));
    }

    #[test]
    fn times_that_leave_nothing_between_them_are_refused() {
        let hours = |hours: u64| Some(Moment::Ago(Duration::from_secs(3600 * hours)));
        let swapped = LetterFilter { since: hours(1), until: hours(2), ..LetterFilter::default() };
        assert!(filter(&swapped, None, now()).is_err());
        let all_of_time = LetterFilter { since: Some(Moment::Ago(Duration::MAX)), ..LetterFilter::default() };
        assert_eq!(filter(&all_of_time, None, now()).expect("a filter").since, Some(0));
    }
}
