//! The tokens of the endpoint, and whose a presented one is.

use std::sync::Arc;

use ring::digest::{SHA256, digest};
use subtle::{Choice, ConstantTimeEq};

use super::access::Role;
use crate::settings::Token;

/// Known tokens: digests only, so that none is in memory for longer than it takes to read it.
#[derive(Clone, Default)]
pub struct Tokens(Vec<Known>);

#[derive(Clone)]
struct Known {
    digest: [u8; 32],
    role: Role,
    name: Arc<str>,
}

impl Tokens {
    /// Tokens of both roles.
    ///
    /// # Errors
    /// One token would have both.
    pub fn of(readers: &[Token<'_>], operators: &[Token<'_>]) -> Result<Tokens, String> {
        let known = |role: Role| {
            move |(number, token): (usize, &Token<'_>)| {
                let unnamed = || {
                    if number == 0 {
                        format!("{} token", role.name())
                    } else {
                        format!("{} token {}", role.name(), number + 1)
                    }
                };
                let name = token.name.map_or_else(unnamed, str::to_owned);
                Known { digest: of(token.secret.as_bytes()), role, name: name.into() }
            }
        };
        if readers.iter().any(|reader| operators.iter().any(|operator| operator.secret == reader.secret)) {
            return Err("a token has both roles, so every reader would be an operator".into());
        }
        let readers = readers.iter().enumerate().map(known(Role::Read));
        let operators = operators.iter().enumerate().map(known(Role::Operator));
        Ok(Tokens(readers.chain(operators).collect()))
    }

    /// Whether there is one.
    pub fn any(&self) -> bool {
        !self.0.is_empty()
    }

    /// Whether there is one of this role.
    pub fn any_of(&self, role: Role) -> bool {
        self.0.iter().any(|known| known.role == role)
    }

    /// Whose token it is. Takes as long for any token of its length: how much of a digest fits tells nothing
    /// of the token either.
    pub fn find(&self, presented: &[u8]) -> Option<(Role, Arc<str>)> {
        let presented = of(presented);
        let mut found = None;
        for known in &self.0 {
            let same: Choice = known.digest.ct_eq(&presented);
            if bool::from(same) {
                found = Some((known.role, known.name.clone()));
            }
        }
        found
    }
}

fn of(secret: &[u8]) -> [u8; 32] {
    digest(&SHA256, secret).as_ref().try_into().expect("SHA-256 has 32 bytes")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn token<'a>(name: Option<&'a str>, secret: &'a str) -> Token<'a> {
        Token { name, secret }
    }

    #[test]
    fn a_token_has_the_role_of_its_file_and_nothing_like_it_has_any() {
        let (old, new, change) = ("old-0123456789abcdef", "new-0123456789abcdef", "change-0123456789abcdef");
        let readers = [token(None, old), token(Some("prometheus"), new)];
        let tokens = Tokens::of(&readers, &[token(Some("alice"), change)]).expect("different");
        let found = |text: &str| tokens.find(text.as_bytes()).map(|(role, name)| (role, name.to_string()));
        assert_eq!(found(old), Some((Role::Read, "read token".into())));
        assert_eq!(found(new), Some((Role::Read, "prometheus".into())));
        assert_eq!(found(change), Some((Role::Operator, "alice".into())));
        for wrong in ["", "old-0123456789abcde", "old-0123456789abcdeff", "OLD-0123456789ABCDEF", "alice"] {
            assert_eq!(found(wrong), None, "{wrong}");
        }
        assert!(Tokens::of(&readers, &[token(Some("alice"), old)]).is_err(), "a reader would be an operator");
        assert_eq!(Tokens::default().find(b""), None);
    }
}
