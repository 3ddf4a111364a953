//! Who may ask for reviews: Basic or bearer credentials, compared in constant time.

use std::path::PathBuf;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use http::HeaderMap;
use http::header::AUTHORIZATION;
use subtle::{Choice, ConstantTimeEq};

use crate::identity::secret;

/// Where the credentials that a caller must show are kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Settings {
    /// Every caller may ask: loopback, or callers that TLS has authenticated.
    Open,
    Basic {
        username: String,
        password_file: PathBuf,
    },
    Bearer {
        token_file: PathBuf,
    },
}

/// The credentials to compare with.
pub struct Auth {
    accepted: Option<Accepted>,
}

struct Accepted {
    scheme: &'static str,
    /// What may follow the scheme. Two for Basic: clients write a password in UTF-8 or in Latin-1
    /// (Python's `requests` does the latter).
    credentials: Vec<Vec<u8>>,
}

/// The proof that a caller has been authenticated. Only [`Auth::authenticate`] makes one.
#[derive(Clone, Copy, Debug)]
pub struct Authenticated(());

/// The caller showed no credentials, or others.
#[derive(Clone, Copy, Debug)]
pub struct Unauthenticated {
    /// The scheme to ask for.
    pub scheme: &'static str,
}

impl Auth {
    /// Reads the credentials.
    ///
    /// # Errors
    /// In words, naming the file.
    pub fn load(settings: &Settings) -> Result<Self, String> {
        let accepted = match settings {
            Settings::Open => None,
            Settings::Bearer { token_file } => Some(Accepted {
                scheme: "Bearer",
                credentials: vec![secret(token_file)?.into_bytes()],
            }),
            Settings::Basic {
                username,
                password_file,
            } => {
                let pair = format!("{username}:{}", secret(password_file)?);
                let latin1: Option<Vec<u8>> = pair
                    .chars()
                    .map(|c| u8::try_from(u32::from(c)).ok())
                    .collect();
                let encodings = std::iter::once(pair.into_bytes()).chain(latin1);
                let credentials = encodings
                    .map(|bytes| BASE64_STANDARD.encode(bytes).into_bytes())
                    .collect();
                Some(Accepted {
                    scheme: "Basic",
                    credentials,
                })
            }
        };
        Ok(Self { accepted })
    }

    /// # Errors
    /// When the headers do not show the credentials.
    pub fn authenticate(&self, headers: &HeaderMap) -> Result<Authenticated, Unauthenticated> {
        let Some(accepted) = &self.accepted else {
            return Ok(Authenticated(()));
        };
        let shown = headers
            .get(AUTHORIZATION)
            .map_or(&b""[..], |value| value.as_bytes());
        let (scheme, rest) = shown.split_at(shown.len().min(accepted.scheme.len()));
        let credentials = rest.strip_prefix(b" ").unwrap_or_default().trim_ascii();
        let scheme_fits = scheme.eq_ignore_ascii_case(accepted.scheme.as_bytes());
        let equal = accepted
            .credentials
            .iter()
            .map(|known| known.ct_eq(credentials));
        let any = equal.fold(Choice::from(0), |any, equal| any | equal);
        if scheme_fits && bool::from(any) {
            Ok(Authenticated(()))
        } else {
            Err(Unauthenticated {
                scheme: accepted.scheme,
            })
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use http::HeaderValue;
    use rstest::rstest;

    use super::*;

    fn auth(settings: impl Fn(PathBuf) -> Settings, secret: &str) -> Auth {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("secret");
        fs::write(&file, secret).unwrap();
        Auth::load(&settings(file)).unwrap()
    }

    fn header(value: &str) -> HeaderMap {
        HeaderMap::from_iter([(AUTHORIZATION, HeaderValue::from_str(value).unwrap())])
    }

    #[rstest]
    #[case("Basic ZHN0YWNrOnBhw58=", true)]
    #[case("basic ZHN0YWNrOnBhw58=", true)]
    #[case("Basic ZHN0YWNrOnBh3w==", true)]
    #[case("Basic ZHN0YWNrOnBh", false)]
    #[case("Basic", false)]
    #[case("", false)]
    #[case("Bearer ZHN0YWNrOnBhw58=", false)]
    fn basic_credentials_are_taken_in_both_encodings(#[case] shown: &str, #[case] accepted: bool) {
        let settings = |password_file| Settings::Basic {
            username: "dstack".into(),
            password_file,
        };
        assert_eq!(
            auth(settings, "paß\n").authenticate(&header(shown)).is_ok(),
            accepted
        );
    }

    #[rstest]
    #[case("Bearer s3cret", true)]
    #[case("Bearer s3cre", false)]
    #[case("Bearer s3cret2", false)]
    #[case("Bearer", false)]
    fn a_bearer_token_must_be_the_whole_token(#[case] shown: &str, #[case] accepted: bool) {
        let settings = |token_file| Settings::Bearer { token_file };
        assert_eq!(
            auth(settings, "s3cret")
                .authenticate(&header(shown))
                .is_ok(),
            accepted
        );
    }

    #[test]
    fn no_header_is_no_credentials() {
        let settings = |token_file| Settings::Bearer { token_file };
        assert!(
            auth(settings, "s3cret")
                .authenticate(&HeaderMap::new())
                .is_err()
        );
    }

    #[test]
    fn an_empty_secret_is_refused_at_load() {
        let directory = tempfile::tempdir().unwrap();
        let token_file = directory.path().join("token");
        fs::write(&token_file, "\n").unwrap();
        assert!(Auth::load(&Settings::Bearer { token_file }).is_err());
    }
}
