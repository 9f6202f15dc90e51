//! The lines of an input, bounded. Blank ones are left out and counted.

use std::io::{self, BufRead, Read};

use bytes::Bytes;

/// A line and its 1-based number.
#[derive(Debug, PartialEq, Eq)]
pub struct Line {
    pub number: u64,
    /// The line without its end, or why it is not taken.
    pub text: Result<Bytes, String>,
}

/// The lines of an input, without blank ones; never holds more than `limit` bytes of a line.
pub struct Lines<R> {
    input: R,
    limit: usize,
    number: u64,
}

impl<R: BufRead> Lines<R> {
    pub fn new(input: R, limit: usize) -> Lines<R> {
        Lines { input, limit, number: 0 }
    }

    /// The next line, blank or not; `None` at the end.
    fn next_line(&mut self) -> io::Result<Option<Line>> {
        let mut text = Vec::new();
        // Room for the line's end, and one byte more to see that a line is too long.
        let most = self.limit as u64 + 3;
        if self.input.by_ref().take(most).read_until(b'\n', &mut text)? == 0 {
            return Ok(None);
        }
        self.number += 1;
        let ended = text.last() == Some(&b'\n');
        if ended {
            text.pop();
            if text.last() == Some(&b'\r') {
                text.pop();
            }
        }
        let text = if text.len() <= self.limit {
            Ok(text.into())
        } else {
            if !ended {
                self.input.skip_until(b'\n')?;
            }
            Err(format!(
                "longer than {} bytes; raise --max-line-bytes and the topic's max.message.bytes",
                self.limit
            ))
        };
        Ok(Some(Line { number: self.number, text }))
    }
}

impl<R: BufRead> Iterator for Lines<R> {
    type Item = io::Result<Line>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            match self.next_line().transpose()? {
                Ok(Line { text: Ok(text), .. }) if text.trim_ascii().is_empty() => {}
                other => return Some(other),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(input: &str, limit: usize) -> Vec<(u64, Result<String, String>)> {
        let lines = Lines::new(input.as_bytes(), limit).map(|line| line.expect("readable"));
        let text = |bytes: Bytes| String::from_utf8(bytes.to_vec()).expect("UTF-8");
        lines.map(|line| (line.number, line.text.map(text))).collect()
    }

    #[test]
    fn lines_are_numbered_with_the_blank_ones_that_are_left_out() {
        let expected = vec![(1, Ok("a".into())), (3, Ok("b".into())), (5, Ok("c".into()))];
        assert_eq!(lines("a\n\nb\r\n  \nc", 10), expected, "the last line needs no end");
        assert_eq!(lines("", 10), []);
    }

    #[test]
    fn a_line_over_the_limit_is_named_and_the_next_one_is_whole() {
        for end in ["\n", "\r\n"] {
            let input = format!("12345{end}123456{end}{}{end}12345{end}", "x".repeat(100_000));
            let read = lines(&input, 5);
            assert_eq!(read[0], (1, Ok("12345".into())), "{end:?}");
            assert!(read[1].1.as_ref().is_err_and(|why| why.contains("longer than 5 bytes")), "{read:?}");
            assert!(read[2].1.is_err());
            assert_eq!(read[3], (4, Ok("12345".into())), "{end:?}");
        }
    }
}
