//! How a bearer token is written: `token` or `name:token`, and in a file one a line.

/// The shortest token, in characters: 16 random hex digits are 64 bits, and guesses are limited in rate.
const MIN_CHARS: usize = 16;
/// The longest, in characters.
const MAX_CHARS: usize = 512;
/// The longest name, in characters.
const MAX_NAME_CHARS: usize = 64;
/// Tokens of one role, at most.
pub const MAX_TOKENS: usize = 64;

/// A token and the name that it is known by in the log.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Token<'a> {
    /// The name, if it has one.
    pub name: Option<&'a str>,
    /// What has to be kept secret.
    pub secret: &'a str,
}

impl Token<'_> {
    /// Reads a token.
    ///
    /// # Errors
    /// What is wrong with it, without any part of it.
    pub fn read(text: &str) -> Result<Token<'_>, String> {
        let (name, secret) = match text.trim().split_once(':') {
            Some((name, secret)) => (Some(name), secret),
            None => (None, text.trim()),
        };
        let legal_name = |name: &str| {
            (1..=MAX_NAME_CHARS).contains(&name.len())
                && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"._-@".contains(&byte))
        };
        if name.is_some_and(|name| !legal_name(name)) {
            return Err(
                "the name before the colon is not 1 to 64 characters of a-z, A-Z, 0-9, '.', '_', '-' and '@'"
                    .into(),
            );
        }
        // RFC 6750's b64token.
        if !secret.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-._~+/=".contains(&byte)) {
            return Err("a token has only letters, digits and -._~+/=".into());
        }
        match secret.len() {
            MIN_CHARS..=MAX_CHARS => Ok(Token { name, secret }),
            chars => Err(format!("it has {chars} characters, {MIN_CHARS} to {MAX_CHARS} are allowed")),
        }
    }

    /// Reads the lines of a file; empty ones and those that begin with `#` are passed over.
    ///
    /// # Errors
    /// What is wrong with which line, or there is no token, or there are too many.
    pub fn read_lines(text: &str) -> Result<Vec<Token<'_>>, String> {
        let lines = text
            .lines()
            .enumerate()
            .filter(|(_, line)| !matches!(line.trim().chars().next(), None | Some('#')));
        let read = |(number, line)| Token::read(line).map_err(|why| format!("line {}: {why}", number + 1));
        let tokens: Vec<Token<'_>> = lines.map(read).collect::<Result<_, _>>()?;
        match tokens.len() {
            0 => Err("there is no token in it".into()),
            1..=MAX_TOKENS => Ok(tokens),
            _ => Err(format!("there are more than {MAX_TOKENS} tokens in it")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_holds_tokens_with_and_without_names() {
        let text = "# since March\nprometheus:0123456789abcdef\r\n\n  fedcba9876543210+/==  \n";
        let read = Token::read_lines(text).unwrap_or_else(|why| panic!("{why}"));
        let read: Vec<_> = read.iter().map(|token| (token.name, token.secret)).collect();
        assert_eq!(read, [(Some("prometheus"), "0123456789abcdef"), (None, "fedcba9876543210+/==")]);
    }

    #[test]
    fn what_is_no_token_is_refused_without_being_told() {
        for (text, why) in [
            ("", "no token"),
            ("# only\n", "no token"),
            ("0123456789abcdef\nshort-one", "line 2: it has 9 characters"),
            ("0123456789abcdef secret", "only letters"),
            ("na me:0123456789abcdef", "name before the colon"),
            (":0123456789abcdef", "name before the colon"),
            ("0123456789abcdef:short-one", "9 characters"),
        ] {
            let told = Token::read_lines(text).err().unwrap_or_else(|| panic!("{text:?} is no token"));
            assert!(told.contains(why), "{told} lacks {why}");
            assert!(!told.contains("0123456789abcdef") && !told.contains("short-one"), "{told}");
        }
        assert!(Token::read_lines(&"0123456789abcdef\n".repeat(MAX_TOKENS + 1)).is_err());
    }
}
